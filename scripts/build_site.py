"""Builds the documentation site into `site/` and checks it: `python scripts/build_site.py [FOLDER]`.

The generator (extra `docs`) renders the pages of `docs/`. This script adds `llms.txt` and the pages as Markdown, then
checks that every link and picture leads to a file or a heading of the site, and that no page loads anything from
elsewhere. It needs no network.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIGURATION = ROOT / "zensical.toml"
_CODE = re.compile(r"`[^`]*`")
_LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}


def project() -> dict[str, Any]:
    """The settings of the site."""
    settings: dict[str, Any] = tomllib.loads(CONFIGURATION.read_text(encoding="utf-8"))["project"]
    return settings


def navigation() -> list[tuple[str, list[tuple[str, str]]]]:
    """The sections of the site: title, and the names and files of its pages."""
    sections = [next(iter(section.items())) for section in project()["nav"]]
    return [(title, [next(iter(page.items())) for page in pages]) for title, pages in sections]


def llms_text() -> str:
    """`llms.txt`: every page with its first sentence, for programs that read documentation."""
    lines = [f"# {project()['site_name']}\n", f"> {project()['site_description']}\n"]
    for title, pages in navigation():
        links = [f"- [{name}]({page}): {_first_sentence(DOCS / page)}" for name, page in pages]
        lines += [f"## {title}\n", *links, ""]
    return "\n".join(lines)


def _first_sentence(page: Path) -> str:
    text = re.sub(r"<!--.*?-->|```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    paragraph = next(part for part in text.split("\n\n") if part.strip() and not re.match(r"\s*[#|!]", part))
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
    return re.split(r"(?<=[.:])\s", plain)[0].rstrip(":")


def build(folder: Path) -> None:
    """Render the site into a new folder.

    Raises:
        RuntimeError: the generator reports an error or a warning.
    """
    with tempfile.TemporaryDirectory() as name:
        # The generator keeps its cache and its output next to its settings: a copy leaves the project as it is.
        copy = Path(name)
        shutil.copy(CONFIGURATION, copy)
        shutil.copytree(DOCS, copy / "docs")
        for page in (copy / "docs").glob("*.md"):
            page.write_text(_for_the_generator(page.read_text(encoding="utf-8")), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "zensical",
            "build",
            "--strict",
            "--config-file",
            str(copy / CONFIGURATION.name),
        ]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(copy / project()["site_dir"], folder)
    for page in DOCS.glob("*.md"):
        shutil.copy(page, folder)
    (folder / "llms.txt").write_text(llms_text(), encoding="utf-8")


def _for_the_generator(text: str) -> str:
    """A page in the generator's Markdown, which knows one word after a fence and shows a backslash in code."""
    text = re.sub(r"^(```\w+) \w+$", r"\1", text, flags=re.MULTILINE)
    lines = text.split("\n")
    return "\n".join(_CODE.sub(_unescape, line) if line.startswith("|") else line for line in lines)


def _unescape(code: re.Match[str]) -> str:
    return code[0].replace("\\|", "|")


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        for name in ("href", "src"):
            if values.get(name):
                loads = (tag, name) in _LOADS and values.get("rel") not in {"canonical", "prev", "next"}
                (self.loaded if loads else self.links).append(values[name])


def problems(folder: Path) -> Iterator[str]:
    """Links of the built site that lead to no file or heading of it, and what its pages load from elsewhere."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    for path, page in pages.items():
        for link in (*page.links, *page.loaded):
            if link.startswith(("https:", "http:", "//")):
                if link in page.loaded:
                    yield f"{path.name}: loads {link}"
                continue
            if link.startswith(("mailto:", "data:", "javascript:")):
                continue
            address, anchor = urldefrag(link)
            # The page for a missing address has absolute links: it may be shown at any path.
            start = folder if address.startswith("/") else path.parent
            target = (start / unquote(address.lstrip("/"))).resolve() if address else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            known = pages.get(target)
            if not target.exists():
                yield f"{path.name}: {link} leads to no file"
            elif anchor and known is not None and unquote(anchor) not in known.anchors:
                yield f"{path.name}: {link} leads to no heading"


def main() -> int:
    """Build and check the site; returns the exit code."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").resolve()
    build(folder)
    found = sorted(set(problems(folder)))
    sys.stderr.write("".join(f"{problem}\n" for problem in found))
    sys.stderr.write(f"{folder}: {len(list(folder.glob('*.html')))} pages, {len(found)} problems\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
