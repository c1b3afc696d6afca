"""Physical lines of an input, split before they are decoded, each with its number."""

from __future__ import annotations

from collections.abc import Iterator

from mellea_cli.errors import InputError
from mellea_cli.io.encoding import Encoding, decoded_chunks, undecodable

MAX_ROW_BYTES = 64 << 20
"""The longest row that is read. A longer one is a broken file or a gzip bomb, not feedback."""


class Lines:
    """The lines of an input as `(number, bytes)`, line ends kept.

    A line ends at LF, CR LF or a lone CR, and nowhere else: U+2028 and its kin inside a text do not split it.

    Args:
        chunks: the bytes, without a byte order mark.
        encoding: how a line is decoded.
        path: how messages call the input.
    """

    def __init__(self, chunks: Iterator[bytes], encoding: Encoding, path: str) -> None:
        self.path = path
        if encoding.keeps_ascii:
            self._chunks, self._encoding = chunks, encoding
        else:
            self._chunks = (text.encode() for text in decoded_chunks(chunks, encoding, path))
            self._encoding = Encoding("utf-8")
        self._codec = self._encoding.codec

    def decode(self, number: int, line: bytes) -> str:
        """Turn a line into text.

        Raises:
            InputError: it is not text in the encoding of this input.
        """
        try:
            return line.decode(self._codec)
        except UnicodeDecodeError as error:
            raise undecodable(error, self._encoding, path=self.path, line=number) from error

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        number = 0
        held: list[bytes] = []
        held_bytes = 0
        for chunk in self._chunks:
            if held and not _ends_line(chunk):
                # A long line: collect its pieces instead of copying it again for each of them.
                held.append(chunk)
                held_bytes += len(chunk)
                if held_bytes > MAX_ROW_BYTES:
                    raise too_long(self.path, number + 1)
                continue
            if not chunk:
                continue
            held.append(chunk)
            lines = b"".join(held).splitlines(keepends=True)
            held, held_bytes = [], 0
            # A CR at the very end may be the first half of CR LF: wait for the next byte.
            if not lines[-1].endswith(b"\n"):
                held.append(lines.pop())
                held_bytes = len(held[0])
            for line in lines:
                number += 1
                yield number, line
        for line in b"".join(held).splitlines(keepends=True):
            number += 1
            yield number, line


def _ends_line(chunk: bytes) -> bool:
    return b"\n" in chunk or b"\r" in chunk


def too_long(path: str, line: int, cause: str = "") -> InputError:
    """Word the error for a row above `MAX_ROW_BYTES`."""
    hint = cause or "check that this is the right file and the right --format"
    return InputError(f"a row longer than {MAX_ROW_BYTES >> 20} MB", path=path, line=line, hint=hint)
