"""The key of a server on another machine, asked for at a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopback import ModelServer
from rowfiles import write_rows
from terminals import mellea_on_terminal

pytestmark = [pytest.mark.slow, pytest.mark.terminal]

KEY = "sk-typed-at-a-terminal"


def test_a_key_is_asked_for_until_the_server_takes_it(tmp_path: Path) -> None:
    """What is typed is never shown or written; a wrong key costs no row; then the run goes through."""
    source = write_rows(tmp_path / "in.jsonl", [{"text": f"MARK-{n}x was late."} for n in range(4)])
    with ModelServer(api_key=KEY, models=("m",), guards_list=True) as server:
        # An address of this machine that does not say so: it is treated as another one.
        url = f"http://0.0.0.0:{server.port}/v1"
        arguments = ("summarise", str(source), "-o", "out.jsonl", "-m", "m", "--base-url", url, "--allow-http")
        with mellea_on_terminal(*arguments, "--no-live", folder=tmp_path) as terminal:
            terminal.wait(lambda text: "key for 0.0.0.0" in text and not terminal.echoes)
            terminal.type("sk-wrong\r")
            terminal.wait(lambda text: text.count("key for 0.0.0.0") == 2 and not terminal.echoes)
            terminal.type(f"{KEY}\r")
            assert terminal.end() == 0, terminal.all
            assert KEY.encode() not in terminal.written
            assert b"sk-wrong" not in terminal.written
        assert server.state.requests == 4
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written


def test_no_key_is_a_clear_end(tmp_path: Path) -> None:
    """Enter alone: exit 2, what to do, and no row was sent."""
    source = write_rows(tmp_path / "in.jsonl", [{"text": "late"}])
    with ModelServer(api_key=KEY, models=("m",), guards_list=True) as server:
        url = f"http://0.0.0.0:{server.port}/v1"
        arguments = ("summarise", str(source), "-m", "m", "--base-url", url, "--allow-http", "--no-live")
        with mellea_on_terminal(*arguments, folder=tmp_path) as terminal:
            terminal.wait(lambda text: "key for 0.0.0.0" in text and not terminal.echoes)
            terminal.type("\r")
            assert terminal.end() == 2
            assert "--key-file" in terminal.all
        assert server.state.requests == 0
