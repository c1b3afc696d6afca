"""Input bytes: gzip however it is cut, read errors named, a second reading."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mellea_cli.errors import InputError
from mellea_cli.io.byte_input import ByteInput, open_bytes


class Dribble(io.RawIOBase):
    """A stream that gives its bytes in pieces of a chosen size."""

    def __init__(self, data: bytes, size: int) -> None:
        self._rest = data
        self._size = size

    def read(self, size: int = -1) -> bytes:
        piece, self._rest = self._rest[: self._size], self._rest[self._size :]
        return piece


def read(data: bytes, size: int = 1 << 16) -> bytes:
    return b"".join(ByteInput("in", stream=Dribble(data, size)).chunks())  # type: ignore[arg-type] # all that is used


@settings(deadline=None)
@given(st.lists(st.binary(max_size=2000), max_size=4), st.integers(1, 64), st.integers(0, 40))
def test_gzip_members_come_out_whole_however_they_arrive(members: list[bytes], size: int, padding: int) -> None:
    """Several members, NUL padding and tiny reads make no difference."""
    packed = b"".join(gzip.compress(member) for member in members) + (bytes(padding) if members else b"")
    assert read(packed, size) == b"".join(members)


def test_highly_packed_data_come_in_bounded_pieces() -> None:
    """A bomb is handed out piece by piece."""
    data = ByteInput("in", stream=Dribble(gzip.compress(bytes(50 << 20)), 1 << 16))  # type: ignore[arg-type] # as above
    sizes = [len(piece) for piece in data.chunks()]
    assert sum(sizes) == data.delivered == 50 << 20
    assert max(sizes) <= 1 << 16


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(0, 10_000))
def test_cut_gzip_is_always_noticed(content: bytes, place: int) -> None:
    """Wherever it is cut behind its magic bytes, the end is missed."""
    packed = gzip.compress(content)
    keep = 2 + place % (len(packed) - 2)
    with pytest.raises(InputError, match="gzip data end too early"):
        read(packed[:keep])


@pytest.mark.parametrize("data", [b"", b"\x1f", b"a", b"ab", b"plain text"])
def test_short_and_plain_inputs_pass_through(data: bytes) -> None:
    """Fewer bytes than a magic number are data like any other."""
    assert read(data, 1) == data


def test_regular_file_is_read_again_from_the_start(tmp_path: Path) -> None:
    """Twice the same bytes, also after half a reading; its signature changes with its content."""
    content = random.Random(1).randbytes(300_000)  # noqa: S311 - repeatable, not secret
    path = tmp_path / "in"
    path.write_bytes(content)
    data = open_bytes(str(path))
    next(data.chunks())
    data.rewind()
    assert b"".join(data.chunks()) == content
    data.rewind()
    assert b"".join(data.chunks()) == content
    assert data.size == len(content)
    before = data.signature()
    assert before == data.signature()
    path.write_bytes(b"other")
    assert data.signature() != before
    data.close()
    data.close()


def test_read_error_is_named() -> None:
    """What the system says while reading ends up in one line with the name."""
    with pytest.raises(InputError, match="/proc/self/mem: cannot be read: Input/output error"):
        list(open_bytes("/proc/self/mem").chunks())
