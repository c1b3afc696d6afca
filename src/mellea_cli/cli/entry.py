"""Where the command begins: what can be answered without the command line's library is answered first."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_SIGNALLED = (129, 130, 143)


class _Stderr(io.FileIO):
    """Standard error that never fails: a reader that goes away, or a full disk, must not cost the run its results."""

    def write(self, data: Any, /) -> Any:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _secure_streams() -> None:
    """Put something in the place of standard streams that are closed.

    Otherwise the next file that is opened gets the number of one of them, and messages end up in it. The streams of
    `sys.__stdin__` and so on stay `None`, which tells that they were closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open to the end
    if sys.__stderr__ is not None:
        raw = io.BufferedWriter(_Stderr(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, "backslashreplace", line_buffering=True)


def main() -> None:
    """Run `mellea`."""
    _secure_streams()
    if sys.argv[1:] == ["--version"]:
        from mellea_cli import __version__

        sys.stdout.write(f"mellea {__version__}\n")
        return
    from mellea_cli.cli.app import run

    try:
        run()
    except SystemExit as end:
        if end.code in _SIGNALLED:
            # Everything is closed. Threads that wait for a pipe or for a name server would hold the process up.
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(int(end.code))
        raise
