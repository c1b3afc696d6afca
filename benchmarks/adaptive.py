"""Where `-c auto` lands, against the best of fixed settings, on servers of different kinds.

    python benchmarks/adaptive.py

One server slows down beyond eight requests at once, one refuses more than twenty-four.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rows import Row, tell
from wire import model_server, summarise

SERVERS = {
    "slower beyond 8": (("--latency", "0.2", "--best", "8"), (4, 6, 8, 12, 16)),
    "429 beyond 24": (("--latency", "0.2", "--most", "24"), (12, 16, 24, 32)),
}
SECONDS = 12
AUTO_ITEMS = 2_400


def rate(folder: Path, url: str, in_flight: int) -> float:
    """Items a second at a fixed setting, over some seconds."""
    items = max(4 * in_flight, int(SECONDS * min(in_flight, 24) / 0.2))
    found = summarise(folder, url, items, "-c", str(in_flight))
    return items / found["elapsed_s"]


def main() -> None:
    """Measure each server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, (arguments, settings) in SERVERS.items():
            with model_server(*arguments) as url:
                rates = {setting: rate(folder, url, setting) for setting in settings}
                auto = summarise(folder, url, AUTO_ITEMS, "--max-concurrency", "64")
                landed = int(auto["concurrency"])
                rates[landed] = max(rates.get(landed, 0.0), rate(folder, url, landed))
            best = max(rates, key=rates.__getitem__)
            shown = ", ".join(f"{setting}: {value:.1f}/s" for setting, value in sorted(rates.items()))
            what = f"{kind}: the setting that -c auto finds / the best fixed one"
            tell(
                Row(
                    "adaptive",
                    what,
                    rates[landed] / rates[best],
                    bar=0.9,
                    at_least=True,
                    note=f"found {landed}; {shown}",
                )
            )
            whole = AUTO_ITEMS / auto["elapsed_s"] / rates[best]
            tell(
                Row(
                    "adaptive",
                    f"{kind}: the run that searches / the best fixed one",
                    whole,
                    note=f"{AUTO_ITEMS:,} items",
                )
            )


if __name__ == "__main__":
    main()
