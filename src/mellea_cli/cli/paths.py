"""The files of one run, and that none of them is in the way of another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from mellea_cli.cli.flags import Flags


def check_paths(flags: Flags) -> None:
    """Refuse a run that would write over its own input, or write two things into one file.

    Raises:
        UsageError: two of the files are one.
        OutputError: the summary could not be written in the end.
    """
    seen: dict[str, str] = {}
    for role, paths in _files(flags):
        for path in paths:
            real = os.path.realpath(path)
            if (other := seen.setdefault(real, role)) != role:
                raise UsageError(f"{path}: is {other} and {role} at once", hint="choose another file for one of them")
    if flags.summary_file:
        _check_writable(Path(flags.summary_file))


def _files(flags: Flags) -> Iterator[tuple[str, list[Path]]]:
    """Each role that a file plays in the run, with the files that go with it."""
    if flags.input != "-":
        yield "the input", [Path(flags.input)]
    for role, name in (("the output", flags.output), ("the errors file", flags.errors_file)):
        if name:
            yield role, _with_companions(name)
    for role, name in (("the export file", flags.export_batch), ("the import file", flags.import_batch)):
        if name:
            yield role, [Path(name)]
    for role, name in (("the summary file", flags.summary_file), ("the log file", flags.log_file)):
        if name:
            yield role, [Path(name)]


def _with_companions(output: str) -> list[Path]:
    """An output file and what grows beside it; nothing for stdout and devices, which may serve twice."""
    from mellea_cli.io.target import resolve_output

    target = resolve_output(output)
    if target.kind != "file":
        return []
    return [target.path, target.partial, target.fresh, target.journal, target.lock]


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path}: is a directory", hint="name a file inside it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}", hint=f"make it first: mkdir -p {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{path}: cannot be written", hint="choose another file for --summary-file")
