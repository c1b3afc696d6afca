"""Any bytes at all, read as any format: items or one-line errors, and the same ones however the bytes arrive."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mellea_cli.errors import InputError, MelleaError
from mellea_cli.io.source import SourceOptions, open_source

ASSETS = Path(__file__).parent.parent / "assets" / "input"

_FORMATS = (None, "jsonl", "json", "csv", "tsv")
_ENCODINGS = (None, None, "cp1252", "utf-16-le", "gb18030", "shift_jis", "utf-8-sig", "utf-7")
_DELIMITERS = (None, None, ",", ";", "tab", "|", "'", "é")
_HEAD = 3


class Drip(io.BytesIO):
    """Bytes that arrive in small pieces."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read1(self, size: int | None = -1, /) -> bytes:
        """Give the next few bytes."""
        wanted = self._size if size is None or size < 0 else min(size, self._size)
        return self.read(wanted)


@dataclass
class Outcome:
    """The result of reading one input."""

    items: list[tuple[Any, ...]]
    bad: list[tuple[str, int | None]]
    refused: str = ""


def _message(error: MelleaError) -> str:
    if "\n" in error.message or "\n" in error.hint:
        raise AssertionError(f"more than one line: {error.message!r}")
    return error.message


def read(data: bytes, options: SourceOptions, piece: int) -> Outcome:
    """Read `data`, arriving `piece` bytes at a time."""
    outcome = Outcome([], [])

    def report(error: InputError) -> None:
        if error.line is not None and error.line < 1:
            raise AssertionError(f"line {error.line}: {error.message}")
        outcome.bad.append((_message(error), error.line))

    try:
        with open_source("-", options, report=report, stream=Drip(data, piece)) as source:
            for item in source:
                item.text.encode("utf-8", "surrogatepass")
                outcome.items.append((item.position, item.id, item.text, repr(dict(item.fields)), item.line))
    except MelleaError as error:
        outcome.refused = _message(error)
    return outcome


def fuzz(data: bytes) -> None:
    """One input: its first bytes choose how the rest is read."""
    head, body = data[:_HEAD].ljust(_HEAD, b"\0"), data[_HEAD:]
    skip: Literal["skip"] = "skip"
    options = SourceOptions(
        format=_FORMATS[head[0] % 5],
        text_field=None if head[0] & 0x40 else "text",
        encoding=_ENCODINGS[head[1] % 8],
        delimiter=_DELIMITERS[head[1] >> 5],
        sample=2 if head[2] & 0x40 else None,
        on_bad_row=skip,
    )
    packed = bool(head[0] & 0x80) or body.startswith(b"\x1f\x8b")
    if head[0] & 0x80:
        body = gzip.compress(body, 1, mtime=0)
        # Sometimes the file is cut off.
        body = body[: len(body) * head[2] // 255] if head[0] & 0x20 else body
    whole = read(body, options, 1 << 16)
    if [one[0] for one in whole.items] != list(range(len(whole.items))):
        raise AssertionError(f"positions: {[one[0] for one in whole.items]}")
    pieces = read(body, options, 1 + head[2] % 32)
    if whole != pieces and not (_guessed(options, whole, pieces) or (packed and _broke_off(whole, pieces))):
        raise AssertionError(f"in pieces it reads otherwise: {whole} {pieces}")
    strict = read(body, replace(options, on_bad_row="fail", sample=None), 1 << 16)
    if bool(strict.refused) != bool(whole.refused or whole.bad):
        raise AssertionError(f"fail and skip disagree on what is bad: {strict} {whole}")


def _broke_off(one: Outcome, other: Outcome) -> bool:
    """Whether both ended early: a broken gzip file yields more when it arrives in smaller pieces."""
    return bool(one.refused and other.refused)


def _guessed(options: SourceOptions, *outcomes: Outcome) -> bool:
    """Whether the first bytes decided on the format: a slow pipe has not sent enough to decide alike."""
    sniffed = options.format is None or (options.format in ("csv", "tsv") and options.delimiter is None)
    return sniffed or any(
        word in one.refused for one in outcomes for word in ("look like text", ", not text", "UTF-16")
    )


def seeds() -> list[bytes]:
    """The odd files of the readers' tests, each as it is and under its own format."""
    found = []
    for path in sorted(ASSETS.iterdir()):
        data = path.read_bytes()[:20_000]
        form = {".jsonl": 1, ".json": 2, ".csv": 3, ".tsv": 4}.get(path.suffix, 0)
        found += [b"\0\0\3" + data, bytes((form | 0x40, 0, 1)) + data, bytes((form | 0x80, 0, 9)) + data]
    return found
