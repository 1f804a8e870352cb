"""Calibrators on the Hugging Face Hub: published, found, looked at and pulled.

huggingface_hub is imported in this folder only, and only when something is asked of the Hub. Its
settings hold: HF_ENDPOINT (mirrors), HF_TOKEN, HF_HOME, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from siamcal.calibrators.card import LICENCE_FILE, licence_text, model_card
from siamcal.calibrators.config import (
    MAX_CONFIG_BYTES,
    CalibratorConfig,
    config_to_dict,
    read_config,
)
from siamcal.calibrators.hub.publication import (
    EXTRA_FILES,
    MAX_FIGURES,
    Publication,
    plan_from_model,
)
from siamcal.calibrators.hub.sources import (
    TAG,
    Source,
    explained,
    hub_api,
    is_repository,
    parse_source,
    reached,
    silence,
)
from siamcal.calibrators.hub.transfer import (
    MAX_EXTRA_BYTES,
    commit_of,
    fetch,
    optional,
    remote_size,
    snapshot,
)
from siamcal.calibrators.hub_settings import endpoint
from siamcal.calibrators.saving import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    load_calibrator,
    save_calibrator,
)
from siamcal.calibrators.saving import describe as describe_model
from siamcal.errors import ConfigError, HubError
from siamcal.files import make_folder, read_json, write_atomically
from siamcal.model.siamese import CalibratingSiamese
from siamcal.model.weights_file import MAX_WEIGHTS_BYTES

__all__ = [
    "Pushed",
    "Source",
    "describe",
    "from_pretrained",
    "is_repository",
    "list_published",
    "parse_source",
    "pull",
    "push_to_hub",
    "save_pretrained",
    "upload",
]

logger = logging.getLogger(__name__)

_FIGURE = re.compile(r"figures/\w[\w.\-]*\.png\Z")


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        repo_id: "owner/name".
        commit: The commit that the repository is at now.
        url: Its web address.
        changed: False where the repository already held the same files.
    """

    repo_id: str
    commit: str
    url: str
    changed: bool


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    subfolder: str | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    torch_dtype: str | torch.dtype | None = None,
    **options: Any,
) -> CalibratingSiamese:
    """Load a calibrator from a folder or from the Hub.

    Arguments and errors: `siamcal.model.pretrained.PretrainedMixin.from_pretrained`.
    """
    wanted = _dtype(dtype, torch_dtype)
    place = parse_source(
        source,
        revision,
        token,
        cache_dir,
        subfolder=subfolder,
        force_download=force_download,
        local_files_only=local_files_only,
    )
    options["max_bytes"] = limit = options.get("max_bytes") or MAX_WEIGHTS_BYTES
    model = load_calibrator(place.folder or snapshot(reached(place), limit), **options)
    try:
        return model.to(device=device, dtype=wanted)
    except (AssertionError, RuntimeError) as error:  # torch's own, by device
        raise ConfigError(
            f"device={device!r} can't be used here ({str(error).splitlines()[0]:.200}). "
            "`siamcal doctor` lists the devices."
        ) from error


def _dtype(dtype: str | torch.dtype | None, older: str | torch.dtype | None) -> torch.dtype | None:
    """The precision that is asked for by its new name, `dtype`, or by its older, `torch_dtype`."""
    if dtype is not None and older is not None and dtype != older:
        raise ConfigError(f"dtype={dtype!r} and torch_dtype={older!r} are one thing; give dtype.")
    given = dtype if dtype is not None else older
    if given is None:
        return None
    found = given if isinstance(given, torch.dtype) else None
    if isinstance(given, str):
        found = getattr(torch, given.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(
            f"dtype takes torch.float32, bfloat16, float16 or float64, or its name; got {given!r}."
        )
    return found


def save_pretrained(
    model: CalibratingSiamese,
    folder: str | Path,
    *,
    config: CalibratorConfig | None = None,
    results: Mapping[str, Any] | None = None,
    adapter: bool = False,
    base: Any = None,
    **facts: Any,
) -> CalibratorConfig:
    """Save a calibrator with its model card; see `PretrainedMixin.save_pretrained`."""
    config = describe_model(model, config, **facts)
    written = save_calibrator(model, config, folder, adapter=adapter, base=base, card="")
    write_atomically(Path(folder) / CARD_FILE, model_card(written, results))
    if text := licence_text(written):
        write_atomically(Path(folder) / LICENCE_FILE, text)
    return written


def push_to_hub(
    model: CalibratingSiamese,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    message: str = "Upload calibrator with siamcal",
    config: CalibratorConfig | None = None,
    results: Mapping[str, Any] | None = None,
    adapter: bool = False,
    base: Any = None,
    **facts: Any,
) -> Pushed:
    """Publish a calibrator; see `PretrainedMixin.push_to_hub`."""
    config = describe_model(model, config, **facts)
    with tempfile.TemporaryDirectory() as name:
        workplace = Path(name)
        saved = save_calibrator(model, config, workplace / "c", adapter=adapter, base=base)
        plan = plan_from_model(saved, workplace / "c", repo_id, workplace, results)
        return upload(
            plan, repo_id, private=private, revision=revision, token=token, message=message
        )


def upload(
    plan: Publication,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    message: str = "Upload calibrator with siamcal",
) -> Pushed:
    """Send a publication in one commit; files that are there already aren't sent again.

    Args:
        plan: The files.
        repo_id: "owner/name"; made if needed.
        private: Only the owner may see it. A public repository is refused then.
        revision: Branch to commit to, made if needed; None is main.
        token: Access token; None takes the one of `hf auth login` or HF_TOKEN.
        message: Commit message.

    Raises:
        HubError: Not allowed, not reached, or public where private was asked for.
    """
    from huggingface_hub import CommitOperationAdd

    place = parse_source(f"hf-hub:{repo_id}", revision)
    _check_reached("Nothing was sent.")
    api = hub_api(token)
    with explained(place):
        api.create_repo(repo_id, private=private, exist_ok=True)
        before = api.model_info(repo_id)
        if private and not before.private:
            raise HubError(
                f"{repo_id} exists and is public, but a private push was asked for; nothing was "
                "sent. Choose another name, or make it private in its settings."
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
            before = api.model_info(repo_id, revision=revision)
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(path, str(file)) for path, file in sorted(plan.files.items())],
            commit_message=message,
            revision=revision,
        )
    url = f"{endpoint()}/{repo_id}"
    return Pushed(repo_id, commit.oid, url, commit.oid != before.sha)


