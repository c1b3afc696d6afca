"""Files that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mellea_cli.errors import OutputError
from mellea_cli.io.files import atomic_write, resolve_output


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    """All pieces are there, nothing is left beside it."""
    path = tmp_path / "report.html"
    path.write_text("old")
    path.chmod(0o640)
    atomic_write(resolve_output(str(path)), ["é", "", "€" * 100_000])
    assert path.read_text(encoding="utf-8") == "é" + "€" * 100_000
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_what_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    """An error while the pieces are made changes nothing."""
    path = tmp_path / "report.html"
    path.write_text("old")

    def pieces() -> Iterator[str]:
        yield "new" * 100_000
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        atomic_write(resolve_output(str(path)), pieces())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The device that is always full says so as an `OutputError`."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OutputError, match="No space left"):
        atomic_write(resolve_output("/dev/full"), ["x" * 100])


def test_a_folder_cannot_be_written_to(tmp_path: Path) -> None:
    """A directory in the file's place is refused before anything is made."""
    with pytest.raises(OutputError, match="is a directory"):
        atomic_write(resolve_output(str(tmp_path)), ["x"])
