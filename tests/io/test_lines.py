"""Lines: where they end, wherever the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.io.byte_input import Encoding, Lines

PIECES = st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", "é".encode(), "\u2028".encode(), b"\x0b", b"b" * 40]))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@settings(deadline=None)
@given(PIECES, st.lists(st.integers(0, 10_000)))
def test_lines_do_not_depend_on_how_the_bytes_arrive(pieces: list[bytes], places: list[int]) -> None:
    """LF, CR LF and a lone CR end a line, nothing else does, and cuts anywhere change nothing."""
    data = b"".join(pieces)
    lines = list(Lines(iter(cut(data, places)), Encoding("utf-8"), "in"))
    assert [line for _, line in lines] == data.splitlines(keepends=True)
    assert [number for number, _ in lines] == list(range(1, len(lines) + 1))


@settings(deadline=None)
@given(st.text(st.sampled_from("ab\r\né\u2028\U0001f600")), st.lists(st.integers(0, 10_000)))
def test_wide_encodings_split_at_the_same_places(text: str, places: list[int]) -> None:
    """UTF-16 is split like UTF-8, also when a cut falls inside a character."""
    chunks = iter(cut(text.encode("utf-16-le"), places))
    lines = Lines(chunks, Encoding("utf-16-le"), "in")
    assert [lines.decode(number, line).encode() for number, line in lines] == text.encode().splitlines(keepends=True)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_is_handed_out_before_the_next_bytes_are_asked_for(end: bytes) -> None:
    """A slow writer's line does not wait for the one after it."""

    def slow() -> object:
        yield b"a" + end
        raise AssertionError("asked for more")

    lines = iter(Lines(slow(), Encoding("utf-8"), "in"))  # type: ignore[arg-type] # a generator of bytes
    assert next(lines) == (1, b"a" + end)
