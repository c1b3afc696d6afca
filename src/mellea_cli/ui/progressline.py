"""The one line that says how far the run is, cut to the width there is."""

from __future__ import annotations

from mellea_cli.ui.figures import count, duration, rate, remaining
from mellea_cli.ui.paint import Line, Palette, Role, Span, width
from mellea_cli.ui.progress import Progress

_GAP = 2
_BAR_MOST = 60


def progress_line(progress: Progress, columns: int, palette: Palette, *, paused_s: int = 0) -> Line:
    """Bar, counts, rates, time left, failures; never wider than `columns`.

    What matters least is left out first: an empty count of retries, the rates, at last the bar.

    Args:
        progress: the numbers.
        columns: cells there are.
        palette: signs of the terminal.
        paused_s: seconds for which nothing is sent; shown in place of the time left.
    """
    parts = _parts(progress, paused_s)
    least_bar = 0 if progress.total is None or columns < 24 else 6 if columns < 60 else 8
    while len(parts) > 1 and _taken(parts) + (least_bar + _GAP if least_bar else 0) > columns:
        parts.remove(min(parts, key=lambda part: part[0]))
    line: list[Span] = []
    room = columns - _taken(parts) - _GAP
    if least_bar and room >= least_bar:
        line += _bar(progress, min(room, _BAR_MOST), palette)
    for _, part in parts:
        if line:
            line.append(("plain", " " * _GAP))
        line += part
    return tuple(line) if width(line) <= columns else (("strong", _counts(progress)[:columns]),)


def _taken(parts: list[tuple[int, Line]]) -> int:
    return sum(width(part) for _, part in parts) + _GAP * (len(parts) - 1)


def _counts(progress: Progress) -> str:
    if progress.total is None:
        return f"{count(progress.settled)} done"
    total = count(progress.total)
    return f"{count(progress.settled):>{len(total)}}/{total}"


def _parts(progress: Progress, paused_s: int) -> list[tuple[int, Line]]:
    """What can be shown, in order of place, each with its weight: the lightest is left out first."""
    failed: Role = "bad" if progress.failed else "quiet"
    retried: Role = "warn" if progress.retried else "quiet"
    return [
        (9, (("strong", _counts(progress)),)),
        (5, (("plain", f"{rate(progress.items_per_s):>3}"), ("quiet", " items/s"))),
        (4, (("plain", f"{rate(progress.tokens_per_s):>3}"), ("quiet", " tok/s"))),
        (8, _time(progress, paused_s)),
        (7 if progress.failed else 2, ((failed, f"{count(progress.failed)} failed"),)),
        (3 if progress.retried else 1, ((retried, f"{count(progress.retried)} retried"),)),
    ]


def _time(progress: Progress, paused_s: int) -> Line:
    if paused_s:
        return (("warn", f"paused {remaining(paused_s)}"),)
    if progress.left_s is None:
        return (("plain", duration(float(int(progress.elapsed_s))).replace(".0s", "s")), ("quiet", " so far"))
    return (("plain", remaining(progress.left_s)), ("quiet", " left"))


def _bar(progress: Progress, cells: int, palette: Palette) -> Line:
    glyphs, total = palette.glyphs, max(1, progress.total or 0)
    filled = min(cells, int(cells * progress.settled / total))
    failed = min(filled, max(1, round(cells * progress.failed / total))) if progress.failed else 0
    end = 1 if 0 < progress.settled < total and filled < cells else 0
    return (
        ("done", glyphs.bar * (filled - failed)),
        ("bad", glyphs.bar * failed),
        ("done", glyphs.bar_end * end),
        ("rest", glyphs.bar_rest * (cells - filled - end)),
    )
