"""Many recordings into one folder of tables: in processes, resumed, in shares, on a cluster."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import siamcal
from siamcal.errors import ConfigError, SiamcalError
from siamcal.extras import needed_for
from siamcal.faces import FacePipeline
from siamcal.faces.engines import DEFAULT, engine_version
from siamcal.faces.media import open_media
from siamcal.files import remove_leftovers, write_atomically
from siamcal.inference.choosing import choose_for_everybody, choose_reference
from siamcal.inference.models import choose_device, load_model
from siamcal.inference.outputs import Output, check_outputs, own_table, read_sidecar
from siamcal.inference.overlay import overlay_of, own_overlay
from siamcal.inference.prediction import Predictor
from siamcal.inference.profiles import load_profile
from siamcal.inference.recordings import Asked, Recording
from siamcal.inference.references import PersonReference, read_reference, reference_frame
from siamcal.inference.run import (
    Summary,
    TableOptions,
    predict_to_table,
    reference_facts,
    sidecar_of,
    table_format,
    table_outputs,
)
from siamcal.inference.traces import draw_traces, own_picture, read_table, traces_of
from siamcal.parallel import check_workers, in_processes
from siamcal.progress import progress_bar

__all__ = [
    "ENGINES",
    "Done",
    "ModelChoice",
    "Work",
    "kept_table",
    "predict_many",
    "references_of_people",
    "request_of",
    "resolve_reference",
]

ENGINES = ("local", "ray")
SUMMARY_COLUMNS = (
    *("recording", "person", "table", "status", "frames", "successes", "reference", "warnings"),
)


@dataclass(frozen=True)
class ModelChoice:
    """Which calibrator reads, and how; each process loads it once.

    Attributes:
        source: A folder, "hf-hub:owner/name", or None for the packaged one.
        task: What it must do, or None.
        device: "cpu", "cuda", "auto", ...
        batch_size: Frames through the network at once.
        trust: Fetch the network that a calibrator's config names.
        face_engine: What finds faces: "litert" or "mediapipe".
    """

    source: str | None = None
    task: str | None = None
    device: str = "auto"
    batch_size: int = 16
    trust: bool = False
    face_engine: str = DEFAULT

    def predictor(self) -> Predictor:
        """A new predictor."""
        model = load_model(self.source, self.task, trust=self.trust)
        return Predictor(
            model,
            device=choose_device(self.device),
            batch_size=self.batch_size,
            pipeline=FacePipeline(model.config.preprocessing, self.face_engine),
        )


@dataclass(frozen=True)
class Work:
    """One recording to read, complete in itself: a worker anywhere can do it.

    Attributes:
        recording: What is read.
        output: Its table.
        model: What reads.
        options: How.
        overwrite: Replace a table that siamcal wrote.
        resume: Keep one that is complete and of the same request; else replace it.
        plot: Draw its readings over time beside it.
        overlay: Draw its readings into a video beside it.
        everyone: Read everybody, with a reference for each.
        people: (number, profile) of those whose profile is known; `everyone` then.
    """

    recording: Recording
    output: Path
    model: ModelChoice
    options: TableOptions
    overwrite: bool = False
    resume: bool = False
    plot: bool = False
    overlay: bool = False
    everyone: bool = False
    people: tuple[tuple[int, str], ...] = ()

    @property
    def outputs(self) -> list[Output]:
        """All files that come of it."""
        picture = [(traces_of(self.output), own_picture)] if self.plot else []
        return [*table_outputs(self.output, overlay=self.overlay), *picture]

    def draw(self) -> None:
        """Draw the finished table, where that is asked for."""
        if self.plot:
            told = read_sidecar(sidecar_of(self.output)) or {}
            draw_traces(read_table(self.output), told, traces_of(self.output))


@dataclass(frozen=True)
class Done:
    """What became of a recording.

    Attributes:
        work: What was asked.
        summary: Of its table; empty where there is none.
        reference: Where its reference came from.
        error: Why there is no table.
        kept: It was complete already.
    """

    work: Work
    summary: Summary = field(default_factory=Summary)
    reference: str = ""
    error: str = ""
    kept: bool = False


def predict_many(
    recordings: Sequence[Recording],
    folder: Path,
    *,
    model: ModelChoice,
    options: TableOptions | None = None,
    suffix: str = ".csv",
    jobs: int = 1,
    engine: str = "local",
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    resume: bool = False,
    plot: bool = False,
    overlay: bool = False,
    everyone: bool = False,
) -> list[Done]:
    """Read recordings into a folder: a table and its sidecar each, and `summary.csv`.

    A recording that can't be read costs itself alone. Every table is the same, to the byte,
    whatever engine, number of processes or share made it.

    Args:
        recordings: From `find_recordings`.
        folder: Of all outputs.
        model: What reads.
        options: How.
        suffix: Of the tables; `siamcal ls formats`.
        jobs: Processes; 0 on "ray": as many as the cluster has cores for.
        engine: "local", or "ray": a cluster that Ray knows (its address or RAY_ADDRESS), over a
            folder that all its machines share. A worker that is lost costs its current recording.
        shard: (k, n): only the k-th of n shares, for job arrays; its summary has a name of its own.
        overwrite: Replace tables that siamcal wrote.
        resume: Keep tables that are complete and of the same request, make the others anew.
        plot: Draw each table beside it.
        overlay: Draw the readings into a video beside each.
        everyone: Read everybody, each against a reference chosen from the recording.

    Returns:
        One for each recording of the share, in the order of the recordings.

    Raises:
        ConfigError: An output would destroy a file or can't be written, or one person's reference
            is named for everybody: nothing is begun then.
        MissingDependencyError: Engine "ray" without the package.
    """
    check_workers(jobs if engine == "local" else None)
    if engine not in ENGINES:
        raise ConfigError(f"engine takes {' or '.join(ENGINES)}, but got {engine!r}.")
    share, shares = shard
    mine = list(recordings)[share - 1 :: shares]
    options = options or TableOptions()
    settings = (model, options, overwrite, resume, plot, overlay, everyone)
    works = [Work(one, folder / f"{one.name}{suffix}", *settings) for one in mine]
    name = "summary.csv" if shares == 1 else f"summary-{share}-of-{shares}.csv"
    _check(works, folder / name)
    written = [folder / name, *(path for work in works for path, _ in work.outputs)]
    remove_leftovers(written)  # of a run that was killed
    run = _with_ray if engine == "ray" else _locally
    done: dict[str, Done] = {}
    with progress_bar(total=len(works), description="recordings", unit="recording") as bar:
        for one in run(works, jobs):
            done[one.work.recording.name] = one
            bar.update()
            finished = [done[w.recording.name] for w in works if w.recording.name in done]
            write_atomically(folder / name, _summary_table(finished))
    remove_leftovers(written)  # of workers that were lost
    return [done[work.recording.name] for work in works]


def resolve_reference(
    asked: Asked, inputs: Sequence[str], predictor: Predictor, *, sheet: Path | None = None
) -> PersonReference:
    """The reference that a user named, encoded.

    Args:
        asked: What was named.
        inputs: The recording.
        predictor: Model and face pipeline.
        sheet: Where the frames that one is chosen from are drawn, as in `choose_reference`.

    Raises:
        ConfigError: None was named.
        MediaError, FaceNotFoundError, NeutralFrameError: It can't be read, or shows no face, or
            none at rest.
    """
    if asked.kind == "profile":
        return load_profile(asked.path, predictor)
    if asked.kind == "frame":
        return reference_frame(list(inputs), predictor, asked.number)
    if asked.kind in ("auto", "best"):
        sound_only = asked.kind == "auto"
        return choose_reference(list(inputs), predictor, sound_only=sound_only, sheet=sheet)
    if not asked.kind:
        raise ConfigError(f"No reference was named for {', '.join(inputs)}.")
    return read_reference(asked.path, predictor)


def references_of_people(
    work: Work, predictor: Predictor
) -> tuple[dict[int, PersonReference], list[str]]:
    """The references of everybody in a recording, and whom they are missing of.

    Profiles that were named count; for others each one's most neutral frame is chosen where that
    was asked for (`auto`, `best`).

    Raises:
        ConfigError: Another kind of reference was named: it is one person's.
    """
    asked = work.recording.reference
    _check_everybodys(asked)
    found: dict[int, PersonReference] = {}
    refused: dict[int, str] = {}
    if asked.kind:
        inputs, sound_only = list(work.recording.inputs), asked.kind == "auto"
        found, refused = choose_for_everybody(inputs, predictor, sound_only=sound_only)
    for number, path in work.people:
        found[number] = load_profile(path, predictor)
        refused.pop(number, None)
    return found, [f"Person {number}: {why}" for number, why in refused.items()]


def _check_everybodys(asked: Asked) -> None:
    if asked.kind not in ("", "auto", "best"):
        raise ConfigError(
            f"A reference ({asked}) is one person's. Where everybody is read, name profiles "
            "(--person 0=anna.siamcal --person 1=berta.siamcal), or --reference auto."
        )


def _check(works: Sequence[Work], summary: Path) -> None:
    for work in works:
        if work.everyone:
            _check_everybodys(work.recording.reference)
        table_format(work.output)
        read = [*work.recording.inputs, work.recording.reference.path or "."]
        replace = work.overwrite or work.resume
        check_outputs(work.outputs, read, replace=replace)
    inputs = [path for work in works for path in work.recording.inputs]
    check_outputs([(summary, _own_summary)], inputs, replace=True)


def _own_summary(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().strip() == ",".join(SUMMARY_COLUMNS)
    except (OSError, UnicodeDecodeError):
        return False


def _summary_table(done: Iterable[Done]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(SUMMARY_COLUMNS)
    for one in done:
        summary, recording = one.summary, one.work.recording
        status = "failed" if one.error else summary.status
        told = [one.error] if one.error else summary.warnings
        cells = [recording.inputs[0], recording.person, one.work.output.name, status]
        cells += [str(summary.frames), str(summary.successes), one.reference, " ".join(told)]
        rows.writerow(cells)
    return text.getvalue()


# --- one recording -------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _predictor(model: ModelChoice) -> Predictor:
    """This process's predictor: a cold start costs seconds."""
    return model.predictor()


