"""The documents and the help are in plain language: short sentences, and no turns that readers stumble over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mellea_cli.cli.app import COMMANDS, app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))

MOST_WORDS = 30
"""The longest sentence. An inline code span or a link counts as one word; tables and code blocks do not count."""

BANNED = {
    "by and by": "later",
    "as well with": "also with",
    "where no": "if no",
    "(?:is|are) told": "gets a message",
    "so long": "that long",
    "so far apart": "a time limit",
    "in hand": "in flight",
    "sits out": "waits for",
    "goes on": "continues",
    "go on": "continue",
    "going on": "continuing",
    "stands on": "is on",
    "stand on": "are on",
    "stands there": "is there",
    "kept to": "followed",
    "keeps to": "obeys",
    "laid out": "designed",
    "nowhere": "name what is missing",
    "no fault": "is not an error",
    "shared out": "divided",
    "is said": "name who says it",
    "are said": "name who says it",
    "without a word": "without a message",
    "as it stands": "unchanged",
    "takes no part": "does not count",
    "take no part": "do not count",
    "at it": "running",
    "reckoned": "calculated",
    "reckons": "assumes",
    "manners": "limits",
    "fit for": "suitable for",
    "needs nothing but": "say what it needs",
    "is all there is": "say what there is",
    "letter by letter": "exactly",
    "on purpose": "deliberately",
    "made up": "invented",
    "puts? into the": "adds to the",
    "as good as": "almost",
    "at most so": "at most",
    "such as it": "unchanged",
    "one may": "you can",
    "whatever happens": "say what happens",
    "tells the truth": "say what it reports",
    "the way of": "the path of",
    "words? for nothing": "value for missing data",
    "no matter": "any",
    "be it": "any",
    "thereby": "so",
    "wherein": "in which",
    "thereof": "of it",
    "hitherto": "until now",
    "henceforth": "from now on",
    "lest": "so that … not",
    "likewise": "also",
    "in vain": "without success",
    "for naught": "without success",
    "of its own accord": "automatically",
    "by itself again": "automatically",
    "in mid-": "during",
    "the like": "name the others",
}
"""Turns of phrase that are out, as patterns, each with what to write instead."""

INVERTED = re.compile(
    r"^(?:Counted|Found|Measured|Shown|Kept|Left|Named|Printed|Read|Sent|Written|Not taken)(?: \w+)?"
    r" (?:is|are|was|were)\b"
)
"""Sentences whose verb comes before the subject."""


def sentences(tokens: list[Token]) -> Iterator[tuple[int, str]]:
    """The sentences of a document with their lines; neither tables nor code."""
    in_table, line = False, 0
    for token in tokens:
        in_table = (in_table or token.type == "table_open") and token.type != "table_close"
        line = token.map[0] + 1 if token.map else line
        if token.type == "inline" and not in_table:
            yield from ((line, sentence) for sentence in split(plain(token)))


def plain(token: Token) -> str:
    """The text of a paragraph; code spans and addresses are one word each."""
    parts = []
    for child in token.children or []:
        if child.type == "code_inline":
            parts.append("CODE")
        elif child.type in {"text", "softbreak", "hardbreak"}:
            parts.append(child.content or " ")
    return "".join(parts)


def split(text: str) -> list[str]:
    """Sentences of a text: they end with a sign that a capital, a digit or a bracket follows."""
    found = re.split(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])", re.sub(r"\b(e\.g|i\.e|etc)\.", r"\1", text))
    return [" ".join(sentence.split()) for sentence in found if sentence.strip()]


def words(sentence: str) -> int:
    """Words of a sentence; a dash or an arrow is none."""
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


def read(path: Path) -> list[tuple[int, str]]:
    return list(sentences(MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))))


def prose(path: Path) -> str:
    """A document without its code, tables included, on one line for each line."""
    text = re.sub(
        r"```.*?```", lambda found: "\n" * found[0].count("\n"), path.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    return re.sub(r"`[^`\n]*`", "CODE", text)


def commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in group.commands:
        command = group.commands[name]
        yield f"{prefix} {name}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")


def help_texts() -> Iterator[tuple[str, str]]:
    """Every text of the help with the place where it is shown."""
    for name, entry in COMMANDS.items():
        yield f"mellea --help: {name}", entry.summary
    for path, command in commands(typer.main.get_command(app), "mellea"):
        yield path, re.sub(r"`[^`]*`", "CODE", command.help or "")
        for parameter in command.params:
            if text := getattr(parameter, "help", None):
                yield f"{path} {parameter.name}", text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_sentence_is_long(path: Path) -> None:
    """Whoever reads one sentence need not read it twice."""
    assert [(line, text) for line, text in read(path) if words(text) > MOST_WORDS] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_turn_is_banned(path: Path) -> None:
    """Usual words in the usual order."""
    if path.name == "glossary.md":  # its last column holds words that are out
        return
    found = []
    for number, line in enumerate(prose(path).splitlines(), 1):
        found += [(number, turn) for turn in BANNED if re.search(rf"\b{turn}\b", line, re.IGNORECASE)]
    assert found == []
    assert [(line, text) for line, text in read(path) if INVERTED.search(text)] == []


def test_the_help_is_plain() -> None:
    """Texts of commands, flags and arguments."""
    texts = list(help_texts())
    assert len(texts) > 100
    long = [(place, one) for place, text in texts for one in split(text) if words(one) > MOST_WORDS]
    banned = [
        (place, turn) for place, text in texts for turn in BANNED if re.search(rf"\b{turn}\b", text, re.IGNORECASE)
    ]
    assert (long, banned) == ([], [])


def test_a_long_sentence_is_found() -> None:
    """Sentences are counted one by one; a code span is one word, and a table none."""
    tokens = (
        MarkdownIt("commonmark")
        .enable("table")
        .parse(
            "# Title\n\nOne `a b c` two. Three\nfour (five). 6 is *it*.\n\n"
            "| a | b |\n|---|---|\n| c | d |\n\n```\ncode\n```\n"
        )
    )
    assert list(sentences(tokens)) == [(1, "Title"), (3, "One CODE two."), (3, "Three four (five)."), (3, "6 is it.")]


def test_an_inverted_sentence_is_found() -> None:
    """The verb comes before the subject; an instruction is no inversion."""
    assert INVERTED.search("Counted are new rows and rows gone.")
    assert INVERTED.search("Read the page first.") is None
