"""Text from outside, made safe to show: it may say anything, it may do nothing.

Feedback, answers, server messages and file names all pass here before they reach a terminal.
"""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"""
      (?: \x1b\[ | \x9b ) [0-?]* [ -/]* [@-~]                            # CSI: colours, cursor, erase
    | (?: \x1b[\]PX^_] | [\x90\x98\x9d-\x9f] ) [^\x07\x1b\x9c]* (?: \x07 | \x1b\\ | \x9c )  # OSC, DCS and kin, closed
    | \x1b [ -/]+ [0-~]                                                  # character sets and the like
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"[\t\x0b-\x0d\x1c-\x1f\x85\u2028\u2029]")
_HARMFUL = re.compile(
    "["
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # controls, the line feed excepted
    "\u00ad\u061c\u180e\u200b\u200d-\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # direction, joiners, zero width
    "\ufe00-\ufe0f"  # variation selectors: terminals do not agree on the width they give
    "\U000e0000-\U000e01ef"  # tags and more selectors: text that nobody can see
    "]+"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACKED = re.compile(f"({_MARK}{{2}}){_MARK}+")


def clean(text: str, *, one_line: bool = True) -> str:
    """Take out of `text` whatever a terminal would obey instead of show.

    Escape sequences, control characters, characters that turn the direction of writing round, and invisible ones
    are dropped; a lone surrogate becomes U+FFFD; at most two combining marks stay on one letter.

    Args:
        text: anything, from anywhere.
        one_line: make every run of white space, line breaks included, one space; otherwise line feeds are kept and
            tabs and other breaks become spaces.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split()) if one_line else text
    text = _SEQUENCE.sub("", text).replace("\r\n", "\n")
    text = _HARMFUL.sub("", _BREAK.sub(" ", text))
    text = _SURROGATE.sub("\ufffd", _STACKED.sub(r"\1", text))
    return " ".join(text.split()) if one_line else text


def encodable(text: str, encoding: str) -> str:
    """Replace by `?` what `encoding` has no letter for, so that a width measured now is the width that shows."""
    if text.isascii():
        return text
    try:
        return text.encode(encoding, "replace").decode(encoding)
    except LookupError:
        return text.encode("ascii", "replace").decode("ascii")
