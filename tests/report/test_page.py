"""The page as text: its policy, its inert data, and that feedback is only ever text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

from resultrows import NASTY, make_page, nasty_rows, result_rows


class Elements(HTMLParser):
    """Collects what a parser of HTML sees: elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.raw.append((self.cdata_elem, data))


def test_the_policy_allows_the_two_blocks_and_nothing_else(tmp_path: Path) -> None:
    """Hashes of the one style sheet and the one script; no `unsafe-inline`, no source, no inline style or handler."""
    elements = Elements(make_page(tmp_path, result_rows(30, themed=True), by=("channel",)))
    (policy,) = [attrs["content"] for tag, attrs in elements.seen if attrs.get("http-equiv")]
    blocks = {tag: data for tag, data in elements.raw if not data.lstrip().startswith(("{", "["))}
    hashes = {tag: base64.b64encode(hashlib.sha256(data.encode()).digest()).decode() for tag, data in blocks.items()}
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "base-uri 'none'; form-action 'none'"
    )
    for tag, attrs in elements.seen:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"style", "src", "srcset"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
        assert not attrs.get("href") or str(attrs["href"]).startswith("#")


def test_feedback_adds_no_element(tmp_path: Path) -> None:
    """A page of rows full of HTML, scripts and template marks has the elements of a harmless one."""
    harmless = [json.loads(json.dumps(row).replace(json.dumps(NASTY)[1:-1], "word")) for row in nasty_rows()]
    shapes = [
        [tag for tag, _ in Elements(make_page(tmp_path, rows, title, by=(column,))).seen]
        for rows, title, column in ((nasty_rows(), NASTY, NASTY), (harmless, "word", "word"))
    ]
    assert shapes[0] == shapes[1]


def test_the_data_block_gives_every_letter_back(tmp_path: Path) -> None:
    """What stands in the block is JSON without a letter that HTML knows, and reads back as it was."""
    text = make_page(tmp_path, nasty_rows())
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    assert not re.search("[<>&\u2028\u2029]", block[1])
    (first, _) = json.loads(block[1])
    assert first[0] == first[1] == first[2] == NASTY


def test_an_empty_file_makes_a_page_of_nothing(tmp_path: Path) -> None:
    """It says so, and needs no script."""
    text = make_page(tmp_path, [])
    assert "The file holds no rows" in text
    assert "<script" not in text


def test_links_lead_to_parts_of_the_page(tmp_path: Path) -> None:
    """Every link is a part that is there, or a row that there is."""
    elements = Elements(make_page(tmp_path, result_rows(60, themed=True), by=("channel",)))
    ids = {attrs["id"] for _, attrs in elements.seen if "id" in attrs}
    links = {str(attrs["href"])[1:] for tag, attrs in elements.seen if tag == "a"}
    rows = {link for link in links if link.startswith("row-")}
    assert rows
    assert {int(row.removeprefix("row-")) for row in rows} <= set(range(1, 61))
    assert links - rows <= ids
    assert len(ids) == len([attrs for _, attrs in elements.seen if "id" in attrs])


def test_headings_are_in_order_and_every_chart_has_words(tmp_path: Path) -> None:
    """One h1, no level left out; each drawing is hidden beside its numbers or has a label."""
    elements = Elements(make_page(tmp_path, result_rows(60, themed=True), by=("channel",)))
    levels = [int(tag[1]) for tag, _ in elements.seen if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    drawings = [attrs for tag, attrs in elements.seen if tag == "svg"]
    assert drawings
    assert all(attrs.get("aria-hidden") == "true" or attrs.get("aria-label") for attrs in drawings)


def test_a_sum_that_a_reader_can_check_stands_in_the_page(tmp_path: Path) -> None:
    """Every row occurs once in it."""
    assert "60 rows = 50 answered + 6 without text + 4 failed." in make_page(tmp_path, result_rows(60))
