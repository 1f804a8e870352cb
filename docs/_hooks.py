"""Hooks of mkdocs: the pages link as on GitHub, also to files beside docs/; the site follows."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_PICTURES = {".png", ".jpg", ".svg"}


def on_files(files: Any, config: Any) -> Any:
    """Pictures that a page shows from beside docs/ become the site's."""
    for page in (ROOT / "docs").glob("*.md"):
        for name, _ in _LINK.findall(page.read_text(encoding="utf-8")):
            if Path(name).suffix in _PICTURES and files.get_file_from_path(_place(name)) is None:
                files.append(File.generated(config, _place(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A link to a file beside docs/ leads to the repository."""

    def led(found: re.Match[str]) -> str:
        name, anchor = found[1], found[2] or ""
        if not (ROOT / name).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to ../{name}, which isn't there")
        if Path(name).suffix in _PICTURES:
            return f"]({_place(name)})"
        kind = "tree" if (ROOT / name).is_dir() else "blob"
        return f"]({posixpath.join(config['repo_url'], kind, 'main', name)}{anchor})"

    return _LINK.sub(led, markdown)


def _place(name: str) -> str:
    return f"images/{Path(name).parent.name}-{Path(name).name}"
