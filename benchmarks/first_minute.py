# ruff: noqa: S602, S603 - it types shell commands, as a user does
"""First minute: keystrokes and seconds from the installation to answers about one's own CSV file, against two peers.

    OLLAMA_HOST=http://127.0.0.1:11434 python benchmarks/first_minute.py --model granite4.1:3b

Each tool is installed into an empty folder and then asked for the sentiment, a summary, the complaint, the praise and
the urgency of the same fourteen rows. The peers need a running Ollama that has the model, so `mellea` is shown with the
same Ollama too; starting Ollama and fetching models counts for none of them. Keystrokes are all characters that are
typed, with those of a configuration file, and one for each Enter.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rows import Row, tell

PROJECT = Path(__file__).parents[1]
QUESTION = (
    "Summarise this feedback in one sentence. Also give the sentiment (positive, negative or mixed), "
    "the main complaint or null, the praise or null, and the urgency (low, medium or high)."
)
SCHEMA = "summary, sentiment: positive or negative or mixed, complaint, praise, urgency: low or medium or high"


@dataclass(frozen=True)
class Tool:
    """What a user types for one tool, and how many rows of its output have a sentiment.

    Args:
        install: the published command; `from_here` is typed in its place where the package is this checkout.
        files: configuration files to write, by name.
        run: the command that answers the rows of `feedback.csv`.
        answered: the number of answered rows in a folder.
    """

    install: str
    run: str
    answered: Callable[[Path], int]
    from_here: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def keystrokes(self) -> int:
        """Characters of the commands and files, with an Enter after each command."""
        return sum(len(typed) + 1 for typed in (self.install, self.run)) + sum(map(len, self.files.values()))


def _rows_of_csv(folder: Path) -> int:
    with (folder / "out.csv").open(encoding="utf-8", newline="") as file:
        return sum(bool(row["sentiment"]) for row in csv.DictReader(file))


def _json_objects(folder: Path) -> int:
    lines = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    return sum("sentiment" in json.loads(line) for line in lines if line.startswith("{"))


def _promptfoo_answers(folder: Path) -> int:
    results = json.loads((folder / "out.json").read_text(encoding="utf-8"))["results"]["results"]
    return sum("sentiment" in str((result.get("response") or {}).get("output", "")).casefold() for result in results)


def tools(model: str) -> dict[str, Tool]:
    """The contenders. Each is used in the shortest way that its own documentation shows."""
    here = f"pip install -q '{PROJECT}[local]'"
    texts = """python3 -c 'import csv; [print(r["text"]) for r in csv.DictReader(open("feedback.csv"))]'"""
    prompt = f"{QUESTION} Answer as JSON. {{{{text}}}}"
    config = f"prompts:\n- '{prompt}'\nproviders:\n- ollama:chat:{model}\ntests: feedback.csv\n"
    return {
        "mellea, embedded model": Tool(
            "pip install 'mellea-cli[local]'", "mellea summarise feedback.csv -o out.csv -b local", _rows_of_csv, here
        ),
        "mellea, Ollama": Tool(
            "pip install mellea-cli",
            f"mellea summarise feedback.csv -o out.csv -b ollama -m {model}",
            _rows_of_csv,
            f"pip install -q '{PROJECT}'",
        ),
        "llm, Ollama": Tool(
            "pip install llm llm-ollama",
            f"""{texts} | while read -r text; do llm -m ollama/{model} --schema '{SCHEMA}' "$text"; done > out.jsonl""",
            _json_objects,
        ),
        "promptfoo, Ollama": Tool(
            "npm install promptfoo",
            "npx promptfoo eval -o out.json",
            _promptfoo_answers,
            files={"promptfooconfig.yaml": config},
        ),
    }


def timed(command: str, folder: Path, environment: Mapping[str, str]) -> float:
    """Seconds that a command takes in a folder. A peer may end with another code than 0: its output is judged."""
    began = time.perf_counter()
    with (folder / "log.txt").open("ab") as log:
        subprocess.run(command, shell=True, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
    return time.perf_counter() - began


def measure(name: str, tool: Tool, rows: list[str]) -> None:
    """Install one tool, ask it, and print its figures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (folder / "feedback.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text"], *([text] for text in rows)])
        environment = {
            **os.environ,
            "PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "OLLAMA_BASE_URL": os.environ.get("OLLAMA_HOST", "http://127.0.0.1:11434"),
            "PROMPTFOO_CONFIG_DIR": str(folder / "promptfoo"),
            **dict.fromkeys(
                ("PROMPTFOO_DISABLE_TELEMETRY", "PROMPTFOO_DISABLE_UPDATE", "PROMPTFOO_DISABLE_SHARING"), "1"
            ),
        }
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        installing = timed(tool.from_here or tool.install, folder, environment)
        for file_name, content in tool.files.items():
            (folder / file_name).write_text(content, encoding="utf-8")
        running = timed(tool.run, folder, environment)
        try:
            answered = tool.answered(folder)
        except (OSError, ValueError, KeyError) as error:
            end = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"{name} wrote no answers: {error}\n{end}") from error
        # What was installed is on the disk; the cache of models is elsewhere.
        size = sum(path.lstat().st_size for path in folder.rglob("*")) // 1_000_000
    tell(Row("first", f"{name}: keystrokes", tool.keystrokes(), "keys"))
    tell(Row("first", f"{name}: installation", installing, "s", note=f"{size} MB"))
    tell(Row("first", f"{name}: the command to the last answer", running, "s", note=f"{answered} of {len(rows)} rows"))


def main() -> None:
    """Measure the tools one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="granite4.1:3b", help="a model that the Ollama has")
    parser.add_argument("--only", help="names of tools, separated by semicolons")
    args = parser.parse_args()
    lines = (PROJECT / "samples" / "feedback.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [" ".join(json.loads(line)["text"].split()) for line in lines]
    for name, tool in tools(args.model).items():
        if not args.only or name in args.only.split(";"):
            measure(name, tool, rows)


if __name__ == "__main__":
    main()
