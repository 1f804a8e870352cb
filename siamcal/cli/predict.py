"""`siamcal predict`: recordings of people -> tables of AU intensities."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from siamcal.cli import READ, app, tell
from siamcal.cli._inputs import refuse_absent
from siamcal.errors import ConfigError

if TYPE_CHECKING:
    from siamcal.faces.media import FrameStream
    from siamcal.inference import PersonReference, Predictor, Summary
    from siamcal.inference.many import Done, ModelChoice, Work
    from siamcal.inference.outputs import Output
    from siamcal.inference.recordings import Asked
    from siamcal.inference.run import TableOptions

# Of an input that isn't there: --candidates takes a path, these two don't.
_SWITCHES = (
    "--plot and --overlay take no path: what they draw lies beside the table, under its name "
    "(-o aus.csv: aus.png, aus.mp4)."
)

EXAMPLES = """
Read the action units of people from videos, images, folders or a camera, each relative to a neutral
reference frame of the person. One recording gives one table; with a folder behind -o every
recording gets its own. Rows are written as they are known.

Examples:

    siamcal predict clip.mp4 --reference neutral.jpg -o aus.csv
    siamcal predict clip.mp4 --reference-frame 12 -o aus.csv   # of the clip
    siamcal predict clip.mp4 --reference auto -o aus.csv       # a guess
    siamcal calibrate neutral.jpg day0.mp4 -o anna.siamcal     # her profile
    siamcal predict day2.mp4 --profile anna.siamcal -o day2.csv
    siamcal predict frames/ --reference frames/000.png --fps 25 > aus.csv
    siamcal predict camera:0 --profile anna.siamcal -o live.csv    # till Ctrl-C
    ffmpeg -i clip.mp4 -f matroska - | \\
        siamcal predict - --reference neutral.jpg -o aus.csv
    siamcal predict talk.mp4 --everyone --reference auto -o talk.csv
    siamcal predict talk.mp4 --person 0=anna.siamcal \\
        --person 1=berta.siamcal -o talk.csv
    siamcal predict clips/ --reference auto -o tables/ --jobs 4    # one each
    siamcal predict @study.csv -o tables/ --resume     # video,person,reference
    siamcal predict @study.csv -o tables/ --shard 3/64   # a job of an array

