"""Where the command begins: what can be answered without the command line's library is answered first."""

from __future__ import annotations

import io
import os
import sys


class _Stderr(io.FileIO):
    """Standard error that never fails: a reader that goes away, or a full disk, must not cost the run its results."""

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]  # it is only given bytes
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
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
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

    run()
