"""Asks for what must not be seen."""

from __future__ import annotations

import sys
from typing import TextIO

from mellea_cli.ui.plaintext import clean


def ask_secret(question: str, stream: TextIO) -> str:
    """Ask at the terminal, without showing what is typed.

    Args:
        question: what to ask, one line.
        stream: where the question goes.

    Returns:
        What was typed; empty for nothing, also where nobody can be asked.
    """
    if not (sys.stdin.isatty() and stream.isatty()):
        return ""
    import getpass

    try:
        return getpass.getpass(f"{clean(question)} ", stream=stream).strip()
    except EOFError:
        return ""
