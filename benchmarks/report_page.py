# ruff: noqa: T201 - it prints what it found
"""How long the report page takes in a real browser with many rows, and how large it is.

    python benchmarks/report_page.py               # needs the dev extra, chromium and chromium-driver
    python benchmarks/report_page.py --rows 5000

Prints the time to read and count the rows and to write the page, its size, and then what the browser says itself, each
the median of five: `load` from the start of the navigation until the first rows stand there and have been laid out,
`search`, `filter` and `sort` from the event to the new rows laid out. Waiting until somebody has stopped typing
(120 ms) is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rows import Row, tell

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from browser.chromium import Browser, browser, missing  # noqa: E402 - found through the line above
from resultrows import make_page, result_rows  # noqa: E402 - as above

RUNS = 5
# The page updates inside the event: when dispatchEvent returns, the rows are there, and reading a height lays them out.
_CHANGE = """
const [id, value] = arguments, control = document.getElementById(id);
control.value = value;
const start = performance.now();
control.dispatchEvent(new Event('change'));
document.body.getBoundingClientRect();
return performance.now() - start;
"""
_SEARCH = """
const [words, done] = arguments, field = document.getElementById('search'), hits = document.getElementById('hits');
field.value = words;
const start = performance.now();
new MutationObserver((_, observer) => {
  observer.disconnect();
  document.body.getBoundingClientRect();
  done(performance.now() - start - 120);
}).observe(hits, { childList: true });
field.dispatchEvent(new Event('input'));
"""
_LOADED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=20_000)
    count = parser.parse_args().rows
    if why := missing():
        print(f"skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = result_rows(count, themed=True)
        start = time.perf_counter()
        path = Path(folder) / "report.html"
        path.write_text(make_page(Path(folder), rows, by=("channel",)), encoding="utf-8")
        note = f"{path.stat().st_size / 1e6:.1f} MB"
        tell(Row("report", f"{count:,} rows: writing the page", time.perf_counter() - start, "s", note=note))
        with browser(Path(folder) / "profile") as page:
            measure(page, path)
    return 0


def measure(page: Browser, path: Path) -> None:
    """Print the times of one page."""
    loads = []
    for _ in range(RUNS):
        page.show(path)
        loads.append(float(page.run(_LOADED)))
    say("loading it", loads)
    first = float(page.driver.execute_async_script(_SEARCH, "crashes leaving"))
    say("the first search, which makes the index", [first])
    say("a search", [float(page.driver.execute_async_script(_SEARCH, f"case {number}")) for number in range(RUNS)])
    page.driver.execute_async_script(_SEARCH, "")
    say("a filter", [float(page.run(_CHANGE, "filter-sentiment", str(number % 3))) for number in range(RUNS)])
    page.run(_CHANGE, "filter-sentiment", "")
    say("a sort", [float(page.run(_CHANGE, "sort", ("id", "date", "urgency")[number % 3])) for number in range(RUNS)])


def say(what: str, milliseconds: list[float]) -> None:
    """Tell the median and the worst."""
    worst = f"{max(milliseconds):.0f} ms at worst of {len(milliseconds)}"
    tell(Row("report", what, statistics.median(milliseconds), "ms", note=worst))


if __name__ == "__main__":
    raise SystemExit(main())
