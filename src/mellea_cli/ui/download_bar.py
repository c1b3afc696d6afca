"""How far the download of a model is: a bar at a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from mellea_cli.models.download import Progress
from mellea_cli.ui.console import choose_display, make_console, say

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


_EVERY_S = 10.0
# What takes less long than this needs no bar: hashing a small file, or finding that nothing is to be done.
_SILENT_S = 0.4


class Download:
    """Shows the progress of a pull; call it with each `Progress`. A context manager.

    Args:
        stream: where to show it, usually stderr.
        environ: the environment, for what the terminal can do.
        label: what is fetched, for sources that do not say.
    """

    def __init__(self, stream: IO[str], environ: Mapping[str, str], *, label: str = "") -> None:
        self._stream = stream
        self._live = choose_display(stream=stream, environ=environ, quiet=False, no_live=False) == "live"
        self._environ = environ
        self._label = label
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._told = self._began

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far the model store is."""
        source = f" from {progress.source}" if progress.source else ""
        self.at(f"{progress.phase}{source}", progress.done, progress.total)

    def at(self, status: str, done: int | None, total: int | None) -> None:
        """Show how far it is, in bytes; `None` where nobody knows."""
        now = time.monotonic()
        if now - self._began < _SILENT_S:
            return
        if self._live:
            self._draw(status, done, total)
        elif now - self._told >= _EVERY_S:
            self._told = now
            share = f" {done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if done is not None and total else ""
            say(self._stream, f"{self._label} {status}{share}".strip())

    def _draw(self, status: str, done: int | None, total: int | None) -> None:
        if self._bar is None or self._task is None:
            self._bar = self._new_bar()
            self._bar.start()
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, description=f"{self._label} {status}".strip(), completed=done or 0, total=total)

    def _new_bar(self) -> Bar:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        return Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=make_console(self._stream, self._environ),
            transient=True,
        )