@lru_cache(maxsize=64)
def _shared_reference(asked: Asked, model: ModelChoice) -> PersonReference:
    """A picture's or profile's reference: the recordings of a person share it."""
    return resolve_reference(asked, (), _predictor(model))


def _read(work: Work) -> Done:
    """Read one recording; what is wrong with it is told, not raised."""
    try:
        predictor = _predictor(work.model)
        request = request_of(work, predictor)
        if work.resume and (kept := kept_table(work, request)):
            return kept
        recording = work.recording
        asked = recording.reference
        stream = open_media(list(recording.inputs))
        missing: list[str] = []
        person: PersonReference | dict[int, PersonReference]
        if work.everyone:
            person, missing = references_of_people(work, predictor)
        elif asked.kind in ("picture", "profile"):
            person = _shared_reference(asked, work.model)
        else:
            person = resolve_reference(asked, recording.inputs, predictor)
        summary = predict_to_table(
            stream,
            work.output,
            predictor=predictor,
            reference=person,
            options=work.options,
            request=request,
            replace=work.overwrite or work.resume,
            overlay=work.overlay,
            warnings=missing,
        )
        if summary.status == "interrupted":
            raise KeyboardInterrupt
        work.draw()
        return Done(work, summary, _told(reference_facts(person)))
    except SiamcalError as error:
        return Done(work, Summary("failed"), error=str(error))


