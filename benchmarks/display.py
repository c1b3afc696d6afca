# ruff: noqa: S603 - it starts its own server and the program
"""What the live display costs: processor time of a run on a terminal with panels, and with plain lines.

A thousand tokens a second arrive, over sixteen requests at once, as from a busy server.
"""

from __future__ import annotations

import fcntl
import os
import pty
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from pathlib import Path

from rows import Row, tell

from wire import model_server, on_core, write_items

ROUNDS, IN_FLIGHT, TOKENS_A_SECOND, ITEMS = 3, 16, 1_000, 250


def on_terminal(command: list[str], folder: Path, columns: int, lines: int) -> float:
    """Run a command with stderr on a terminal of that size that somebody reads; return its processor time."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read() -> None:
        try:
            while os.read(ours, 65536):
                pass
        except OSError:
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    environ = {**os.environ, "TERM": "xterm-256color"}
    for name in ("CI", "NO_COLOR"):
        environ.pop(name, None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, stderr=theirs, stdout=subprocess.DEVNULL, env=environ, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.close(theirs)
    reader.join(5)
    os.close(ours)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure both in turn on two sizes of terminal."""
    with tempfile.TemporaryDirectory() as name, model_server("--token-delay", str(IN_FLIGHT / TOKENS_A_SECOND)) as url:
        folder = Path(name)
        write_items(folder / "in.jsonl", ITEMS)
        command = [
            *on_core(0), sys.executable, "-m", "mellea_cli", "summarise", "in.jsonl", "-o", "out.jsonl", "--fresh",
            "--backend", "openai", "-m", "bench", "--base-url", url, "-c", str(IN_FLIGHT),
        ]  # fmt: skip
        for columns, lines in ((80, 24), (200, 50)):
            with_panels, without = [], []
            for _ in range(ROUNDS):
                with_panels.append(on_terminal(command, folder, columns, lines))
                without.append(on_terminal([*command, "--no-live"], folder, columns, lines))
            live_s, plain_s = statistics.median(with_panels), statistics.median(without)
            what = f"{TOKENS_A_SECOND:,} tokens/s at {columns}x{lines}: CPU with the live display / without"
            tell(Row("display", what, live_s / plain_s, bar=1.1, note=f"{live_s:.2f} / {plain_s:.2f} s"))


if __name__ == "__main__":
    main()
