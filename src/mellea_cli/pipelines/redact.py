"""Masks personal numbers and addresses before a text is sent: e-mail, IBAN, card, phone, IP address.

It goes by form alone, so names stay. Masks are never put back.

Phone numbers are recognised by rules, not with the `phonenumbers` library: that needs the caller's country for every
number without `+`, which feedback does not tell, and adds megabytes. Where a form is ambiguous, such as four dotted
numbers that are a version or an IP address, the word before it decides.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import cache

# It begins where a word begins: otherwise each character of a long one would be tried as a beginning.
_EMAIL = r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)+"
_SPACE = r"[ \t\u00a0\u202f-]"
_IBAN = rf"\b[A-Za-z]{{2}}\d{{2}}(?:{_SPACE}?[A-Za-z0-9]){{11,30}}\b"
_CARD = rf"(?<![\w.,+\]])[2-6]\d{{3}}(?:(?:{_SPACE}|\.)?\d){{9,15}}(?!\w)"
# Length and first digits of the card networks; https://en.wikipedia.org/wiki/Payment_card_number lists them.
_CARD_NUMBER = r"4(?:\d{12}|\d{15}|\d{18})|5\d{15}|2[2-7]\d{14}|3[47]\d{13}|3[0689]\d{12}|35\d{14}|6\d{15,18}"
_IP = (
    r"(?i)(?<![\w\[])(ip(?:v[46])?(?:[ -]?addres+e?)?[ :=(]{1,3})"
    r"((?:\d{1,3}\.){3}\d{1,3}|[\da-f]{0,4}(?::[\da-f]{0,4}){2,7})(?![\w:.]\w)"
)
_REFERENCE = r"""
(?:\b(?:order|ticket|invoice|track(?:ing)?|case|ref(?:erence)?|booking|serial|parcel|shipment|customer|contract|policy
    |account|id|sku|ean|upc|isbn|imei|model|part|article|art\.?-?nr|version|build
    |bestellung|rechnung|auftrag|sendung|artikel|modell|konto|commande|facture|modèle|pedido|factura|modelo|ordine|fattura
    |заказа?|артикул|zamówieni[ea]
    |\w*(?:bestell|rechnungs|auftrags|sendungs|kunden|vertrags|vorgangs|artikel)(?:nummer|nr))
(?:[ ](?:number|no|nr|id|code|n[°º]|№|nº))?[ .:#№]{1,3}
|(?:订单号?|訂單號?|注文番号|주문번호)[ :\uff1a]{0,2})"""
# The Cyrillic letters in it are meant.
_CURRENCY = r"[€$£¥₹₽₺₩₫]|(?:eur|usd|gbp|chf|kr|sek|nok|dkk|ft|huf|zł|pln|kč|czk|vnd|đ|idr|inr|jpy|krw|rub|руб)\b"  # noqa: RUF001
_NO_PHONE = rf"""
    (?:\d{{4}}[./-]\d{{1,2}}[./-]\d{{1,2}} | \d{{1,2}}[./-]\d{{1,2}}[./-](?:\d{{4}}|\d{{2}}))(?![\d./-]*\d)  # a date
    | \d{{1,2}}:\d{{2}}(?::\d{{2}})?(?!\d)                                                         # a time
    | [1-9]\d{{0,2}}(?:[.,']\d{{3}})+(?:[.,]\d{{1,2}})?(?![\d.,]*\d)               # an amount with thousands separators
    | \d{{1,3}}(?:[ \u00a0\u202f]\d{{3}})+(?=[ \u00a0\u202f]?(?:%|{_CURRENCY}))   # an amount with spaces and a currency
    | [1-9]\d{{0,2}}(?:[ \u00a0\u202f]\d{{3}})*(?:[ \u00a0\u202f]000){{2}}(?![ ]?\d)   # millions
    | \d{{1,2}}[/.]\d{{4}}[ ]?[-\u2013][ ]?\d{{1,2}}[/.]\d{{4}}                         # months
    | \d{{1,3}}(?:\.\d{{1,3}}){{3}}(?![\d.]*\d)                                    # a version or an IP address
"""
_GAP = r"[ \t\u00a0\u202f./()-]{0,3}"
_PHONE = rf"""(?ix)
(?P<keep>{_REFERENCE}(?:(?=[\w/-]{{6}})[\w/-]*\d[\w/-]* | \d{{1,5}}(?:[ ]\d{{1,5}}){{1,5}}) | (?<!\w)(?:{_NO_PHONE})
    | (?:(?<!\w)(?:{_CURRENCY}|r\$|rs\.?|rp))[ ]?\d(?:[.,' ]?\d)*)
| (?:
    # Any number after a word that announces one
    (?P<word>(?:\b(?<!\[)(?:phone|t[ée]l|t[ée]l[ée][fp]\w*|mob(?:ile?|il\w*)?|m[óo]vil|cell?(?:ulare?)?|celular|handy|gsm|fax
            |whatsapp|sms|call|ring|dial|anruf\w*|appel\w*|tlf|puh\w*|тел\w*|моб\w*|τηλ\w*|κιν\w*)\b(?!\])
            |电话|手机|電話|携帯|전화|휴대폰|연락처)
        (?:(?!{_REFERENCE})[^\d\n+(\[]){{0,15}})
    (?!{_NO_PHONE})[+(]{{0,2}}\d(?:{_GAP}\d){{6,14}}
    | (?<![\w.,/+\]])(?:
        # International: + or 00, country, number
        (?:[+\uff0b][ (]?|(?:00|011)[ -]?)[1-9](?:{_GAP}\d){{6,14}}
        # With the trunk prefix: 030 1234567, 0170/1234567, (020) 7946 0958, 06 12 34 56 78, 0 532 123 45 67
        | \(?0(?:[ ](?=\d{{3}}[ ]\d{{3}}[ ]))?[1-9](?:{_GAP}\d){{7,10}}
        # Russia: 8 (912) 345-67-89
        | 8[ -]\(?9\d{{2}}\)?[ -]\d{{3}}[ -]?\d{{2}}[ -]?\d{{2}}
        # Brazil: (11) 91234-5678; India: 98765 43210
        | \(?\d{{2}}\)?[ ]9?\d{{4}}-\d{{4}}
        | [6-9]\d{{4}}[ -]\d{{5}}
        # North America: 555-123-4567, 1 (555) 123-4567
        | (?:1[ .-])?\(?[2-9]\d{{2}}\)?[ .-]{{1,2}}\d{{3}}[ .-]\d{{4}}
        # Other countries, in three to five groups: 600 123 456, 91 123 45 67
        | (?<!\d[ -])(?=(?:\d[ -]?){{7,10}}\d(?![ -]?\d))\d{{2,4}}(?:[ -]\d{{2,4}}){{2,4}}
    )
  )(?!\w|[.,:]\d)
"""


def redact(text: str) -> str:
    """Mask e-mail addresses, IBANs, card and phone numbers, and addresses that are called an IP.

    An IBAN and a card number are masked when their checksums hold. A phone number is seven to fifteen digits in
    international form, with a trunk prefix or in groups, or any such number after a word like "phone".
    References, dates, amounts and versions stay.
    """
    text = _pattern(_EMAIL).sub("[email]", text)
    text = _masked(text, _pattern(_IBAN), _is_iban, "[iban]")
    text = _masked(text, _pattern(_CARD), _is_card, "[card]")
    text = _pattern(_IP).sub(lambda found: f"{found[1]}[ip]" if _is_ip(found[2]) else found[0], text)
    return _pattern(_PHONE).sub(lambda found: found[0] if found["keep"] else f"{found['word'] or ''}[phone]", text)


# Compiled at first use: it takes milliseconds, and few runs redact.
@cache
def _pattern(expression: str) -> re.Pattern[str]:
    return re.compile(expression)


def _masked(text: str, candidates: re.Pattern[str], holds: Callable[[str], bool], mask: str) -> str:
    """The text with each candidate masked for which `holds` is true."""
    pieces = []
    position = 0
    while found := candidates.search(text, position):
        candidate = found[0]
        ends = [end for end in range(len(candidate), 12, -1) if not candidate[end : end + 1].isalnum()]
        end = next((end for end in ends if holds(candidate[:end])), 0)
        group = next((at for at, char in enumerate(candidate) if not char.isalnum()), len(candidate))
        pieces += [text[position : found.start()], mask if end else candidate[:group]]
        position = found.start() + (end or group)
    return "".join((*pieces, text[position:]))


def _is_iban(candidate: str) -> bool:
    from stdnum import iban

    # National check digits are left out: they would let a number through that banks accept.
    return candidate.isascii() and bool(iban.is_valid(candidate, check_country=False))


def _is_card(candidate: str) -> bool:
    from stdnum import luhn

    digits = "".join(char for char in candidate if char.isdecimal())
    return _pattern(_CARD_NUMBER).fullmatch(digits) is not None and bool(luhn.is_valid(digits))


def _is_ip(candidate: str) -> bool:
    try:
        ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return True