def pull(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    folder: str | Path | None = None,
    max_bytes: int = MAX_WEIGHTS_BYTES,
) -> Path:
    """Download a calibrator with card, results and figures; return the folder it lies in.

    Args:
        source: "owner/name" or "hf-hub:owner/name@revision".
        revision: Branch, tag or commit; None is the main branch.
        token: Access token; None takes the one of `hf auth login` or HF_TOKEN.
        cache_dir: The Hub's cache; None takes its own (HF_HOME).
        folder: Copy the files there; None leaves them in the cache.
        max_bytes: Largest weights file that is accepted.

    Raises:
        HubError: See `from_pretrained`.
    """
    place = parse_source(source, revision, token, cache_dir)
    if place.folder is not None:
        raise ConfigError(f"{source} is a folder on this machine; there is nothing to pull.")
    place = reached(place)
    found = snapshot(place, max_bytes)
    here = place.at(commit_of(found / CONFIG_FILE))
    for name in _extra_names(here):
        optional(here, name)
    if folder is None:
        return found
    target = Path(folder)
    for file in sorted(found.rglob("*")):
        name = file.relative_to(found).as_posix()
        if file.is_file() and _is_ours(name):
            make_folder((target / name).parent)
            shutil.copyfile(file, target / name)
    return target


def describe(
    source: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Config, results and size of a calibrator, before any weight is loaded or downloaded.

    Raises:
        HubError: See `from_pretrained`.
        ConfigError: The config is damaged, newer or unsafe.
    """
    place = parse_source(source, revision, token, cache_dir)
    if place.folder is not None:
        folder, where = place.folder, {"folder": str(place.folder)}
        weights = folder / WEIGHTS_FILE
        size = weights.stat().st_size if weights.is_file() else None
        results: Path | None = folder / "results.json"
    else:
        place = reached(place)
        folder = fetch(place, CONFIG_FILE, MAX_CONFIG_BYTES).parent
        commit = commit_of(folder / CONFIG_FILE)
        here = place.at(commit)
        where = {"repository": place.repo_id, "commit": commit, "endpoint": endpoint()}
        size = remote_size(here, WEIGHTS_FILE)
        results = optional(here, "results.json")
    config = read_config(folder / CONFIG_FILE)
    return {
        **where,
        "weights": "unknown" if size is None else f"{size / 1e6:.1f} MB",
        "bytes": size,
        "config": config_to_dict(config),
        "results": _means(results, config.task),
    }


def list_published(contains: str = "", *, limit: int = 100) -> list[dict[str, Any]]:
    """Calibrators published on the Hub (tag `siamcal`), most downloaded first.

    Args:
        contains: Part of the name.
        limit: At most so many.

    Raises:
        HubError: The Hub can't be reached.
    """
    _check_reached("Its list isn't kept; what was pulled still loads by its name.")
    with explained(None):
        found = list(
            hub_api(None).list_models(
                filter=TAG, search=contains or None, sort="downloads", limit=limit
            )
        )
    return [
        {
            "name": model.id,
            "downloads": model.downloads,
            "likes": model.likes,
            "private": bool(model.private),
            "updated": str(model.last_modified or "")[:10],
        }
        for model in found
        if contains.lower() in model.id.lower()
    ]


def _check_reached(then: str) -> None:
    if cause := silence():
        raise HubError(f"{endpoint()} can't be reached ({cause}). {then}")


def _extra_names(place: Source) -> list[str]:
    names = [CARD_FILE, LICENCE_FILE, *EXTRA_FILES]
    if place.unreached:
        return names
    try:
        with explained(place):
            listed = hub_api(place.token).list_repo_files(place.repo_id, revision=place.revision)
    except HubError:
        return names  # offline: the cache knows
    figures = sorted(name for name in listed if _FIGURE.match(name))[:MAX_FIGURES]
    return [name for name in names if name in listed] + figures


def _is_ours(name: str) -> bool:
    known = {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, LICENCE_FILE, *EXTRA_FILES}
    return name in known or bool(_FIGURE.match(name))


def _means(results: Path | None, task: str) -> dict[str, Any]:
    """Mean of each metric of each method; empty where there are no results."""
    if results is None or not results.is_file() or results.stat().st_size > MAX_EXTRA_BYTES:
        return {}
    try:
        methods = read_json(results)["methods"]
        return {
            str(method)[:40]: {str(m)[:40]: cell["mean"] for m, cell in cells[task].items()}
            for method, cells in methods.items()
            if task in cells
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # a ConfigError is a ValueError
        return {}
