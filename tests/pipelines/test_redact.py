"""What is masked before a text leaves, and what is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.pipelines.redact import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail jo.o'neil+x@mail.example.co.uk now", "Mail [email] now"),
        ("<jo@example.com>, thanks", "<[email]>, thanks"),
        ("jürgen@müller.example", "[email]"),
        ("card 4111 1111 1111 1111.", "card [card]."),
        ("card 4111-1111-1111-1111", "card [card]"),
        ("card 378282246310005", "card [card]"),
        ("pay to DE89 3704 0044 0532 0130 00 please", "pay to [iban] please"),
        ("pay to GB82WEST12345698765432, thanks", "pay to [iban], thanks"),
        ("call +44 20 7946 0958 today", "call [phone] today"),
        ("call (030) 123 45 67", "call [phone]"),
        ("call 0171/5551234", "call [phone]"),
        ("call 555-123-4567.", "call [phone]."),
        ("order 20231234567 of 2024-05-06", "order 20231234567 of 2024-05-06"),
        ("1,299.00 at 10:30, 5 stars", "1,299.00 at 10:30, 5 stars"),
        ("version 1.2.3.4, 100% of 1234567", "version 1.2.3.4, 100% of 1234567"),
        ("@support is slow, a@b", "@support is slow, a@b"),
        ("", ""),
    ],
)
def test_masks(text: str, expected: str) -> None:
    """Addresses, cards, accounts and phones go; orders, dates, prices and versions stay."""
    assert redact(text) == expected


@given(st.text(max_size=300))
def test_any_text_can_be_masked_and_masking_again_changes_nothing(text: str) -> None:
    """No text makes it fail."""
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize("text", ["a" * 300_000, "1 " * 150_000, "a." * 150_000, "@" * 300_000, "+1-" * 100_000])
def test_long_texts_take_no_square_time(text: str) -> None:
    """A field of hundreds of kilobytes is masked within the test's time limit."""
    redact(text)
