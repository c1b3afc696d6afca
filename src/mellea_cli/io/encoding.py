"""From bytes to text: which encoding it is, and what to say when it is not."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

from mellea_cli.errors import InputError, UsageError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)
_GUESSES = ("cp1252", "latin-1")
_SNIPPET = 20


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the bytes of an input become text."""

    codec: str
    """Python's name of the codec."""
    mark: int = 0
    """Bytes of the byte order mark, which are no part of the text."""

    @property
    def keeps_ascii(self) -> bool:
        """Whether line ends are the same bytes as in ASCII, so that lines can be split before they are decoded."""
        return "\r\n".encode(self.codec) == b"\r\n"


def known_codec(name: str) -> str:
    """Return Python's own name for an encoding.

    Raises:
        UsageError: there is no text encoding of this name.
    """
    try:
        "".encode(name)  # refuses codecs that are not about text, such as base64
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        hint = "common ones are utf-8, utf-16, cp1252 and latin-1"
        raise UsageError(f"unknown encoding: {name!r}", hint=hint) from error


def choose_encoding(head: bytes, wanted: str | None, path: str) -> Encoding:
    """Settle the encoding from the first bytes and the user's word.

    Raises:
        UsageError: as `known_codec` does.
        InputError: the first bytes contradict the user, or look like UTF-16 that does not say so.
    """
    mark = next((entry for entry in _MARKS if head.startswith(entry[0])), None)
    if wanted is not None:
        codec = known_codec(wanted)
        if mark is None:
            return Encoding(codec)
        if not codec.startswith("utf"):
            raise InputError(
                f"starts with a {mark[2]} byte order mark, but --encoding says {wanted}",
                path=path,
                hint="leave --encoding out",
            )
        return Encoding(codec if codec.startswith("utf-7") else mark[1], len(mark[0]))
    if mark is not None:
        return Encoding(mark[1], len(mark[0]))
    if hidden := _unmarked_utf16(head):
        raise InputError("looks like UTF-16 without a byte order mark", path=path, hint=f"say --encoding {hidden}")
    return Encoding("utf-8")


def undecodable(error: UnicodeDecodeError, encoding: Encoding, *, path: str, line: int) -> InputError:
    """Word the error for bytes that are not text in the encoding that was expected."""
    data: bytes = error.object
    bad = data[error.start : max(error.end, error.start + 1)][:4]
    hint = "say what it is with --encoding NAME"
    for guess in _GUESSES:
        around = data[max(0, error.start - _SNIPPET) : error.start + _SNIPPET]
        if guess != encoding.codec and (text := _decodes(data, around, guess)) is not None:
            hint = f"say --encoding {guess} if this reads right: {text}"
            break
    shown = f"byte 0x{bad.hex()}" if len(bad) == 1 else f"bytes 0x{bad.hex(' ').replace(' ', ' 0x')}"
    return InputError(f"{shown}: not {encoding.codec.upper()} text", path=path, line=line, hint=hint)


def decoded_chunks(chunks: Iterator[bytes], encoding: Encoding, path: str) -> Iterator[str]:
    """Decode a stream piece by piece, without waiting for line ends.

    Raises:
        InputError: bytes that are not text in this encoding, with their line.
    """
    decoder = codecs.getincrementaldecoder(encoding.codec)("strict")
    place = LineCounter()
    try:
        for piece in chunks:
            text = decoder.decode(piece)
            place.pass_over(text, 0, len(text))
            if text:
                yield text
        if rest := decoder.decode(b"", final=True):
            yield rest
    except UnicodeDecodeError as error:
        text = error.object[: error.start].decode(encoding.codec, "replace")
        place.pass_over(text, 0, len(text))
        if text:
            # What stands before it counts all the same, however much of it has arrived at once.
            yield text
        raise undecodable(error, encoding, path=path, line=place.line) from error


class LineCounter:
    """Counts line ends (LF, CR LF or a lone CR) in text that comes in pieces; a CR LF may be cut in two."""

    __slots__ = ("_after_cr", "column", "line")

    def __init__(self) -> None:
        self.line = 1
        """The line on which the text goes on."""
        self.column = 1
        """The column there, in characters."""
        self._after_cr = False

    def pass_over(self, text: str, start: int, end: int) -> None:
        """Count the line ends in `text[start:end]`, which follows on what was counted before."""
        if start >= end:
            return
        self.line += text.count("\n", start, end)
        if self._after_cr and text[start] == "\n":
            self.line -= 1
        if returns := text.count("\r", start, end):
            self.line += returns - text.count("\r\n", start, end)
        self._after_cr = text[end - 1] == "\r"
        last = max(text.rfind("\n", start, end), text.rfind("\r", start, end))
        self.column = end - last if last >= start else self.column + end - start


def _unmarked_utf16(head: bytes) -> str:
    """Name the UTF-16 that mostly Latin text without a byte order mark is in; empty when it is not UTF-16."""
    sample = head[:512]
    if len(sample) < 4:
        return ""
    half = len(sample) // 2
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > half * 0.6 and even < half * 0.1:
        return "utf-16-le"
    if even > half * 0.6 and odd < half * 0.1:
        return "utf-16-be"
    return ""


def _decodes(data: bytes, around: bytes, codec: str) -> str | None:
    try:
        data.decode(codec)
        text = around.decode(codec)
    except UnicodeDecodeError:
        return None
    return "".join(char if char.isprintable() else " " for char in text).strip()
