# ruff: noqa: S603 - it starts the program and what it is held against
"""How long the program takes to say something, against a bare Typer app and bare imports.

Processor time of whole processes, medians of alternating runs; wall times would only add the machine's other work.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rows import Row, tell

ROUNDS = 15
BARE = """
import typer
app = typer.Typer()
@app.command()
def one(name: str = typer.Argument(help="A name."), loud: bool = typer.Option(False, help="Loudly.")):
    "Do one thing."
@app.command()
def two(name: str = typer.Argument(help="A name."), loud: bool = typer.Option(False, help="Loudly.")):
    "Do another thing."
app()
"""


def cpu_s(command: list[str], environ: dict[str, str]) -> float:
    """Processor time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure them in turn and print the ratios."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    asking = {**environ, "_MELLEA_COMPLETE": "complete_bash", "COMP_WORDS": "mellea summ", "COMP_CWORD": "1"}
    program = shutil.which("mellea", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise SystemExit("mellea is not installed next to this Python")
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(BARE, encoding="utf-8")
        contenders = {
            "python": ([sys.executable, "-c", "pass"], environ),
            "import typer": ([sys.executable, "-c", "import typer"], environ),
            "bare --help": ([sys.executable, str(bare), "--help"], environ),
            "--version": ([program, "--version"], environ),
            "completion": ([program], asking),
            "--help": ([program, "--help"], environ),
            "summarise --help": ([program, "summarise", "--help"], environ),
        }
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS + 1):
            for name, (command, own) in contenders.items():
                taken[name].append(cpu_s(command, own))
    # The first round writes the bytecode.
    median_ms = {name: 1e3 * statistics.median(values[1:]) for name, values in taken.items()}
    for ours, theirs, bar in (
        ("--help", "bare --help", 1.25),
        ("summarise --help", "bare --help", 1.25),
        ("--version", "import typer", 1.2),
        ("completion", "import typer", 1.2),
    ):
        note = f"{median_ms[ours]:.0f} / {median_ms[theirs]:.0f} ms; bare Python {median_ms['python']:.0f} ms"
        tell(
            Row("startup", f"CPU of mellea {ours} / {theirs}", median_ms[ours] / median_ms[theirs], bar=bar, note=note)
        )


if __name__ == "__main__":
    main()
