"""An answer on a terminal while it arrives: finished blocks are printed once, only the last one is drawn again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import IO

from mellea_cli.ui.chatblocks import Blocks, Piece
from mellea_cli.ui.chatmarkdown import CodeLines, Typesetter
from mellea_cli.ui.screen import Area

_FRAME_S = 0.08
# A drawing that takes long is not repeated at once: this share of the time at most goes into it.
_SHARE = 6
_WAIT_S = 0.5
_WIDEST = 100
_CODE_INDENT = "  "


def unmarked(text: str) -> str:
    """Leave text as it is."""
    return text


class AnswerView:
    """Shows one answer.

    What is finished goes to the terminal's own history and is never written again, so nothing that has scrolled away
    is repainted and a resize finds it whole. The unfinished block stands in a few lines at the bottom, of which only
    its end is seen when it is higher than the terminal.

    Args:
        stream: the terminal.
        environ: the environment, for colours.
        mark: puts marks into a block's text before it is shown.
    """

    def __init__(self, stream: IO[str], environ: Mapping[str, str], *, mark: Callable[[str], str] = unmarked) -> None:
        self._setter = Typesetter(stream, environ)
        self._area = Area(stream)
        self._mark = mark
        self._blocks = Blocks()
        self._code: CodeLines | None = None
        self._done: list[Piece] = []
        self._letters = 0
        self._began = time.monotonic()
        self._next = 0.0
        self._due = False
        self._timer: asyncio.TimerHandle | None = None

    async def show(self, pieces: AsyncIterator[str]) -> None:
        """Show an answer until its pieces end, or raise. Call `finish` then, whatever happened."""
        self._wait()
        async for piece in pieces:
            self.feed(piece)
            self._soon()

    def feed(self, text: str) -> None:
        """Take more of the answer."""
        self._letters += len(text)
        self._done += self._blocks.feed(text)

    @property
    def letters(self) -> int:
        """Letters of the answer that have been taken."""
        return self._letters

    def draw(self) -> None:
        """Bring the terminal up to date."""
        size = self._area.size()
        width = max(1, min(size[0] - 1, _WIDEST))
        above = "".join(f"{line}\r\n" for line in self._settled(width))
        tail = self._tail(width, size[0] - 1)
        self._area.draw(tail[-max(1, size[1] - 2) :], size, above=above)

    def finish(self, ending: str = "") -> None:
        """Print what is left, and how it ended when that is not as it should be."""
        if self._timer is not None:
            self._timer.cancel()
        self._done += self._blocks.end()
        width = max(1, min(self._area.size()[0] - 1, _WIDEST))
        lines = self._settled(width)
        if ending:
            lines.append(self._setter.plain(f"-- {ending} --", "yellow"))
        self._area.close(above="".join(f"{line}\r\n" for line in lines))

    def _settled(self, width: int) -> list[str]:
        """The lines of the pieces that have been finished since the last time."""
        lines: list[str] = []
        done, self._done = self._done, []
        code: list[str] = []
        for piece in done:
            if piece.kind == "code":
                code.append(piece.text)
                continue
            lines += self._code_lines(code)
            code = []
            if piece.gap:
                lines.append("")
            if piece.kind == "open":
                self._code = CodeLines(piece.text, self._setter)
            elif piece.kind == "close":
                self._code = None
            else:
                lines += self._setter.markdown(self._mark(piece.text), width)
        return lines + self._code_lines(code)

    def _code_lines(self, code: list[str]) -> list[str]:
        return [_CODE_INDENT + line for line in self._code.lines(code)] if self._code and code else []

    def _tail(self, width: int, whole: int) -> list[str]:
        """The lines of what is not finished."""
        tail = self._blocks.tail
        if tail is None:
            if self._letters:
                return []
            return [self._setter.plain(f"waiting for the model, {time.monotonic() - self._began:.0f} s", "dim")[:whole]]
        if tail.kind == "code":
            # Its end is what grows; one line is all there is room for.
            room = whole - len(_CODE_INDENT)
            return [_CODE_INDENT + self._code.partial(tail.text.expandtabs(4)[-room:])] if self._code else []
        return [""] * tail.gap + self._setter.markdown(self._mark(tail.text), width)

    def _wait(self) -> None:
        """Show that we wait, until the first piece comes."""
        if not self._letters:
            self.draw()
            self._timer = asyncio.get_running_loop().call_later(_WAIT_S, self._wait)

    def _soon(self) -> None:
        """Draw, but not too often."""
        if self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = True
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._next - time.monotonic()), self._frame)

    def _frame(self) -> None:
        self._due = False
        began = time.monotonic()
        self.draw()
        ended = time.monotonic()
        self._next = ended + max(_FRAME_S, _SHARE * (ended - began))
