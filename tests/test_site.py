"""The documentation site: every page can be reached, it builds offline, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SITE: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "build_site.py"))
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_every_page_is_in_the_navigation() -> None:
    """Once, and nothing else is."""
    assert sorted(page for _, pages in SITE["navigation"]() for _, page in pages) == PAGES


def test_llms_txt_lists_every_page() -> None:
    """Each with a sentence that says what it is about."""
    text = SITE["llms_text"]()
    for page in PAGES:
        assert len(text.split(f"({page}): ")[1].split("\n")[0]) > 15


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """A missing file, a missing heading, and a script from elsewhere; links to other sites are not asked."""
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">1</a><a href="c.html">2</a><a href="#top">3</a><a href="#gone">4</a>'
        '<a href="https://example.org/">5</a><script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<h2 id="here">B</h2><a href="/a.html#top">1</a><img src="d.png">')
    assert sorted(SITE["problems"](tmp_path)) == [
        "a.html: #gone leads to no heading",
        "a.html: b.html#there leads to no heading",
        "a.html: c.html leads to no file",
        "a.html: loads https://example.org/x.js",
        "b.html: d.png leads to no file",
    ]


@pytest.mark.slow
def test_the_site_builds_offline_and_its_links_lead_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page, its Markdown, the search index and `llms.txt`; no page loads anything from elsewhere."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("the extra docs is not installed: pip install -e '.[docs]'")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    SITE["build"](tmp_path / "site")
    assert list(SITE["problems"](tmp_path / "site")) == []
    for path in (tmp_path / "site").glob("*.html"):
        article = path.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
        assert "\\|" not in article, path.name
        assert "```" not in article, path.name
    files = {path.name for path in (tmp_path / "site").iterdir()}
    assert {*PAGES, "llms.txt", *(page.replace(".md", ".html") for page in PAGES)} <= files
    found = json.loads((tmp_path / "site" / "search.json").read_text(encoding="utf-8"))
    assert "hang-up" in json.dumps(found)
