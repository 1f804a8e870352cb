"""`siamcal predict`: a video or images of one person -> a table of AU intensities."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siamcal.cli import READ, app
from siamcal.errors import ConfigError

if TYPE_CHECKING:
    from siamcal.faces.media import FrameStream
    from siamcal.inference import PersonReference, Predictor, Summary

EXAMPLES = """
Read the action units of one person from a video, images, a folder of images or a camera, relative
to a neutral reference frame of that person. Rows are written as they are known.

Examples:

    siamcal predict clip.mp4 --reference neutral.jpg -o aus.csv
    siamcal predict clip.mp4 --reference-frame 12 -o aus.csv       # frame 12 of the clip itself
    siamcal predict clip.mp4 --reference auto -o aus.csv           # the most neutral frame: a guess
    siamcal predict day1.mp4 --reference neutral.jpg --save-profile anna.safetensors -o day1.csv
    siamcal predict day2.mp4 --profile anna.safetensors -o day2.csv
    siamcal predict frames/ --reference frames/000.png > aus.csv
    siamcal predict camera:0 --profile anna.safetensors -o live.csv    # Ctrl-C ends it
    ffmpeg -i clip.mp4 -f matroska - | siamcal predict - --reference neutral.jpg -o aus.csv

Columns as OpenFace writes them: frame, face_id, timestamp, confidence, success, AU01_r .. AU26_r,
AU01_c .. AU26_c. `AU.._c` is 1 exactly where `AU.._r` is 2 or more; frames without a face have
success 0. Beside aus.csv lies aus.json: calibrator, reference, settings, flagged frames.
"""


@app.command(help=EXAMPLES, rich_help_panel=READ)
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(help="A video, images, a folder of images, camera:0, rtsp://..., or -."),
    ],
    reference: Annotated[
        str | None, typer.Option(help="Neutral picture of the same person, or 'auto'.")
    ] = None,
    reference_frame: Annotated[
        int | None, typer.Option(min=1, help="Take this frame of the input (counted from 1).")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="A reference that --save-profile wrote.")
    ] = None,
    save_profile: Annotated[
        Path | None, typer.Option(help="Write the encoded reference, to use it again.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Table, like aus.csv; without it: CSV to stdout."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Calibrator: a folder or hf-hub:owner/name.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Insist on intensity or detection.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Frames through the network at once.")
    ] = 16,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run's summary as JSON to stdout.")
    ] = False,
) -> None:
    """Read AUs of one person."""
    _check_options(inputs, reference, reference_frame, profile, output, as_json)
    from siamcal import inference
    from siamcal.inference.models import choose_device

    calibrator = inference.load_model(model, task)
    with inference.Predictor(
        calibrator, device=choose_device(device), batch_size=batch_size
    ) as predictor:
        stream = _open(inputs)
        person = _reference(inputs, reference, reference_frame, profile, predictor)
        if save_profile is not None:
            inference.save_profile(person, save_profile, predictor)
        _announce(predictor, person)
        try:
            summary = inference.predict_to_table(
                stream, output or sys.stdout.buffer, predictor=predictor, reference=person
            )
        except BrokenPipeError:  # `siamcal predict ... | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
    _report(summary, person, output)
    if as_json:
        print(json.dumps({"output": str(output), **asdict(summary)}, indent=2))
    if summary.status == "interrupted":
        raise typer.Exit(130)


def _check_options(
    inputs: list[str],
    reference: str | None,
    reference_frame: int | None,
    profile: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    given = [o is not None for o in (reference, reference_frame, profile)]
    if sum(given) != 1:
        raise ConfigError(
            "One neutral reference of the person is needed: --reference neutral.jpg (a picture at "
            "rest, eyes open), --reference-frame N (a frame of the input), --reference auto (let "
            "siamcal choose one) or --profile FILE (saved before). "
            + ("None was given." if not any(given) else "Several were given; name one.")
        )
    if output is None and as_json:
        raise ConfigError("--json and the table would share stdout; write the table with -o FILE.")
    if output is not None:
        from siamcal.inference.run import table_format

        table_format(output)
        if output.is_dir():
            raise ConfigError(f"{output} is a folder; name a file in it with -o.")
        there = [path for path in inputs if output.exists() and os.path.exists(path)]
        if any(os.path.samefile(path, output) for path in there):
            raise ConfigError(f"{output} is an input; it would be overwritten. Choose another -o.")


def _open(inputs: list[str]) -> FrameStream:
    from siamcal.faces.media import open_camera, open_media

    camera = inputs[0].partition(":")
    if camera[0] == "camera" and not Path(inputs[0]).exists():
        if len(inputs) > 1 or not (camera[2] or "0").isdigit():
            raise ConfigError(f"A camera is named alone, like camera:0; {inputs} was given.")
        return open_camera(int(camera[2] or 0))
    return open_media(inputs)


def _reference(
    inputs: list[str],
    reference: str | None,
    number: int | None,
    profile: Path | None,
    predictor: Predictor,
) -> PersonReference:
    from siamcal import inference
    from siamcal.inference.references import reference_frame

    live = inputs[0].startswith("camera:")
    if profile is not None:
        return inference.load_profile(profile, predictor)
    if live and (number is not None or reference == "auto"):
        raise ConfigError("A camera has no frames yet: give --reference FILE or --profile FILE.")
    if number is not None:
        return reference_frame([*inputs], predictor, number)
    if reference is not None and reference != "auto":
        return inference.read_reference(reference, predictor)
    return inference.choose_reference([*inputs], predictor)


def _announce(predictor: Predictor, person: PersonReference) -> None:
    from siamcal.inference.models import RENDERED_NOTE

    config = predictor.config
    if config.rendered:
        _say(f"Note: {RENDERED_NOTE}")
    by_status: dict[str, list[str]] = {}
    for au, status in zip(config.aus, config.au_status, strict=True):
        by_status.setdefault(status, []).append(f"AU{au}")
    for status, aus in by_status.items():
        _say(f"  {status}: {', '.join(aus)}")
    source = person.facts.get("source", person.facts.get("profile", ""))
    frame = person.facts.get("frame", 1)
    _say(f"Reference: {source}" + (f", frame {frame}" if frame != 1 else ""))


def _report(summary: Summary, person: PersonReference, output: Path | None) -> None:
    for warning in summary.warnings:
        _say(f"Warning: {warning}", colour=typer.colors.YELLOW)
    where = f" -> {output}" if output else ""
    stopped = "" if summary.status == "complete" else f" ({summary.status})"
    _say(f"{summary.frames} frames, {summary.successes} with values{where}{stopped}")


def _say(text: str, colour: str | None = None) -> None:
    typer.secho(text, err=True, fg=colour)
