"""Output targets: files, standard output, devices, and what lies beside a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mellea_cli.errors import ExitCode, OutputError, ReaderGone
from mellea_cli.io.files import output_error, resolve_output, same_file


@pytest.mark.parametrize("output", [None, "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_every_name_of_standard_output_means_it(output: str | None) -> None:
    """Nothing is ever renamed onto what standard output happens to be."""
    assert resolve_output(output).kind == "stdout"


@pytest.mark.parametrize("output", ["/dev/null", "/dev/full", "/dev/stderr", "/dev/fd/2"])
def test_devices_are_written_as_they_are(output: str) -> None:
    """A device is not a file that could be replaced."""
    assert resolve_output(output).kind == "special"


def test_pipe_is_special_and_a_new_name_is_a_file(tmp_path: Path) -> None:
    """A named pipe is written into; a missing file will be made, with its companions beside it."""
    os.mkfifo(tmp_path / "pipe")
    assert resolve_output(str(tmp_path / "pipe")).kind == "special"
    target = resolve_output(str(tmp_path / "out.jsonl"))
    assert target.kind == "file"
    assert [path.name for path in (target.partial, target.journal, target.lock, target.fresh)] == [
        "out.jsonl.partial", "out.jsonl.journal", "out.jsonl.lock", "out.jsonl.new",
    ]  # fmt: skip


def test_link_leads_to_its_file(tmp_path: Path) -> None:
    """Both names of one output have one journal and one lock; a dangling link is fine."""
    (tmp_path / "far").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "far" / "out.csv")
    target = resolve_output(str(tmp_path / "link.csv"))
    assert (target.kind, target.path) == ("file", (tmp_path / "far" / "out.csv").resolve())
    assert target.name.endswith("link.csv")


@pytest.mark.parametrize(
    ("name", "words"), [("", "is a directory"), ("new/", "is a directory"), ("no/out", "no folder")]
)
def test_impossible_outputs_are_refused(tmp_path: Path, name: str, words: str) -> None:
    """A directory, and a file in a folder that is not there, with the next step."""
    with pytest.raises(OutputError, match=words) as caught:
        resolve_output(f"{tmp_path}/{name}")
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.CANNOT_WRITE


def test_name_with_a_nul_is_refused() -> None:
    """What no system takes as a name is one clear line."""
    with pytest.raises(OutputError, match="not a file name"):
        resolve_output("a\0b")


def test_same_file_sees_through_links_and_spellings(tmp_path: Path) -> None:
    """Hard links, symbolic links and dots are one file; different files are not, missing ones compare by name."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("a")
    (tmp_path / "hard").hardlink_to(one)
    (tmp_path / "soft").symlink_to(one)
    assert same_file(str(one), str(tmp_path / "hard"))
    assert same_file(str(one), str(tmp_path / "soft"))
    assert same_file(str(one), f"{tmp_path}/./one")
    assert not same_file(str(one), str(two))
    assert same_file(f"{tmp_path}/new", f"{tmp_path}/x/../new")
    assert not same_file(f"{tmp_path}/new", str(one))


def test_errors_name_file_reason_and_way_out() -> None:
    """A full disk and a gone reader are told apart."""
    full = output_error("out.csv", OSError(errno.ENOSPC, "No space left on device"))
    assert str(full) == "out.csv: cannot be written: No space left on device"
    assert "same command again" in full.hint
    gone = output_error("<stdout>", BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert isinstance(gone, ReaderGone)
    assert gone.exit_code is ExitCode.READER_GONE
