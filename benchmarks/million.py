# ruff: noqa: S603 - it starts the program
"""A million rows, with the journal on: memory compared with a thousand rows, rows a second, and the journal's size.

python benchmarks/million.py --rows 1000000
python benchmarks/million.py --rows 1000000 --format parquet
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import Row, tell
from wire import write_items

MB = 1e6


# Arrow's library is large, so another process has it.
WRITE_PARQUET = """
import sys, pyarrow.json, pyarrow.parquet
lines = pyarrow.json.open_json(sys.argv[1])
with pyarrow.parquet.ParquetWriter(sys.argv[2], lines.schema) as writer:
    for batch in lines:
        writer.write_batch(batch)
"""
COUNT_PARQUET = "import sys, pyarrow.parquet; print(pyarrow.parquet.read_metadata(sys.argv[1]).num_rows)"


def run(folder: Path, rows: int, form: str) -> tuple[float, float, int]:
    """Summarise so many rows with the scripted backend; return seconds, peak memory in MB, and the journal's bytes.

    The peak that the system tells includes that of this process at the time of the start: it must stay small itself.
    """
    source, output = folder / f"in-{rows}.jsonl", folder / f"out-{rows}.{form}"
    write_items(source, rows)
    if form == "parquet":
        lines, source = source, source.with_suffix(".parquet")
        subprocess.run([sys.executable, "-c", WRITE_PARQUET, str(lines), str(source)], check=True)
    command = [sys.executable, "-m", "mellea_cli", "summarise", str(source), "-o", str(output), "-b", "scripted", "-q"]
    began = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if form == "parquet":
        counted = subprocess.run([sys.executable, "-c", COUNT_PARQUET, str(output)], capture_output=True, check=True)
        written = int(counted.stdout)
    else:
        with output.open("rb") as file:
            written = sum(1 for _ in file)
    if process.returncode or written != rows:
        raise RuntimeError(f"{written} of {rows} rows, exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return took, usage.ru_maxrss * unit / MB, Path(f"{output}.journal").stat().st_size


def main() -> None:
    """Run both and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl")
    args, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        _, few_mb, _ = run(Path(name), 1_000, args.format)
        took_s, many_mb, journal = run(Path(name), args.rows, args.format)
    many = f"{args.rows:,} rows" + (" of Parquet" if args.format == "parquet" else "")
    tell(
        Row(
            "million",
            f"{many}: peak of memory above that of 1,000 rows",
            many_mb - few_mb,
            "MB",
            bar=80,
            note=f"{many_mb:.0f} - {few_mb:.0f} MB",
        )
    )
    tell(Row("million", f"{many}: rows a second, start and end of the program included", args.rows / took_s, "rows/s"))
    tell(Row("million", f"{many}: the journal", journal / MB, "MB", note=f"{journal / args.rows:.0f} bytes a row"))


if __name__ == "__main__":
    main()
