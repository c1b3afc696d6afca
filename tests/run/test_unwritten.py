"""What a run says of an output that it did not put into its place."""

from __future__ import annotations

import json
from pathlib import Path

from inprocess import run_in_process
from loopback import ModelServer


def test_the_summary_does_not_name_an_output_that_was_left_as_it_was(tmp_path: Path) -> None:
    """A run that stops with less than what is there says so, and where its own rows are."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [json.dumps({"id": number, "text": f"MARK-{number} is late"}) for number in range(3)]
    source.write_text("\n".join(rows[:2]) + "\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}

    arguments = ("summarise", "in.jsonl", "-o", "out.jsonl", "-m", "m", "-q", "--json")

    def run(server: ModelServer, key: str) -> dict[str, object]:
        command = (*arguments, "--base-url", server.openai_url)
        ended = run_in_process(command, tmp_path, env={**environ, "OPENAI_API_KEY": key})
        lines = (ended.stderr + "\n" + ended.stdout).splitlines()
        found: dict[str, object] = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
        return found

    with ModelServer(models=("m",), api_key="right") as server:
        whole = run(server, "right")
        assert (whole["output"], whole["unwritten"], whole["done"]) == ("out.jsonl", None, 2)
        before = output.read_bytes()
        source.write_text("\n".join(rows) + "\n")
        broken = run(server, "wrong")
    assert broken["exit_code"] == 4
    assert output.read_bytes() == before
    assert broken["output"] is None
    assert broken["unwritten"] == "out.jsonl was not changed; the rows of this run are in out.jsonl.partial"
    assert (tmp_path / "out.jsonl.partial").exists()
