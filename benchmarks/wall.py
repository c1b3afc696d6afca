"""How far a run is from the time that the server's latency alone would take.

python benchmarks/wall.py
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from rows import Row, tell
from wire import model_server, summarise

ROUNDS, LATENCY_S, IN_FLIGHT, ITEMS = 3, 0.2, 64, 6_400


def main() -> None:
    """Measure some whole runs."""
    ratios, whole = [], []
    with tempfile.TemporaryDirectory() as name, model_server("--latency", str(LATENCY_S)) as url:
        ideal_s = LATENCY_S * ITEMS / IN_FLIGHT
        for _ in range(ROUNDS):
            found = summarise(Path(name), url, ITEMS, "-c", str(IN_FLIGHT))
            ratios.append(found["elapsed_s"] / ideal_s)
            whole.append(found["wall_s"] / ideal_s)
    what = f"{LATENCY_S * 1000:.0f} ms, {IN_FLIGHT} in flight: wall time of the run / ideal"
    note = f"with the start of the program {statistics.median(whole):.3f}"
    tell(Row("wall", what, statistics.median(ratios), bar=1.08, note=note))


if __name__ == "__main__":
    main()
