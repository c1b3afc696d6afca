"""Everything a chat prints that is not an answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import IO

from mellea_cli.ui.chatanswer import AnswerView
from mellea_cli.ui.console import make_console, print_table, say_error
from mellea_cli.ui.keys import Unechoed
from mellea_cli.ui.paint import Palette, Role, wrap
from mellea_cli.ui.plaintext import clean

_LONGEST_COPY = 100_000


class ChatScreen:
    """The terminal of a chat.

    Args:
        stream: the terminal.
        environ: the environment, for colours.
    """

    def __init__(self, stream: IO[str], environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._environ = environ
        self._palette = Palette(make_console(stream, environ))

    def note(self, text: str) -> None:
        """Say one line that nobody need act upon."""
        for line in wrap(clean(text), max(20, make_console(self._stream, self._environ).width - 1)):
            self._line("quiet", line)

    def blank(self) -> None:
        """Print an empty line."""
        self._line("plain", "")

    def error(self, message: str, hint: str) -> None:
        """Say what went wrong and what to do."""
        say_error(self._stream, self._environ, message, hint)

    def table(self, rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> None:
        """Print rows."""
        print_table(rows, headers=headers, stream=self._stream, environ=self._environ)

    def turn(self, question: str, answer: str, ending: str = "") -> None:
        """Print a turn of earlier."""
        for number, line in enumerate(clean(question, one_line=False).split("\n")):
            self._line("strong", f"{'  ' if number else '> '}{line}")
        view = AnswerView(self._stream, self._environ)
        view.feed(answer)
        view.finish(ending)
        self.blank()

    def copy(self, text: str) -> bool:
        """Put text on the clipboard, through the terminal; `False` when it is too long for that."""
        code = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
        if len(code) > _LONGEST_COPY:
            return False
        self._stream.write(f"\x1b]52;c;{code}\x07")
        self._stream.flush()
        return True

    def silent_keys(self, keyboard: IO[str]) -> Unechoed:
        """Keeps keys that are pressed during an answer from being shown; they wait for the prompt."""
        return Unechoed(keyboard)

    def _line(self, role: Role, text: str) -> None:
        self._stream.write(self._palette.ansi(((role, self._palette.fit(text)),)) + "\n")
        self._stream.flush()
