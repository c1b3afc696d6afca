# ruff: noqa: S603 - it starts its own server and the program
"""What the live display costs: processor time of a run on a terminal with panels, and with plain lines.

A thousand tokens a second arrive, over sixteen requests at once, as from a busy server. Both runs go on at the same
time and on the same core: how fast that is changes from one minute to the next by more than what is measured.
"""

from __future__ import annotations

import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rows import Row, tell
from wire import model_server, on_core, write_items

ROUNDS, IN_FLIGHT, TOKENS_A_SECOND, ITEMS = 5, 16, 1_000, 250


@contextmanager
def on_terminal(command: list[str], folder: Path, columns: int, lines: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command with stderr on a terminal of that size that somebody reads."""
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
    process = subprocess.Popen(command, cwd=folder, stderr=theirs, stdout=subprocess.DEVNULL, env=environ)
    os.close(theirs)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        reader.join(5)
        os.close(ours)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a process; its processor time."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def both(folder: Path, urls: tuple[str, str], columns: int, lines: int) -> tuple[float, float]:
    """Processor time with panels and without, of two runs at the same time."""
    with ExitStack() as running:
        started = []
        for url, name, more in zip(urls, ("live", "plain"), ([], ["--no-live"]), strict=True):
            command = [
                *on_core(0), sys.executable, "-m", "mellea_cli", "summarise", "in.jsonl", "-o", f"{name}.jsonl",
                "--fresh", "--backend", "openai", "-m", "bench", "--base-url", url, "-c", str(IN_FLIGHT), *more,
            ]  # fmt: skip
            started.append(running.enter_context(on_terminal(command, folder, columns, lines)))
        live_s, plain_s = map(cpu_s, started)
    return live_s, plain_s


def main() -> None:
    """Measure two sizes of terminal."""
    delay = ("--token-delay", str(IN_FLIGHT / TOKENS_A_SECOND))
    with tempfile.TemporaryDirectory() as name, model_server(*delay) as one, model_server(*delay) as other:
        folder = Path(name)
        write_items(folder / "in.jsonl", ITEMS)
        for columns, lines in ((80, 24), (200, 50)):
            pairs = [both(folder, (one, other), columns, lines) for _ in range(ROUNDS)]
            ratio = statistics.median(live_s / plain_s for live_s, plain_s in pairs)
            live_s, plain_s = map(statistics.median, zip(*pairs, strict=True))
            what = f"{TOKENS_A_SECOND:,} tokens/s at {columns}x{lines}: CPU with the live display / without"
            tell(Row("display", what, ratio, bar=1.1, note=f"{live_s:.2f} / {plain_s:.2f} s"))


if __name__ == "__main__":
    main()
