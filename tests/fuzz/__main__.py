"""Fuzz a target with coverage as the guide: `PYTHONPATH=tests python -m fuzz readers --seconds 600`.

Needs atheris (`pip install -e '.[fuzz]'`). It starts from the odd inputs that the tests know. A crash ends it, and its
input is left in the current folder as `crash-…`; `--replay FILE` runs one again. At its end libFuzzer says how many
executions there were (`Done N runs`) and what they covered (`cov`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

TARGETS = ("readers", "streams")


def target(name: str) -> tuple[Any, list[bytes]]:
    """The function that takes one input, and where to start from."""
    module = import_module(f"fuzz.{name}")
    return (module.fuzz if name == "readers" else module.Fuzz()), module.seeds()


def main() -> int:
    """Fuzz until the time is over or something breaks."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, help="keep what was found here, and go on from it")
    parser.add_argument("--replay", type=Path, nargs="+", help="run these inputs once instead")
    args = parser.parse_args()
    if args.replay:
        fuzz, _ = target(args.target)
        files = [path for named in args.replay for path in (named.iterdir() if named.is_dir() else [named])]
        for path in files:
            fuzz(path.read_bytes())
        sys.stdout.write(f"{len(files)} inputs, no crash\n")
        return 0
    import atheris

    with atheris.instrument_imports(include=["mellea_cli"]):
        fuzz, seeds = target(args.target)
    corpus = args.corpus or Path(tempfile.mkdtemp(prefix=f"mellea-fuzz-{args.target}-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    flags = [f"-max_total_time={args.seconds}", "-max_len=20000", "-timeout=20", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], *flags, "-print_final_stats=1", str(corpus)], fuzz)
    atheris.Fuzz()  # never returns
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
