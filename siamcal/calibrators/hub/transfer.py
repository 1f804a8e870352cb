"""Downloads into the Hub's cache: judged by size beforehand, by checksum afterwards, resumed."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from siamcal.calibrators.config import MAX_CONFIG_BYTES, read_config
from siamcal.calibrators.hub.sources import TAG, Source, explained, network_errors
from siamcal.calibrators.hub_settings import endpoint
from siamcal.calibrators.saving import CONFIG_FILE, WEIGHTS_FILE
from siamcal.errors import HubError, WeightsError
from siamcal.files import checksum_of_file, make_folder
from siamcal.progress import progress_bar

logger = logging.getLogger(__name__)

MAX_EXTRA_BYTES = 20 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_ATTEMPTS = 6
_CHUNK = 1 << 16


def snapshot(place: Source, max_bytes: int) -> Path:
    """Config and weights of one commit, checked; the folder in the cache that holds them.

    Args:
        place: As `reached` gives it.
        max_bytes: Largest weights file that is accepted.
    """
    config_file = fetch(place, CONFIG_FILE, MAX_CONFIG_BYTES)
    config = read_config(config_file)
    weights = fetch(place.at(commit_of(config_file)), WEIGHTS_FILE, max_bytes)
    etag = weights.resolve().name
    expected = etag if _SHA256.match(etag) else config.weights_checksum
    if expected and checksum_of_file(weights) != expected:
        weights.resolve().unlink(missing_ok=True)
        weights.unlink(missing_ok=True)
        raise WeightsError(
            f"{WEIGHTS_FILE} of {place.repo_id} arrived damaged (its checksum differs) and was "
            "deleted. Try again; if it happens again, the repository or the mirror "
            f"{endpoint()} is damaged."
        )
    return config_file.parent


def commit_of(file: Path) -> str:
    """The commit whose file lies there in the Hub's cache: .../snapshots/COMMIT/..."""
    parts = file.parts
    return parts[len(parts) - parts[::-1].index("snapshots")]


def _download(place: Source, name: str, *, dry_run: bool = False) -> Any:
    """One file into the Hub's cache, and its path there; for a dry run what is known of it."""
    from huggingface_hub import hf_hub_download

    return hf_hub_download(
        place.repo_id,
        name,
        subfolder=place.subfolder or None,
        revision=place.revision,
        token=place.token,
        cache_dir=place.cache_dir,
        force_download=place.force_download,
        local_files_only=place.local_files_only or bool(place.unreached),
        library_name=TAG,
        endpoint=endpoint(),
        dry_run=dry_run,
    )


def fetch(place: Source, name: str, limit: int) -> Path:
    """One file, in the Hub's cache; its size is judged before it is downloaded."""
    with explained(place, name):
        about = _download(place, name, dry_run=True)
        if (about.file_size or 0) > limit:
            raise HubError(
                f"{name} of {place.repo_id} has {about.file_size:,} bytes; at most {limit:,} are "
                "accepted. It was not downloaded. Pass max_bytes if you trust it."
            )
        large = about.will_download and name == WEIGHTS_FILE
        if large and _download_resumable(place.at(about.commit_hash), name):
            place = replace(place, force_download=False)
        return Path(_download(place, name))


def _download_resumable(place: Source, name: str) -> bool:
    """Put a large file into the Hub's cache, going on where an earlier attempt was cut.

    False where that is left to huggingface_hub.

    huggingface_hub goes on in steps of 10 MB within one call, and starts anew after a reset
    connection or an ended process: a calibrator would mostly be downloaded again. Xet downloads
    have their own chunk cache and are left to it.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers
    from huggingface_hub.utils._runtime import is_xet_available

    url = hf_hub_url(
        place.repo_id,
        name,
        subfolder=place.subfolder or None,
        revision=place.revision,
        endpoint=endpoint(),
    )
    meta = get_hf_file_metadata(url, token=place.token, library_name=TAG, endpoint=endpoint())
    if meta.etag is None or meta.size is None or (meta.xet_file_data and is_xet_available()):
        return False
    storage = Path(place.cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(
        repo_id=place.repo_id, repo_type="model"
    )
    blob = storage / "blobs" / meta.etag
    partial = storage / ".siamcal" / f"{meta.etag}.part"
    make_folder(partial.parent)
    make_folder(blob.parent)
    # Large files lie on another host; the token is none of its business.
    own_host = meta.location.startswith(endpoint() + "/")
    headers = build_hf_headers(token=place.token if own_host else False, library_name=TAG)
    with WeakFileLock(f"{partial}.lock"):
        if place.force_download:
            for old in (blob, partial):
                old.unlink(missing_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            if blob.exists():
                return True
            try:
                _append(meta.location, partial, meta.size, headers, name)
                partial.replace(blob)
            except network_errors() as error:
                if attempt == _ATTEMPTS:
                    raise
                logger.info("%s was cut (%s); going on", name, error)
                time.sleep(min(0.2 * 2**attempt, 5.0))
    return True


def _append(url: str, partial: Path, size: int, headers: dict[str, str], name: str) -> None:
    """Download what a partial file lacks.

    Raises:
        OSError: The connection ended early, or the server sent another number of bytes.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    with partial.open("ab") as file, progress_bar(total=size, description=name, unit="B") as bar:
        if file.tell() > size:
            _empty(file)
        begun = file.tell()
        if begun == size:
            return
        asked = {**headers, "Accept-Encoding": "identity"}
        if begun:
            asked["Range"] = f"bytes={begun}-"
        with get_session().stream(
            "GET",
            url,
            headers=asked,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            follow_redirects=True,
        ) as response:
            hf_raise_for_status(response)
            if begun and response.status_code != 206:
                _empty(file)  # the server knows no ranges
                begun = 0
            bar.update(begun)
            for chunk in response.iter_bytes(_CHUNK):
                if file.tell() + len(chunk) > size:
                    raise OSError(f"{name} is longer than the {size:,} bytes that were announced")
                file.write(chunk)
                bar.update(len(chunk))
        if file.tell() != size:
            raise OSError(f"{name} ended after {file.tell():,} of {size:,} bytes")


def _empty(file: IO[bytes]) -> None:
    file.seek(0)  # truncating alone leaves the position, by which is told how much has arrived
    file.truncate()


def optional(place: Source, name: str) -> Path | None:
    """A file that a calibrator may lack; None where it does or can't be had now."""
    try:
        return fetch(place, name, MAX_EXTRA_BYTES)
    except HubError as error:
        logger.debug("%s of %s: %s", name, place.repo_id, error)
        return None


def remote_size(place: Source, name: str) -> int | None:
    """Bytes of a file that isn't downloaded; None where the Hub can't be asked."""
    try:
        with explained(place, name):
            return _download(place, name, dry_run=True).file_size
    except HubError:
        return None  # offline, and only the config was ever downloaded
