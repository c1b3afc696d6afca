"""What the names of themes say: which mean the same, which say nothing, which are too vague to count by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mellea_cli.pipelines.themes import NONE, OTHER

_WORD = re.compile(r"\w+")
# A word of a theme's name that says nothing about what it is.
_EMPTY_WORDS = frozenset(("a", "an", "and", "of", "in", "for", "the", "to", "with", "very", "more", "too", "by", "on"))
# Words that praise or blame without saying what.
_GENERAL = frozenset(
    _WORD.findall(
        "a amazing and awful bad better care complex customer customers different excellent experience "
        "experiences fantastic general good great inadequate inefficient issue issues matters multiple "
        "negative nice of other overall poor poorly positive problem problems quality satisfaction service "
        "services several staff terrible the treatment unhappy unsatisfactory various very "
    )
)
_VAGUE = frozenset(("experience", "experiences", "issue", "issues", "matters", "problem", "problems"))
# Miscommunication and communication, but not mistake.
_LONG_WORD = 9


def is_general(name: str) -> bool:
    """Whether a theme's name only says that something is good or bad: all there is would belong to it."""
    return not telling_words(name)


def is_vague(name: str) -> bool:
    """Whether a theme's name speaks of problems or experiences: such themes attract what has little in common."""
    return not _VAGUE.isdisjoint(_WORD.findall(name.casefold()))


def telling_words(name: str) -> list[str]:
    """The words of a theme's name that say what it is about, in lower case."""
    return [word for word in _WORD.findall(name.casefold()) if word not in _GENERAL]


def distinct(themes: Iterable[tuple[str, str]], known: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Themes without those that say the same as an earlier one, without unusable names, one general one at most.

    Args:
        themes: names and definitions; of several that say the same the first is kept.
        known: names that are taken.
    """
    kept: list[tuple[str, str]] = []
    seen = [stems(name) for name in known]
    general = any(map(is_general, known))
    for name, definition in themes:
        plain = _plain(name)
        words = stems(name)
        twin = any(words <= other or other <= words for other in seen)
        same = any(definition.casefold() == other.casefold() for _, other in kept)
        if not words or twin or same or plain.casefold() in (OTHER, NONE) or (general and is_general(name)):
            continue
        general = general or is_general(name)
        seen.append(words)
        kept.append((plain, " ".join(definition.split())))
    return kept


def _plain(name: str) -> str:
    """The name without what a table or a spreadsheet would take for something else."""
    words = " ".join(name.replace("|", "/").split()).lstrip("=+-@ ").rstrip(" .,;:")
    return words[:1].upper() + words[1:]


def stems(name: str) -> frozenset[str]:
    """What a name says, without small words and endings, and without praise and blame where it says more."""
    words = telling_words(name) or _WORD.findall(name.casefold())
    return frozenset(_stem(word) for word in words if word not in _EMPTY_WORDS)


def _stem(word: str) -> str:
    """The word without the ending that English plurals and participles have, and what went wrong without its mis-."""
    if word.startswith("mis") and len(word) > _LONG_WORD:
        word = word.removeprefix("mis")
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 3:
            return word.removesuffix(ending)
    return word
