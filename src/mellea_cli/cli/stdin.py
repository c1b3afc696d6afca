"""Whether standard input is meant to be read."""

from __future__ import annotations

import os
import stat
import sys


def stdin_has_data() -> bool:
    """Whether stdin is a pipe, a socket or a file.

    A terminal is not: somebody would wait for a program that waits for them. Neither is a closed stdin or /dev/null,
    which is what cron and many supervisors give; there a file has to be named.
    """
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def stdin_is_terminal() -> bool:
    """Whether somebody sits at the other end of stdin."""
    try:
        return sys.stdin.isatty()
    except (ValueError, AttributeError):
        return False
