"""Where a calibrator lies, and what the Hub's errors mean to a user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from siamcal.calibrators.hub_settings import endpoint
from siamcal.errors import ConfigError, HubError

TAG = "siamcal"
_REPO = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*\Z")
_REVISION = re.compile(r"\w[\w.\-/]*\Z")


@dataclass(frozen=True)
class Source:
    """Where a calibrator lies: a folder, or a repository at a revision, and how it is fetched.

    Attributes:
        folder: On this machine; None for a repository.
        repo_id: "owner/name".
        revision: Branch, tag or commit; None is the main branch.
        token: Access token; None takes the one of `hf auth login` or HF_TOKEN.
        cache_dir: The Hub's cache; None takes its own (HF_HOME).
        subfolder: Of the repository, in which the calibrator lies.
        force_download: Download what is in the cache anew.
        local_files_only: Take what is in the cache, and ask nobody.
        unreached: Why the Hub can't be reached, by `reached`: what is in the cache is taken then.
    """

    folder: Path | None
    repo_id: str = ""
    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    subfolder: str = ""
    force_download: bool = False
    local_files_only: bool = False
    unreached: str = ""

    def at(self, commit: str) -> Source:
        """The same repository at a commit."""
        return replace(self, revision=commit)


def parse_source(
    source: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    *,
    subfolder: str | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Source:
    """Read "owner/name", "hf-hub:owner/name@revision", "local-dir:path" or a folder's path.

    The other arguments are the attributes of `Source`.

    Raises:
        ConfigError: None of these, two revisions, a subfolder that leads out of the repository, or
            a download that is wanted and forbidden at once.
    """
    text, inner = str(source), (subfolder or "").strip("/")
    if inner and (not _REVISION.match(inner) or ".." in inner):
        raise ConfigError(f"subfolder names a folder inside the repository, but got {subfolder!r}.")
    if force_download and local_files_only:
        raise ConfigError(
            "force_download=True downloads anew and local_files_only=True forbids it; give one."
        )
    if text.startswith("local-dir:"):
        return Source(Path(text.removeprefix("local-dir:")).expanduser() / inner)
    if not text.startswith("hf-hub:") and Path(text).expanduser().is_dir():
        return Source(Path(text).expanduser() / inner)
    name, at, inside = text.removeprefix("hf-hub:").partition("@")
    if at and not inside:
        raise ConfigError(f"{text!r} names no revision behind the @; leave the @ out for main.")
    if at and revision is not None and inside != revision:
        raise ConfigError(f"{text!r} names the revision {inside!r}, but revision={revision!r}.")
    revision = inside if at else revision
    if revision and not _REVISION.match(revision):
        raise ConfigError(f"A revision is a branch, tag or commit, but got {revision!r}.")
    if not is_repository(name):
        raise ConfigError(
            f"{text!r} is neither a folder nor a repository. Name a folder that exists, "
            "'local-dir:PATH', 'owner/name' or 'hf-hub:owner/name@revision'."
        )
    return Source(None, name, revision, token, cache_dir, inner, force_download, local_files_only)


def is_repository(name: str) -> bool:
    """Whether a name has the form owner/name."""
    return bool(_REPO.match(name)) and ".." not in name


def hub_api(token: str | bool | None) -> Any:
    """huggingface_hub's client, telling the Hub that siamcal asks."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), token=token, library_name=TAG)


def network_errors() -> tuple[type[Exception], ...]:
    """OSError and those of huggingface_hub's HTTP library (its name changed between versions)."""
    from huggingface_hub import file_download

    library = getattr(file_download, "httpx2", None) or getattr(file_download, "httpx", None)
    return (OSError,) if library is None else (OSError, library.TransportError)


def silence() -> str:
    """Why the Hub can't be reached; empty where it answers, whatever it says.

    Asked once, with huggingface_hub's own time limit (HF_HUB_ETAG_TIMEOUT), as its functions ask
    six times with waits in between where nothing is in the cache. Nothing is asked where it is
    told to be offline.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return ""
    try:
        get_session().head(endpoint(), timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except network_errors() as error:
        return str(error).split("\n")[0][:200] or type(error).__name__
    return ""


def reached(place: Source) -> Source:
    """The repository, with what keeps the Hub from being reached.

    Raises:
        HubError: It can't be reached, and a download was asked for.
    """
    if place.local_files_only or not (cause := silence()):
        return place
    if place.force_download:
        raise HubError(
            f"{endpoint()} can't be reached ({cause}), and force_download=True takes nothing from "
            "the cache."
        )
    return replace(place, unreached=cause)


def _no_folder(name: str) -> str:
    """A hint for those who meant one: runs/mine looks like a repository's name, too."""
    return "" if Path(name).is_dir() else f" A folder {name} isn't there either."


@contextmanager
def explained(place: Source | None, name: str = "") -> Iterator[None]:
    """Turn the Hub's errors into one sentence that says what to do."""
    from huggingface_hub import errors

    what = place.repo_id if place is not None else "the list of calibrators"
    at = f" at revision {place.revision!r}" if place is not None and place.revision else ""
    try:
        yield
    except errors.GatedRepoError:
        text = f"{what} is gated: accept its terms on {endpoint()}/{what}, then log in."
        raise HubError(f"{text} Run `hf auth login` or set HF_TOKEN.") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{endpoint()} has no repository {what!r}, or it is private and you aren't logged in. "
            "Check the name; for a private one run `hf auth login` or set HF_TOKEN."
            f"{_no_folder(what)}"
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(
            f"{what} has no revision {place.revision if place else ''!r}; see the branches and "
            f"commits on {endpoint()}/{what}/commits/main."
        ) from None
    except errors.LocalEntryNotFoundError as error:
        if place is not None and place.local_files_only:
            raise HubError(
                f"{name or what} of {what}{at} isn't in the cache, and local_files_only=True asks "
                f"nobody for it. Pull it once: siamcal pull {what}"
            ) from None
        cause = place.unreached if place is not None else ""
        cause = cause or str(error.__cause__ or "").split("\n")[0][:200]
        raise HubError(
            f"{name or what} of {what}{at} isn't in the cache, and {endpoint()} can't be reached "
            f"({cause or 'offline'}). Pull it once while online: siamcal pull {what}."
            f"{_no_folder(what)}"
        ) from None
    except errors.EntryNotFoundError:
        raise HubError(
            f"{what}{at} holds no {name or 'such file'}, so it isn't a siamcal calibrator; "
            "`siamcal ls --hub` lists those that are."
        ) from None
    except errors.OfflineModeIsEnabled:
        raise HubError(f"HF_HUB_OFFLINE is set, but {what} needs the Hub; unset it.") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "?")
        hint = " Run `hf auth login` or set HF_TOKEN." if status in (401, 403) else ""
        text = (error.server_message or str(error)).strip().split("\n")[0]
        raise HubError(f"{endpoint()} answered {status} for {what}: {text}.{hint}") from None
    except (errors.HFValidationError, errors.FileMetadataError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise HubError(f"{what}: {str(error)[:300]}") from None
    except network_errors() as error:
        if "xet-write-token" in str(error):
            raise HubError(
                f"{endpoint()} doesn't take uploads by Xet ({str(error)[:200]}). Set "
                "HF_HUB_DISABLE_XET=1 and push again."
            ) from None
        raise HubError(
            f"The connection to {endpoint()} failed while {name or what} was on its way "
            f"({str(error)[:200]}). Run the same again; what has arrived is kept."
        ) from None
