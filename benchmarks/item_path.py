"""Item path: the source files and functions that one more feedback row passes through, over HTTP with one server.

A run of 12 rows is profiled, and a run of 2; what is called more often in the longer run belongs to the path of a row.
The figures show how much a reader has to know to follow a row through the code. They are counts, so they do not depend
on the machine. `tests/test_item_path.py` holds the limits.

    python benchmarks/item_path.py             # the two numbers
    python benchmarks/item_path.py --list      # and every function with its calls per row
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import mellea_cli
from loopback import ModelServer
from mellea_cli.cli.app import app
from mellea_cli.run import control

FEW, MANY = 2, 12
_SOURCE = str(Path(mellea_cli.__file__).parent)
# A comprehension is a part of the function around it; Python 3.11 counts it as a function of its own.
_PARTS_OF_FUNCTIONS = {"<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"}


def profiled(rows: int, folder: Path) -> Counter[CodeType]:
    """Run `mellea summarise` with this many rows; return how often each function of the package was called."""
    source, output = folder / f"{rows}.jsonl", folder / f"{rows}-out.jsonl"
    texts = (f"The parcel {number} came late." for number in range(rows))
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    calls: Counter[CodeType] = Counter()

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_SOURCE):
            calls[frame.f_code] += 1

    server = ModelServer()
    server.start()
    arguments = ["summarise", str(source), "-o", str(output), "-b", "openai", "-m", "test-model", "-q", "-c", "1"]
    # A run looks at its own figures once a second, however many rows there are: that is no part of a row's path.
    control.EVERY_S = 3600.0
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        app([*arguments, "--base-url", server.openai_url], standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        server.stop()
    if len(output.read_bytes().splitlines()) != rows:
        raise RuntimeError(f"the run of {rows} rows was not finished")
    return calls


def item_path() -> Counter[CodeType]:
    """Functions that at least every other row passes, with their calls by the additional rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The first run also imports and caches; it does not count.
        profiled(FEW, folder)
        few = profiled(FEW + 1, folder)
        many = profiled(MANY + 1, folder)
    many.subtract(few)
    # What fewer than half of the rows pass depends on how the answers' pieces arrive.
    half = (MANY - FEW) / 2
    return Counter(
        {code: calls for code, calls in many.items() if calls >= half and code.co_name not in _PARTS_OF_FUNCTIONS}
    )


def main() -> int:
    """Print the two numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print every function")
    arguments = parser.parse_args()
    path = item_path()
    rows = MANY - FEW
    if arguments.list:
        for code in sorted(path, key=lambda code: (code.co_filename, code.co_firstlineno)):
            file = os.path.relpath(code.co_filename, _SOURCE)
            sys.stdout.write(f"{path[code] / rows:6.1f}  {file}:{code.co_firstlineno} {code.co_qualname}\n")
    files = {code.co_filename for code in path}
    sys.stdout.write(f"one row passes {len(files)} files, {len(path)} functions, {path.total() / rows:.0f} calls\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
