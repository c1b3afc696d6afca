"""A partial file knows what it surely holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_cli.models.download import PartialFile, remove_partial


def test_what_was_appended_is_there_next_time(tmp_path: Path) -> None:
    """A second opening goes on where the first ended."""
    path = tmp_path / "f.partial"
    with PartialFile(path, 6) as partial:
        partial.append(b"abc")
    with PartialFile(path, 6) as partial:
        assert partial.received == 3
        partial.append(b"def")
        assert partial.complete
        partial.move_to(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"abcdef"
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


def test_an_exception_keeps_what_has_arrived(tmp_path: Path) -> None:
    """Even a KeyboardInterrupt leaves a state to go on from."""
    path = tmp_path / "f.partial"

    def interrupted() -> None:
        with PartialFile(path, 6) as partial:
            partial.append(b"abcd")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with PartialFile(path, 6) as partial:
        assert partial.received == 4


@given(there=st.binary(max_size=40), noted=st.integers(-5, 60), size=st.integers(1, 50))
def test_a_torn_tail_is_cut_off(tmp_path_factory: pytest.TempPathFactory, there: bytes, noted: int, size: int) -> None:
    """Whatever a crash left behind: no more is kept than was noted, was written, or can belong to the file."""
    path = tmp_path_factory.mktemp("torn") / "f.partial"
    path.write_bytes(there)
    path.with_name("f.partial.json").write_text(f'{{"kept": {noted}}}')
    with PartialFile(path, size) as partial:
        expected = min(len(there), noted) if 0 <= noted <= size else 0
        assert partial.received == expected
        assert path.read_bytes() == there[:expected]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"kept": "3"}', "null"])
def test_a_broken_note_means_a_new_start(tmp_path: Path, note: str) -> None:
    """Bytes that nobody vouches for are dropped."""
    path = tmp_path / "f.partial"
    path.write_bytes(b"abc")
    path.with_name("f.partial.json").write_text(note)
    with PartialFile(path, 6) as partial:
        assert partial.received == 0


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    """A source cannot fill the disk."""
    with PartialFile(tmp_path / "f.partial", 4) as partial:
        partial.append(b"abc")
        with pytest.raises(ValueError, match="more than the 4 bytes"):
            partial.append(b"de")
        assert partial.received == 3


def test_an_adopted_file_is_linked_and_never_written_to(tmp_path: Path) -> None:
    """Starting over removes our name for the file, not what is in it."""
    whole = tmp_path / "whole"
    whole.write_bytes(b"abcdef")
    with PartialFile(tmp_path / "f.partial", 6) as partial:
        partial.append(b"xx")
        partial.adopt(whole)
        assert partial.complete
        assert partial.path.samefile(whole)
        partial.restart()
        partial.append(b"zz")
    assert whole.read_bytes() == b"abcdef"


def test_a_link_left_by_a_crash_is_not_written_to(tmp_path: Path) -> None:
    """A partial file without a note may share its bytes with a cache: opening it drops the name only."""
    whole = tmp_path / "whole"
    whole.write_bytes(b"abcdef")
    path = tmp_path / "f.partial"
    path.hardlink_to(whole)
    with PartialFile(path, 6) as partial:
        assert partial.received == 0
    assert whole.read_bytes() == b"abcdef"


def test_removing_takes_the_note_too(tmp_path: Path) -> None:
    """Nothing is left, and the bytes are counted."""
    with PartialFile(tmp_path / "f.partial", 6) as partial:
        partial.append(b"abc")
    assert remove_partial(tmp_path / "f.partial") == 3
    assert list(tmp_path.iterdir()) == []
    assert remove_partial(tmp_path / "f.partial") == 0
