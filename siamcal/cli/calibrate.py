"""`siamcal calibrate`: neutral frames of a person -> a profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from siamcal.cli import READ, app
from siamcal.cli._inputs import refuse_absent
from siamcal.cli._options import AsJson
from siamcal.errors import ConfigError

if TYPE_CHECKING:
    from siamcal.inference import PersonReference

EXAMPLES = """
Encode a person's neutral face once, from one or several pictures and recordings, into a profile
that `siamcal predict --profile` takes. Each picture gives its frame, each video (or folder of
pictures) its most neutral one; several are pooled, so that a single bad one hardly counts.

Examples:

    siamcal calibrate neutral.jpg -o p01.siamcal
    siamcal calibrate day1.mp4 day2.mp4 day3.mp4 -o p01.siamcal   # pooled
    siamcal calibrate day1.mp4 --frame 12 -o p01.siamcal

The file holds features of a face: keep it like a photograph (mode 600). It holds no picture unless
--image asks for one, and belongs to the calibrator that made it.
"""


@app.command(help=EXAMPLES, rich_help_panel=READ)
def calibrate(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, videos, folders of one person.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The profile.")],
    frame: Annotated[
        int | None, typer.Option(min=1, help="Take this frame of the only input, from 1 on.")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Take a recording's best frame even if it isn't neutral.")
    ] = False,
    candidates: Annotated[
        Path | None,
        typer.Option(help="Draw the frames that the only recording's is chosen from: a PNG."),
    ] = None,
    image: Annotated[
        bool, typer.Option("--image/--no-image", help="Keep the small crops of the face too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a profile that siamcal wrote before.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Calibrator: a folder or hf-hub:owner/name.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Make a person's profile."""
    refuse_absent(inputs)
    from siamcal import inference
    from siamcal.inference.candidates import own_candidates
    from siamcal.inference.many import ModelChoice
    from siamcal.inference.outputs import check_outputs, own_profile

    outputs = [(output, own_profile)]
    if candidates is not None:
        if candidates.suffix.lower() != ".png":
            raise ConfigError(f"--candidates draws a PNG, but {candidates} was named for it.")
        outputs.append((candidates, own_candidates))
    check_outputs(outputs, inputs, replace=overwrite)
    with ModelChoice(model, None, device).predictor() as predictor:
        person = inference.calibrate(
            inputs, predictor, frame=frame, sound_only=not best, sheet=candidates
        )
        inference.save_profile(person, output, predictor, image=image, replace=overwrite)
    _report(person, output)
    if as_json:
        print(json.dumps({"output": str(output), **person.facts}, indent=2))


def _report(person: PersonReference, output: Path) -> None:
    frames: list[dict[str, Any]] = person.facts.get("frames", [person.facts])
    for facts in frames:
        number = f", frame {facts['frame']}" if facts["frame"] != 1 else ""
        reads = f", reads {facts['reads']:.2f} against all together" if "reads" in facts else ""
        face = facts["face"]
        typer.echo(
            f"{facts['source']}{number}: judgement {facts['judgement']:.2f} (0 is ideal, from 1 on "
            f"something is wrong), yaw {face['yaw']:.0f}, pitch {face['pitch']:.0f} degrees, "
            f"{face['face_size']:.0f} pixels between the eye corners{reads}",
            err=True,
        )
    for warning in person.warnings:
        typer.secho(f"Warning: {warning}", err=True, fg=typer.colors.YELLOW)
    typer.echo(f"{len(frames)} frame{'s' * (len(frames) > 1)} -> {output}", err=True)
