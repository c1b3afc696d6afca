"""A wrong model file is named before a server tries to load it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mellea_cli.errors import ModelFileError
from mellea_cli.models.store import check_gguf, is_path

HEADER = struct.pack("<4sIQQ", b"GGUF", 3, 2, 5)


def test_a_gguf_header_is_enough(tmp_path: Path) -> None:
    """The path comes back when the file starts like a model."""
    path = tmp_path / "a.gguf"
    path.write_bytes(HEADER + b"rest")
    assert check_gguf(path) == path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04 some archive of some length", "not a GGUF"),
        (b"<html>not found</html>", "not a GGUF"),
        (b"", "cut off"),
        (b"GG", "cut off"),
        (HEADER[:20], "cut off"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 5), "no tensors"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """Other formats, empty and cut files have their own sentences."""
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=reason) as caught:
        check_gguf(path)
    assert str(path) in caught.value.message


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder is called one."""
    with pytest.raises(ModelFileError, match="is a folder"):
        check_gguf(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error has the path, the hint a command."""
    with pytest.raises(ModelFileError, match=r"no model file at .*gone\.gguf") as caught:
        check_gguf(tmp_path / "gone.gguf")
    assert "mellea models list" in caught.value.hint


@pytest.mark.parametrize(
    ("word", "path"),
    [("smollm2-135m", False), ("model.gguf", True), ("MODEL.GGUF", True), ("./smollm2-135m", True), ("a/b", True)],
)
def test_a_path_is_told_from_a_name(word: str, *, path: bool) -> None:
    """A slash or the suffix makes a path."""
    assert is_path(word) is path