def request_of(work: Work, predictor: Predictor) -> str:
    """Digest of all that a table depends on, known without reading a frame.

    Files count by name, size and time of change.
    """
    recording = work.recording
    files = [_stamp(path) for path in (*recording.inputs, recording.reference.path)]
    told = {
        "siamcal": siamcal.__version__,
        "files": files,
        "reference": str(recording.reference),
        "weights": predictor.config.weights_checksum,
        "preprocessing": asdict(predictor.config.preprocessing),
        "face_engine": engine_version(predictor.pipeline.detector.engine),
        "options": asdict(work.options),
        "everyone": work.everyone,
        "people": [[number, _stamp(path)] for number, path in work.people],
        "suffix": work.output.suffix,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _stamp(name: str) -> list[Any]:
    path = Path(name)
    if not name or not path.exists():
        return [name]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()]


def kept_table(work: Work, request: str) -> Done | None:
    """The finished table of the same request, if there is one."""
    told = read_sidecar(sidecar_of(work.output)) or {}
    same = told.get("status") == "complete" and told.get("request") == request
    if not (same and work.output.exists() and own_table(work.output, sidecar_of(work.output))):
        return None
    if work.overlay and not own_overlay(overlay_of(work.output)):
        return None  # it needs the frames again
    if work.plot and not own_picture(traces_of(work.output)):
        work.draw()
    return Done(work, Summary(**told["result"]), _told(told["reference"]), kept=True)


def _told(facts: dict[str, Any]) -> str:
    if "people" in facts:
        return "; ".join(f"person {n}: {_told(own)}" for n, own in facts["people"].items())
    source = str(facts.get("profile") or facts.get("source", ""))
    return source + (f", frame {facts['frame']}" if facts.get("frame", 1) != 1 else "")


# --- engines -------------------------------------------------------------------------------------


def _locally(works: Sequence[Work], jobs: int) -> Iterator[Done]:
    yield from in_processes(_read, works, min(jobs, len(works)), "reads recordings")


def _with_ray(works: Sequence[Work], jobs: int) -> Iterator[Done]:
    with needed_for("--engine ray", otherwise="leave it out and give --jobs"):
        import ray
    own = not ray.is_initialized()
    if own:
        ray.init(num_cpus=jobs or None, include_dashboard=False, log_to_driver=False)
    # A task whose worker dies is given to another one; its table begins anew.
    read = ray.remote(num_cpus=1, max_retries=5)(_read)
    waiting = [read.remote(_replacing(work)) for work in works]
    try:
        while waiting:
            (first, *_), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(first)
    finally:
        if own:
            ray.shutdown()


def _replacing(work: Work) -> Work:
    """The work as a retry needs it: what a lost worker left is siamcal's own, and replaced."""
    return work if work.overwrite else Work(**{**vars(work), "resume": True})
