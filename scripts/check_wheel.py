"""Build the source archive and the wheel, and use the wheel where the checkout isn't.

    python scripts/check_wheel.py                    # this Python
    python scripts/check_wheel.py --python python3.13 --extra predict

The archive is built from this folder, the wheel from the unpacked archive; the wheel is installed
into an empty environment in a temporary folder, where a network is wrapped, rendered pictures and
a video of them are read and the smallest comparison is run. Both files are then left in dist/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SDIST = "from setuptools.build_meta import build_sdist; build_sdist({!r})"
WRAP = """
from pathlib import Path
import torch
import siamcal
from siamcal import CalibratingSiamese, create_backbone
assert Path({here!r}) in Path(siamcal.__file__).parents, siamcal.__file__
net = create_backbone("ir_tiny", num_outputs=12)
model = CalibratingSiamese(net, merge_at="layer4")
images = torch.rand(2, 3, 112, 112)
assert model(images, model.encode(images[:1])).shape == (2, 12)
"""
FILM = """
from pathlib import Path
import av
with av.open("clip.mp4", "w") as film:
    track = film.add_stream("mpeg4", rate=10, width=192, height=192)
    for path in sorted(Path({folder!r}).glob("*.jpg")):
        with av.open(str(path)) as picture:
            pixels = next(picture.decode(video=0)).to_ndarray(format="rgb24")
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")  # without the picture's time
        film.mux(track.encode(frame))
    film.mux(track.encode(None))
"""


def main() -> None:
    """Build, install, use."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="Python of the new environment")
    parser.add_argument("--extra", default="all", help="extra to install; with predict, no bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="siamcal-wheel-") as name:
        place = Path(name)
        wheel = build(place)
        use(wheel, place, options.python, options.extra)
        print("The wheel works.")


def build(place: Path) -> Path:
    """Archive and wheel, in dist/ too; the wheel's path."""
    archives = place / "dist"
    archives.mkdir()
    copy = place / "copy"  # the folder itself gets no build leftovers
    leave = shutil.ignore_patterns(
        ".venv", ".git", ".*_cache", "__pycache__", "build", "dist", "runs", "site", "*.egg-info"
    )
    shutil.copytree(ROOT, copy, ignore=leave)
    run([sys.executable, "-c", SDIST.format(str(archives))], cwd=copy, quiet=True)
    (archive,) = archives.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(place / "unpacked", filter="data")
    (source,) = (place / "unpacked").iterdir()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "-w", str(archives), str(source)])
    (wheel,) = archives.glob("*.whl")
    for file in (archive, wheel):
        (ROOT / "dist").mkdir(exist_ok=True)
        shutil.copyfile(file, ROOT / "dist" / file.name)
        print(f"dist/{file.name}: {file.stat().st_size / 1e6:.1f} MB")
    return wheel


def use(wheel: Path, place: Path, python: str, extra: str) -> None:
    """Install the wheel into an empty environment, and use it outside the checkout."""
    environment = place / "environment"
    run([python, "-m", "venv", str(environment)])
    inside = environment / "bin"
    wanted = f"siamcal[{extra}] @ {wheel.as_uri()}"
    pip = [str(inside / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "-c", str(ROOT / "constraints.txt"), wanted])
    here = place / "work"
    here.mkdir()
    siamcal = str(inside / "siamcal")
    run([siamcal, "doctor"], cwd=here)
    run([str(inside / "python"), "-c", WRAP.format(here=str(environment.resolve()))], cwd=here)
    render = ["-m", "siamcal", "data", "render", "--size", "tiny", "--out", "faces"]
    run([sys.executable, *render], cwd=here)
    frames = sorted(here.glob("faces/*/frames/*/*/*/*.jpg"))
    folder = frames[0].parent.relative_to(here)
    run([str(inside / "python"), "-c", FILM.format(folder=str(folder))], cwd=here)
    for given in (str(folder), "clip.mp4"):  # pictures and a video
        run([siamcal, "predict", given, "--reference-frame", "1", "-o", f"{given}.csv"], cwd=here)
        rows = (here / f"{given}.csv").read_text().splitlines()
        if "AU12_r" not in rows[0] or len(rows) < 3:
            raise SystemExit(f"predict wrote no table of AUs: {rows[:3]}")
    if extra in ("bench", "all"):
        run([siamcal, "bench", "--size", "tiny", "--set", "steps=3", "--folds", "0"], cwd=here)


def run(command: list[str], cwd: Path | None = None, *, quiet: bool = False) -> None:
    """Run a command that sees neither the checkout nor a cache of earlier runs."""
    print("$", " ".join(command), flush=True)
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if cwd is not None:
        kept["SIAMCAL_CACHE"] = str(cwd / "cache")
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=quiet, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout or ''}{done.stderr or ''}exit code {done.returncode}")


if __name__ == "__main__":
    main()
