"""Files of batch requests: private, whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mellea_cli.errors import InputError, OutputError
from mellea_cli.io.batch_jobs import BatchFile, custom_id, is_ours, reply_lines


def test_an_id_says_which_answer_and_which_step() -> None:
    """The journal key in hex and the step, within the 64 characters that servers allow; others are not taken for it."""
    name = custom_id(bytes(range(16)), "analysis")
    assert name == "000102030405060708090a0b0c0d0e0f-analysis"
    assert is_ours(name)
    assert len(custom_id(b"x" * 16, "s" * 31)) == 64
    assert not any(is_ours(other) for other in ("request-1", name.upper(), name + "\n", "-analysis", ""))


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask says, and also where one of that name stood before."""
    path = tmp_path / "b.jsonl"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        file = BatchFile(path)
    finally:
        os.umask(before)
    file.add("a", b"{}\n")
    file.finish()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"{}\n"
    assert (file.custom_ids, file.size) == (["a"], 3)


def test_a_file_that_is_not_finished_goes(tmp_path: Path) -> None:
    """Nothing half-written stays behind."""
    with BatchFile(tmp_path / "b.jsonl") as file:
        file.add("a", b"{}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A file elsewhere is not written over through a link with the right name."""
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "b.jsonl").symlink_to(target)
    file = BatchFile(tmp_path / "b.jsonl")
    file.add("a", b"{}\n")
    file.finish()
    assert target.read_text() == "precious"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With the file's name."""
    with pytest.raises(OutputError, match=r"b\.jsonl"):
        BatchFile(tmp_path / "nowhere" / "b.jsonl")


def test_replies_are_read_line_by_line(tmp_path: Path) -> None:
    """Blank lines are passed over, the last one needs no end, and a missing file is an input error."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"b": 2}')
    assert list(reply_lines(path)) == [(1, b'{"a": 1}\n'), (3, b'{"b": 2}')]
    with pytest.raises(InputError, match="cannot be read"):
        list(reply_lines(tmp_path / "nowhere"))
