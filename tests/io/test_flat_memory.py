"""Memory does not grow with the input, in any format, with a survey, a journal and a slow head."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WHOLE_WAY = """
import csv, itertools, json, random, resource, sys
from pathlib import Path
from mellea_cli.io.writers import AddedColumns
from mellea_cli.io.journal import Journal
from mellea_cli.io.sink import OrderedSink, open_sink
from mellea_cli.io.source import SourceOptions, open_source
from mellea_cli.io.files import resolve_output
from mellea_cli.items import Success
folder, suffix, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
path = folder / f"in.{suffix}"
text = "The product is good, but the delivery was late. " * 3
if suffix in ("parquet", "arrow"):
    import pyarrow as pa, pyarrow.parquet as pq
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    form = pq.ParquetWriter if suffix == "parquet" else pa.ipc.new_file
    with form(str(path), schema) as out:
        for start in range(0, count, 1000):
            ids = range(start, min(start + 1000, count))
            out.write_batch(pa.record_batch([list(ids), [f"{n} {text}" for n in ids]], schema=schema))
with (path if suffix not in ("parquet", "arrow") else folder / "none").open("w", newline="") as out:
    if suffix == "csv":
        csv.writer(out).writerows(itertools.chain([["id", "text"]], ([n, f"{n} {text}"] for n in range(count))))
    elif suffix == "json":
        out.write("[" + json.dumps({"id": 0, "text": text}))
        out.writelines("," + json.dumps({"id": n, "text": f"{n} {text}"}) for n in range(1, count))
        out.write("]")
    else:
        out.writelines(json.dumps({"id": n, "text": f"{n} {text}"}) + "\\n" for n in range(count))
added = AddedColumns.of("summary")
target = resolve_output(str(folder / f"out.{suffix}"))
with open_source(str(path)) as source, open_sink(target, added) as sink:
    survey = source.survey()
    assert survey and survey.count == count
    journal = Journal.open(target.journal)
    ordered = OrderedSink(sink)
    group, head = [], None
    for item in source:
        outcome = Success({"summary": item.text})
        group.append((random.Random(item.position).randbytes(16), outcome))
        if len(group) == 500:
            journal.commit(group)
            group = []
        if head is None:
            head = added.row(item, outcome)  # the slow first item: every other row waits for it
        else:
            ordered.add(added.row(item, outcome))
    ordered.add(head)
    assert ordered.held == 0
    ordered.finish()
    journal.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mb(folder: Path, suffix: str, count: int) -> int:
    folder.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", WHOLE_WAY, str(folder), suffix, str(count)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


# A group of rows of a columnar file is in memory while it is written.
@pytest.mark.parametrize(
    ("suffix", "count", "bound"),
    [("jsonl", 100_000, 8), ("json", 30_000, 8), ("csv", 30_000, 8), ("parquet", 100_000, 50), ("arrow", 100_000, 50)],
)
def test_many_rows_need_no_more_memory_than_few(tmp_path: Path, suffix: str, count: int, bound: int) -> None:
    """Source, survey, journal, order and sink together stay within a few megabytes."""
    small = peak_mb(tmp_path / "small", suffix, 4_000)
    large = peak_mb(tmp_path / "large", suffix, count)
    assert large - small < bound, (small, large)


def test_endless_pipe_is_read_in_flat_memory() -> None:
    """A pipe that never ends is read for half a million rows without growing."""
    program = """
import resource
from mellea_cli.io.source import open_source
peaks = []
with open_source("-") as source:
    for item in source:
        if item.position in (1_000, 500_000):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        if len(peaks) == 2:
            break
print(peaks[1] - peaks[0])
"""
    endless = subprocess.Popen(
        ["/usr/bin/env", "yes", '{"text": "The product is good, but the delivery was late."}'], stdout=subprocess.PIPE
    )
    assert endless.stdout is not None
    run = subprocess.run(
        [sys.executable, "-c", program], stdin=endless.stdout, capture_output=True, text=True, check=True
    )
    endless.stdout.close()
    endless.wait(timeout=60)
    assert int(run.stdout) < 5
