"""Hooks of mkdocs: the pages link as on GitHub, also to files beside docs/; the site follows."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
_NOTEBOOK = re.compile(r"(\]\([\w-]+)\.ipynb\)")
_PICTURES = {".png", ".jpg", ".svg"}


def on_files(files: Any, config: Any) -> Any:
    """Notebooks become pages, and pictures from beside docs/ the site's."""
    for path in (ROOT / "docs").glob("*.ipynb"):
        for file in _of_notebook(path, config):
            files.append(file)
    for page in (ROOT / "docs").glob("*.md"):
        for name, _ in _LINK.findall(page.read_text(encoding="utf-8")):
            if Path(name).suffix in _PICTURES and files.get_file_from_path(_place(name)) is None:
                files.append(File.generated(config, _place(name), abs_src_path=str(ROOT / name)))
    return files


def _of_notebook(path: Path, config: Any) -> Iterator[File]:
    """A notebook as it lies there, with what its cells showed, as a page and its pictures."""
    text, resources = MarkdownExporter().from_filename(str(path))
    for name, content in resources["outputs"].items():
        place = f"images/{path.stem}-{name}"
        text = re.sub(rf"!\[\w*\]\({re.escape(name)}\)", f"![What the cell shows]({place})", text)
        yield File.generated(config, place, content=content)
    repository = posixpath.join(config["repo_url"], "blob/main/docs", path.name)
    text += f"\n\nThis page is [a notebook]({repository}).\n"
    yield File.generated(config, f"{path.stem}.md", content=text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A link to a file beside docs/ leads to the repository, one to a notebook to its page."""

    def led(found: re.Match[str]) -> str:
        name, anchor = found[1], found[2] or ""
        if not (ROOT / name).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to ../{name}, which isn't there")
        if Path(name).suffix in _PICTURES:
            return f"]({_place(name)})"
        kind = "tree" if (ROOT / name).is_dir() else "blob"
        return f"]({posixpath.join(config['repo_url'], kind, 'main', name)}{anchor})"

    return _NOTEBOOK.sub(r"\1.md)", _LINK.sub(led, markdown))


def _place(name: str) -> str:
    return f"images/{Path(name).parent.name}-{Path(name).name}"
