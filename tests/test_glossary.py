"""The glossary's rule: one term for one thing, in names and in prose."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
_CODE = [*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
_PROSE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
_PROSE += [path for path in ROOT.glob("docs/*.md") if path != GLOSSARY]
# Feedback texts, servers' words, other projects' names and a reference to an issue are data, not prose.
_DATA = re.compile(r"the crew w\w+|\|allowance|good pace|blocking[ _]portal|[\w/.-]+#\d+", re.IGNORECASE)


def out() -> tuple[set[str], set[str]]:
    """The words that are out everywhere, and those that are out as the name of a class or a module."""
    everywhere, names = set(), set()
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[0] in {"term", "---"}:
            continue
        for word in filter(None, (word.strip() for word in cells[2].split(","))):
            (names if word.startswith("*") else everywhere).add(word.strip("*"))
    return everywhere, names


EVERYWHERE, AS_NAMES = out()


def test_the_table_is_read() -> None:
    """Both kinds of words are found."""
    assert {"outlet", "of ours", "anew"} <= EVERYWHERE
    assert {"letters", "reach"} <= AS_NAMES


def test_no_word_of_the_last_column_is_used() -> None:
    """Neither in a name, a docstring, a comment or a message, nor in a document."""
    pattern = re.compile(rf"\b(?:{'|'.join(sorted(EVERYWHERE))})\b")
    found = []
    for path in [*_CODE, *_PROSE]:
        # A name's parts count as words: `open_outlet` and `OpenOutlet`.
        text = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", _DATA.sub("", path.read_text(encoding="utf-8"))).lower()
        if path != Path(__file__):
            lines = enumerate(text.splitlines(), 1)
            found += [f"{path}:{number}: {word}" for number, line in lines for word in pattern.findall(line)]
    assert not found


def test_no_class_or_module_has_a_name_that_is_out() -> None:
    """Words with everyday meanings are no name for a thing that has a term."""
    found = []
    for path in ROOT.glob("src/**/*.py"):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = {node.name.strip("_").lower() for node in tree if isinstance(node, ast.ClassDef)} | {path.stem}
        found += [f"{path}: {name}" for name in names & (EVERYWHERE | AS_NAMES)]
    assert not found