Columns: frame, face_id, timestamp, confidence, success, AU01_r .. AU26_r, AU01_c .. AU26_c, pose,
eyes, occlusion, sharpness, size and light of the face, and quality in words. `AU.._c` is 1 exactly
where `AU.._r` is 2 or more; frames without a face have success 0 and empty cells (`--openface`:
zeros, and OpenFace's columns alone). Beside aus.csv lies aus.json: calibrator, reference, settings,
flagged frames. Files of others are never overwritten.
"""

MANY = "Many recordings"
FRAMES = "Frames and table"


@app.command(help=EXAMPLES, rich_help_panel=READ)
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Videos, images, folders, patterns, @lists, camera:0, rtsp://..., -."),
    ],
    reference: Annotated[
        str | None, typer.Option(help="Neutral picture of the same person, auto or best.")
    ] = None,
    reference_frame: Annotated[
        int | None, typer.Option(min=1, help="Take this frame of the input (counted from 1).")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="A person's profile, from siamcal calibrate.")
    ] = None,
    everyone: Annotated[
        bool,
        typer.Option("--everyone", help="Read all people, numbered in face_id."),
    ] = False,
    person: Annotated[
        list[str] | None,
        typer.Option(help="Profile of a person by number, like 1=berta.siamcal; repeatable."),
    ] = None,
    save_profile: Annotated[
        Path | None, typer.Option(help="Write the encoded reference, to use it again.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Table, like aus.csv or aus.parquet, or a folder of tables; without it: CSV to "
            "stdout.",
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="Draw the frames that --reference auto chooses from: a PNG of faces."),
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the readings over time: aus.png beside aus.csv.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Draw them into the video: aus.mp4 beside aus.csv.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace tables that siamcal wrote before.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Calibrator: a folder or hf-hub:owner/name.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Insist on intensity or detection.")] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Fetch the network that the calibrator's config names."),
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Frames through the network at once.")
    ] = 16,
    face_engine: Annotated[
        str, typer.Option(help="What finds faces: litert, or mediapipe, which contacts its maker.")
    ] = "litert",
    every: Annotated[
        int, typer.Option(min=1, help="Read every n-th frame.", rich_help_panel=FRAMES)
    ] = 1,
    start: Annotated[
        float | None, typer.Option(help="Seconds to begin at.", rich_help_panel=FRAMES)
    ] = None,
    end: Annotated[
        float | None, typer.Option(help="Seconds to end before.", rich_help_panel=FRAMES)
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Rate of a sequence of images.", rich_help_panel=FRAMES)
    ] = None,
    smooth: Annotated[
        int,
        typer.Option(help="Median over so many frames (odd); 1: none.", rich_help_panel=FRAMES),
    ] = 1,
    openface: Annotated[
        bool,
        typer.Option(
            "--openface", help="OpenFace's columns and zeros, nothing else.", rich_help_panel=FRAMES
        ),
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=0, help="Processes, each with a model.", rich_help_panel=MANY)
    ] = 1,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep complete tables, make the rest.", rich_help_panel=MANY),
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="Only this share, like 3/64.", rich_help_panel=MANY)
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray: a cluster.", rich_help_panel=MANY)
    ] = "local",
    table_format: Annotated[
        str, typer.Option("--format", help="Of a folder's tables.", rich_help_panel=MANY)
    ] = "csv",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run's summary as JSON to stdout.")
    ] = False,
) -> None:
    """Read AUs of people. Long because every option is told here."""
    refuse_absent(inputs[:1])
    refuse_absent(inputs[1:], _SWITCHES if plot or overlay else "")
    refuse_absent([reference if reference not in ("auto", "best") else None])
    from siamcal.inference.many import ModelChoice, Work
    from siamcal.inference.recordings import Recording
    from siamcal.inference.run import TableOptions
    from siamcal.inference.selection import Selection

    people = _people(person or [])
    asked = _asked(inputs, reference, reference_frame, profile, optional=bool(people))
    choice = ModelChoice(model, task, device, batch_size, trust, face_engine)
    selection = Selection(every, start, end, fps)
    options = TableOptions(selection, smooth, openface)
    if people and output is not None and _is_folder(output):
        raise ConfigError(
            "--person names people of one recording, by their numbers in it; of a folder of tables "
            "leave it out: --everyone --reference auto chooses a reference for each person."
        )
    if candidates is not None:
        _check_candidates(candidates, asked, alone=not (everyone or people))
    if output is not None and _is_folder(output):
        if candidates is not None:
            raise ConfigError("--candidates is for one recording; a folder of tables has many.")
        if save_profile is not None:
            raise ConfigError("--save-profile is for one recording; a folder of tables has many.")
        if jobs < 1 and engine == "local":
            raise ConfigError("--jobs takes 1 or more; 0 is for --engine ray: all it has.")
        shares = _shard(shard)
        suffix = f".{table_format.removeprefix('.')}"
        many = {"suffix": suffix, "jobs": jobs, "engine": engine, "shard": shares}
        many |= {"overwrite": overwrite, "resume": resume, "plot": plot, "overlay": overlay}
        many["everyone"] = everyone
        _many(inputs, asked, Path(output), choice, options, many, as_json=as_json)
        return
    given = {"--jobs": jobs != 1, "--shard": shard is not None, "--engine": engine != "local"}
    given |= {"--format": table_format != "csv", "@list": any(i.startswith("@") for i in inputs)}
    if any(given.values()):
        wrong = ", ".join(name for name, there in given.items() if there)
        raise ConfigError(f"{wrong} is for many recordings: name a folder for tables, like -o out/")
    place = Path(output) if output is not None else None
    recording = Recording(tuple(inputs), "", reference=asked)
    if (plot or overlay) and place is None:
        raise ConfigError("--plot and --overlay draw beside a table: write it with -o FILE.")
    work = Work(
        recording,
        place or Path("-"),
        choice,
        options,
        overwrite,
        resume,
        plot,
        overlay,
        everyone or bool(people),
        people,
    )
    _one(work, place, save_profile, candidates, as_json=as_json)


def _one(
    work: Work,
    output: Path | None,
    save_profile: Path | None,
    candidates: Path | None,
    *,
    as_json: bool,
) -> None:
    """One recording into one table, or to stdout."""
    from siamcal import inference
    from siamcal.inference.many import kept_table, request_of
    from siamcal.inference.overlay import check_overlay

    if work.everyone and save_profile is not None:
        raise ConfigError("--save-profile keeps one person's reference; leave --everyone out.")
    if output is None and as_json:
        raise ConfigError("--json and the table would share stdout; write the table with -o FILE.")
    inputs, asked = list(work.recording.inputs), work.recording.reference
    replace = work.overwrite or work.resume
    _check_outputs(work, output, save_profile, candidates)
    stream = _open(inputs)
    if stream.live and asked.kind in ("auto", "best", "frame"):
        what = "A camera has no frames yet" if stream.kind == "camera" else "It is read only once"
        raise ConfigError(f"{what}: give --reference FILE or --profile FILE.")
    work.options.selection.of(stream)
    if work.overlay:
        check_overlay(stream, work.output)
    with work.model.predictor() as predictor:
        request = request_of(work, predictor)
        kept = kept_table(work, request) if work.resume and output is not None else None
        if kept is not None:
            tell(f"{output} is complete already: kept.")
            summary = kept.summary
        else:
            _announce(predictor)
            person, missing = _references(work, predictor, candidates)
            if save_profile is not None:
                inference.save_profile(person, save_profile, predictor, replace=replace)
            try:
                summary = inference.predict_to_table(
                    stream,
                    output or sys.stdout.buffer,
                    predictor=predictor,
                    reference=person,
                    options=work.options,
                    request=request,
                    replace=replace,
                    overlay=work.overlay,
                    warnings=missing,
                )
            except BrokenPipeError:  # `siamcal predict ... | head` has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(1) from None
            work.draw()
    _report(summary, output)
    if as_json:
        print(json.dumps({"output": str(output), **asdict(summary)}, indent=2))
    if summary.status == "interrupted":
        raise typer.Exit(130)


def _many(
    inputs: list[str],
    asked: Asked,
    folder: Path,
    choice: ModelChoice,
    options: TableOptions,
    settings: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Every recording into a table of its own."""
    from siamcal.inference.many import predict_many
    from siamcal.inference.recordings import find_recordings

    recordings = find_recordings(inputs, asked)
    without = [one.name for one in recordings if not one.reference.kind]
    if without:
        raise ConfigError(
            f"{len(without)} of {len(recordings)} recordings have no reference ({without[0]}, "
            "...): name one for all with --reference (or auto), or each one's in a list's column."
        )
    done = predict_many(recordings, folder, model=choice, options=options, **settings)
    failed = [one for one in done if one.error]
    for one in failed:
        tell(f"Failed: {one.work.recording.inputs[0]}: {one.error}", typer.colors.RED)
    doubtful = [one for one in done if one.summary.warnings and not one.error]
    for one in doubtful:
        tell(f"Warning: {one.work.output.name}: {' '.join(one.summary.warnings)}")
    kept = sum(one.kept for one in done)
    tell(
        f"{len(done) - len(failed)} of {len(done)} recordings -> {folder}"
        + (f" ({kept} were complete)" if kept else "")
    )
    if as_json:
        print(json.dumps([_as_json(one) for one in done], indent=2))
    if failed:
        raise typer.Exit(1)


def _as_json(one: Done) -> dict[str, Any]:
    told = {"inputs": one.work.recording.inputs, "person": one.work.recording.person}
    told |= {"output": str(one.work.output), "reference": one.reference, "error": one.error}
    return {**told, **asdict(one.summary)}


def _is_folder(output: str) -> bool:
    """A folder that is there, or a name that can only be one."""
    path = Path(output)
    ends = output.endswith(("/", os.sep))
    return path.is_dir() or (not path.exists() and (ends or not path.suffix))


def _shard(text: str | None) -> tuple[int, int]:
    from siamcal.inference.recordings import parse_shard

    return parse_shard(text) if text else (1, 1)


def _people(given: list[str]) -> tuple[tuple[int, str], ...]:
    found = {}
    for text in given:
        number, separator, path = text.partition("=")
        if not (number.isdecimal() and separator and path):
            raise ConfigError(
                f"--person takes a number and a profile, like 1=berta.siamcal, but got {text!r}."
            )
        if int(number) in found:
            raise ConfigError(f"--person {number} was given twice; keep one.")
        found[int(number)] = path
    return tuple(found.items())


def _asked(
    inputs: list[str],
    reference: str | None,
    number: int | None,
    profile: Path | None,
    *,
    optional: bool,
) -> Asked:
    from siamcal.inference.recordings import Asked

    given = [o is not None for o in (reference, number, profile)]
    listed = any(name.startswith("@") and name.lower().endswith(".csv") for name in inputs)
    if sum(given) > 1 or not (any(given) or listed or optional):
        raise ConfigError(
            "One neutral reference of the person is needed: --reference neutral.jpg (a picture at "
            "rest, eyes open), --reference-frame N (a frame of the input), --reference auto (let "
            "siamcal choose one) or --profile FILE (saved before). "
            + ("None was given." if not any(given) else "Several were given; name one.")
        )
    if profile is not None:
        return Asked("profile", str(profile))
    if number is not None:
        return Asked("frame", number=number)
    if reference in ("auto", "best"):
        return Asked(reference)
    return Asked("picture", reference) if reference else Asked()


def _check_candidates(candidates: Path, asked: Asked, *, alone: bool) -> None:
    if asked.kind not in ("auto", "best") or not alone:
        raise ConfigError(
            f"--candidates {candidates} draws what --reference auto (or best) chooses from, of one "
            f"person; here none is chosen so."
        )
    if candidates.suffix.lower() != ".png":
        raise ConfigError(f"--candidates draws a PNG, but {candidates} was named for it.")


def _check_outputs(
    work: Work, output: Path | None, save_profile: Path | None, candidates: Path | None
) -> None:
    """Before anything is loaded: nothing is destroyed, everything can be written."""
    from siamcal.inference.candidates import own_candidates
    from siamcal.inference.outputs import check_outputs, own_profile
    from siamcal.inference.run import table_format

    outputs: list[Output] = []
    if output is not None:
        table_format(output)
        outputs += work.outputs
    if save_profile is not None:
        outputs.append((save_profile, own_profile))
    if candidates is not None:
        outputs.append((candidates, own_candidates))
    inputs, asked = work.recording.inputs, work.recording.reference
    read = [*inputs, *[asked.path] * bool(asked.path)]
    for name in inputs:
        if Path(name).is_dir():
            read += [str(path) for path in Path(name).iterdir()]
    check_outputs(outputs, read, replace=work.overwrite or work.resume)


def _open(inputs: list[str]) -> FrameStream:
    from siamcal.faces.media import open_camera, open_media

    camera = inputs[0].partition(":")
    if camera[0] == "camera" and not Path(inputs[0]).exists():
        if len(inputs) > 1 or not (camera[2] or "0").isdigit():
            raise ConfigError(f"A camera is named alone, like camera:0; {inputs} was given.")
        return open_camera(int(camera[2] or 0))
    return open_media(inputs[0] if len(inputs) == 1 else inputs)


def _references(work: Work, predictor: Predictor, candidates: Path | None) -> tuple[Any, list[str]]:
    """The person's reference, or everybody's; and whose is missing, and why."""
    from siamcal.inference.many import references_of_people, resolve_reference

    if not work.everyone:
        inputs, asked = list(work.recording.inputs), work.recording.reference
        person = resolve_reference(asked, inputs, predictor, sheet=candidates)
        tell(f"Reference: {_source(person)}")
        return person, []
    people, missing = references_of_people(work, predictor)
    for number, person in sorted(people.items()):
        tell(f"Person {number}: {_source(person)}")
    return people, missing


def _source(person: PersonReference) -> str:
    source = person.facts.get("source", person.facts.get("profile", ""))
    frame = person.facts.get("frame", 1)
    return f"{source}" + (f", frame {frame}" if frame != 1 else "")


def _announce(predictor: Predictor) -> None:
    from siamcal.faces.engines import DEFAULT, ENGINES
    from siamcal.inference.models import RENDERED_NOTE

    engine = predictor.pipeline.detector.engine
    if engine != DEFAULT:
        tell(f"Faces are found by {engine!r}: {ENGINES[engine]}.")

    config = predictor.config
    if config.rendered:
        tell(f"Note: {RENDERED_NOTE}")
    by_status: dict[str, list[str]] = {}
    for au, status in zip(config.aus, config.au_status, strict=True):
        by_status.setdefault(status, []).append(f"AU{au}")
    for status, aus in by_status.items():
        tell(f"  {status}: {', '.join(aus)}")


def _report(summary: Summary, output: Path | None) -> None:
    for warning in summary.warnings:
        tell(f"Warning: {warning}", typer.colors.YELLOW)
    where = f" -> {output}" if output else ""
    stopped = "" if summary.status == "complete" else f" ({summary.status})"
    tell(f"{summary.frames} frames, {summary.successes} with values{where}{stopped}")
