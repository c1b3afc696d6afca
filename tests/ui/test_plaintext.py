"""What comes from outside may say anything and do nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.ui.console import clean, encodable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b[2J\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1b]0;never closed", "a]0;never closed"),
        ("a\x1bPq#0\x1b\\b", "ab"),
        ("a\x1b(0b", "ab"),
        ("\x1bc reset", "c reset"),
        ("a\x00\x07\x08\x7f\x85b\x8dc", "a bc"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("a\u2066b\u2069c\u200fd\u061ce", "abcde"),
        ("pay\u200bpal \ufeffx\u00ad", "paypal x"),
        ("tag\U000e0041\U000e0042ged", "tagged"),
        ("zalgo e" + "\u0301" * 40 + "!", "zalgo e\u0301\u0301!"),
        ("lone \udc80 surrogate", "lone \ufffd surrogate"),
        ("one\n two\t\r\nthree\u2028four", "one two three four"),
        ("[red]markup[/red] :smile:", "[red]markup[/red] :smile:"),
        ("中文 emoji 🎉 é", "中文 emoji 🎉 é"),
    ],
)
def test_nothing_of_it_is_obeyed(text: str, shown: str) -> None:
    """Escapes, controls, direction marks and invisible letters go; everything that can be read stays."""
    assert clean(text) == shown


def test_line_feeds_stay_when_wanted() -> None:
    """Text of several lines keeps its lines and nothing else that moves a cursor."""
    assert clean("a\r\nb\tc\x0bd\re", one_line=False) == "a\nb c d e"


@given(st.text() | st.text(st.sampled_from("\x1b[]0;m\x9b\x07\\AJ\u202e\n \t\ud800x")))
def test_no_control_survives(text: str) -> None:
    """Whatever comes in: no control, no direction mark, no surrogate comes out, and cleaning twice changes nothing."""
    shown = clean(text)
    assert not [letter for letter in shown if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    assert clean(shown) == shown
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "ä→🎉"), ("latin-1", "ä??"), ("ascii", "???"), ("no-such", "???")]
)
def test_letters_an_encoding_lacks_become_question_marks(encoding: str, shown: str) -> None:
    """What a terminal cannot show is replaced before its width is measured."""
    assert encodable("ä→🎉", encoding) == shown
