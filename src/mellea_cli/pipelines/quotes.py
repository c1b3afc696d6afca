"""Quotes that stand in their text letter by letter: found there, or replaced by what comes closest there."""

from __future__ import annotations

import re
from collections import Counter

from mellea_cli.requirements.checks import sentences

QUOTE_LENGTH = 160
"""The longest quote in characters."""
_SHORTEST = 2
# Letters that models write for one another: a quote is looked for without these differences.
_ALIKE = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201b": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " "})
_ALIKE.update(str.maketrans({"\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": "-"}))
_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"[^\n\r;]+")
_EDGES = " \t\r\n\"'\u2018\u2019\u201c\u201d"
_TRAILING = ".!?,;:\u2026"


def anchored(quote: str, text: str) -> str | None:
    """The passage of `text` that `quote` stands for.

    White space, case and the shape of quotation marks and dashes may differ, and marks at the ends may be missing:
    what is returned are the text's own letters.

    Returns:
        The passage, at most `QUOTE_LENGTH` characters; `None` when there is none.
    """
    wanted = quote.strip(_EDGES)
    if len(wanted) < _SHORTEST and wanted != text.strip():
        return None
    at = text.find(wanted)
    if at >= 0:
        return cut(text[at : at + len(wanted)])
    for inner in dict.fromkeys((wanted, wanted.rstrip(_TRAILING))):
        words = _folded(inner).split()
        if not words:
            continue
        found = re.search(r"\s+".join(map(re.escape, words)), _folded(text))
        if found is not None:
            return cut(text[found.start() : found.end()])
    return None


def closest(quote: str, text: str) -> str:
    """The sentence of `text` that shares the most words with `quote`; of equals the shortest, of strangers the first.

    Returns:
        A passage of the text, at most `QUOTE_LENGTH` characters; empty only for a text without any.
    """
    passages = _passages(text)
    wanted = Counter(_words(quote))
    scores = [((Counter(_words(passage)) & wanted).total(), -len(passage)) for passage in passages]
    most = max(scores, default=(0, 0))
    return cut(passages[scores.index(most) if most[0] else 0]) if passages else ""


def cut(passage: str) -> str:
    """The passage's beginning, ended at a word, where it is longer than a quote may be."""
    if len(passage) <= QUOTE_LENGTH:
        return passage
    head = passage[: QUOTE_LENGTH + 1]
    end = max(head.rfind(" "), head.rfind("\n"))
    return passage[: end if end > QUOTE_LENGTH // 2 else QUOTE_LENGTH].rstrip()


def _folded(text: str) -> str:
    """Letters in one form, each still in its place."""
    lowered = text.translate(_ALIKE).lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text.translate(_ALIKE))


def _words(text: str) -> list[str]:
    return _WORD.findall(_folded(text))


def _passages(text: str) -> list[str]:
    return [sentence for piece in _PIECE.findall(text) for sentence in sentences(piece)]
