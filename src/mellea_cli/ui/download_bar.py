"""Progress of a model download: a bar at a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Self

from mellea_cli.models.download import Progress
from mellea_cli.ui.console import make_console, say
from mellea_cli.ui.run_display import choose_display

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


_LINE_INTERVAL_S = 10.0
# What is faster than this needs no bar: hashing a small file, or finding that nothing is to be done.
_SILENT_S = 0.4


class Download:
    """Shows the progress of a download of `label`; call it with each `Progress`. A context manager."""

    def __init__(self, stream: IO[str], environ: Mapping[str, str], *, label: str = "") -> None:
        self._stream = stream
        self._live = choose_display(stream, environ) == "live"
        self._environ = environ
        self._label = label
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        source = f" from {progress.source}" if progress.source else ""
        self.at(f"{progress.phase}{source}", progress.done, progress.total)

    def at(self, status: str, done: int | None, total: int | None) -> None:
        """Show the progress in bytes; `None` where unknown."""
        now = time.monotonic()
        if now - self._started < _SILENT_S:
            return
        text = f"{self._label} {status}".strip()
        if self._live:
            if self._bar is None or self._task is None:
                self._bar = self._make_bar()
                self._bar.start()
                self._task = self._bar.add_task("", total=total)
            self._bar.update(self._task, description=text, completed=done or 0, total=total)
        elif now - self._last_line >= _LINE_INTERVAL_S:
            self._last_line = now
            share = f" {done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if done is not None and total else ""
            say(self._stream, text + share)

    def _make_bar(self) -> RichProgress:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        return RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=make_console(self._stream, self._environ),
            transient=True,
        )
