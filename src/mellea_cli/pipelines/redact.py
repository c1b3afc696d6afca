"""Masks what tells a person from others before a text leaves: addresses, phone, card and account numbers.

It goes by form alone, so names stay. What is masked is never put back.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# It begins where a word begins: otherwise each letter of a long one would be tried as a beginning.
_EMAIL = re.compile(r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)+")
_IBAN = re.compile(r"\b[A-Za-z]{2}\d{2}(?:[ \t-]?[A-Za-z0-9]){11,30}\b")
# Digits with single spaces or dashes between them, and nothing that makes them part of a longer number or a word.
_DIGITS = re.compile(r"(?<![\w.,])\d(?:[ \t-]?\d){12,18}(?![\w])")
_PHONE = re.compile(r"(?<![\w.,/])(?:\+|00|\()?\d(?:[ \t./()-]{0,2}\d){6,14}(?![\w])")
_ISO_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}")


def redact(text: str) -> str:
    """Return `text` with e-mail addresses, IBANs, card numbers and phone numbers masked.

    A card number counts when its check digit holds, an IBAN when its checksum does. A phone number is seven to
    fifteen digits that begin with `+`, `00` or `(`, or are broken up as phone numbers are, or begin with 0; an order
    number in one piece and a date are left alone.
    """
    text = _EMAIL.sub("[email]", text)
    text = _IBAN.sub(_without_iban, text)
    text = _DIGITS.sub(_masked(_is_card, "[card]"), text)
    return _PHONE.sub(_masked(_is_phone, "[phone]"), text)


def _masked(holds: Callable[[str], bool], mask: str) -> Callable[[re.Match[str]], str]:
    return lambda found: mask if holds(found[0]) else found[0]


def _without_iban(found: re.Match[str]) -> str:
    # Words that follow look like more of it: the longest part that ends with a word and holds is the number.
    text = found[0]
    for end in range(len(text), 14, -1):
        if not text[end : end + 1].isalnum() and _is_iban(text[:end]):
            return "[iban]" + text[end:]
    return text


def _is_iban(found: str) -> bool:
    letters = re.sub(r"[ \t-]", "", found).upper()
    if not 15 <= len(letters) <= 34 or not letters.isascii():
        return False
    turned = letters[4:] + letters[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def _is_card(found: str) -> bool:
    digits = [int(letter) for letter in found if letter.isdecimal()]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(digits[::-1])]
    return sum(doubled) % 10 == 0


def _is_phone(found: str) -> bool:
    if _ISO_DATE.fullmatch(found):
        return False
    digits = sum(letter.isdecimal() for letter in found)
    broken_up = any(not letter.isdecimal() for letter in found[1:])
    return 7 <= digits <= 15 and (found[0] in "+(0" or broken_up)
