"""What huggingface_hub is told by its settings; nobody is asked, and the token isn't shown."""

from __future__ import annotations

import os
import re
from typing import Any

__all__ = ["endpoint", "hub_settings"]


def endpoint() -> str:
    """Address of the Hub or of its mirror (HF_ENDPOINT, also where it was set after the import)."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_settings() -> dict[str, Any]:
    """Address, whether offline, whether there is a token, and the folder of the cache."""
    from huggingface_hub import constants, get_token

    return {
        "endpoint": re.sub(r"//[^/@]*@", "//", endpoint()),  # a mirror's password is nobody's
        "offline": bool(constants.HF_HUB_OFFLINE),
        "token": get_token() is not None,
        "cache": constants.HF_HUB_CACHE,
    }
