# ruff: noqa: S101, S603, T201 - it starts its own programs, checks that they worked, and prints what it found
"""What the chat's display costs, and how soon a server sees that an answer was stopped.

    python benchmarks/chat_display.py             # needs the dev extra

Prints three figures. `display` is the processor time of the view alone, as a share of one core, while a Markdown answer
of 4,000 tokens arrives at 200 tokens/s and is drawn on a pseudo-terminal. `program` is the same for the whole of
`mellea chat`: wire, session and display; the server is another process. `ctrl-c` is the time from the key to the moment
when the server sees the disconnect, the median and the worst of ten.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from rows import Row, tell

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from loopback import ModelServer  # noqa: E402 - found through the line above
from terminals import Terminal, mellea_on_terminal  # noqa: E402 - as above

TOKENS, PER_S = 4_000, 200
SECTION = """## Part {number}

A paragraph of **some** length with `code`, a [link](https://example.org/{number}) and _emphasis_, long enough to be
wrapped more than once on a terminal of eighty columns, as answers of real models are.

1. first, with a few words
2. second, with **bold** words
   - and a nested one

```python
def part_{number}(values: list[int]) -> int:
    \"\"\"Add the values up.\"\"\"
    total = 0
    for value in values:
        total += value  # one after the other
    return total
```

| name | value |
|------|------:|
| a{number} | {number} |

"""


def pieces() -> list[str]:
    """The answer, cut as a tokenizer would."""
    text = "".join(SECTION.format(number=number) for number in range(200))
    return [text[at : at + 4] for at in range(0, 4 * TOKENS, 4)]


async def arriving() -> AsyncIterator[str]:
    """The answer, at its rate."""
    began = time.monotonic()
    for number, piece in enumerate(pieces()):
        await asyncio.sleep(max(0.0, began + number / PER_S - time.monotonic()))
        yield piece


async def display_alone() -> list[float]:
    """Show the answer on this process's terminal; seconds and processor seconds of that, and of the rate alone."""
    from mellea_cli.ui.chat_screen import AnswerView

    async def only_arriving() -> None:
        async for _ in arriving():
            pass

    view = AnswerView(sys.stdout, os.environ)
    # The rate itself is measured as well, and taken off.
    wall, busy = time.monotonic(), time.process_time()
    await view.show(arriving())
    view.finish()
    shown = (time.monotonic() - wall, time.process_time() - busy)
    wall, busy = time.monotonic(), time.process_time()
    await only_arriving()
    return [*shown, time.monotonic() - wall, time.process_time() - busy]


def display(folder: Path) -> None:
    """Measure the view on a pseudo-terminal."""
    report = folder / "report.json"
    command = [sys.executable, __file__, "--alone", str(report)]
    terminal = Terminal(command, (80, 24), {**os.environ, "TERM": "xterm-256color"}, ROOT)
    try:
        assert terminal.end() == 0, terminal.text
    finally:
        terminal.close()
    wall, busy, _, idle = json.loads(report.read_text())
    share = (busy - idle) / wall
    note = f"{busy:.2f} s in {wall:.1f} s, of which the rate {idle:.2f} s"
    tell(Row("chat", f"the display at {PER_S} pieces a second: share of one core", 100 * share, "%", note=note))


def program(folder: Path) -> None:
    """Measure the whole program; the server is another process."""
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    try:
        where = ("-b", "openai", "--base-url", f"{url}/v1", "-m", "test-model", "--no-history")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with mellea_on_terminal("chat", *where, folder=folder) as terminal:
            terminal.wait(lambda shown: "0 tokens" in shown)
            began = time.monotonic()
            terminal.type("go\r")
            terminal.wait(lambda shown: "tokens/s" in shown, 120)
            wall = time.monotonic() - began
            terminal.type(b"\x04")
            terminal.end()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        note = f"{busy:.2f} s in {wall:.1f} s, start-up included"
        tell(Row("chat", "the whole program at that rate: share of one core", 100 * busy / wall, "%", note=note))
    finally:
        server.kill()
        server.wait()


def ctrl_c(folder: Path) -> None:
    """Measure the time from Ctrl-C to the disconnect."""
    times: list[float] = []
    with ModelServer(reply=lambda *_: "word " * 5_000, token_delay_s=0.01) as server:
        where = ("-b", "openai", "--base-url", f"{server.url}/v1", "-m", "test-model", "--no-history")
        for number in range(1, 11):
            with mellea_on_terminal("chat", *where, folder=folder) as terminal:
                terminal.wait(lambda shown: "0 tokens" in shown)
                terminal.type("go\r")
                terminal.wait(lambda shown: "word word" in shown)
                seen = threading.Event()
                gone: list[float] = []

                def watch(wanted: int = number, seen: threading.Event = seen, gone: list[float] = gone) -> None:
                    server.state.wait(lambda state: state.disconnects >= wanted, 30)
                    gone.append(time.monotonic())
                    seen.set()

                thread = threading.Thread(target=watch)
                thread.start()
                pressed = time.monotonic()
                terminal.type(b"\x03")
                seen.wait(30)
                thread.join()
                times.append(gone[0] - pressed)
    note = f"{max(times) * 1000:.0f} ms at worst of {len(times)}"
    tell(Row("chat", "from Ctrl-C to the disconnect", statistics.median(times) * 1000, "ms", note=note))


def serve() -> None:
    """Serve the answer at its rate, in a process of its own."""
    text = "".join(pieces())

    def reply(_: str, __: Mapping[str, Any] | None) -> str:
        return text

    # The server cuts text its own way: the delay is what makes it 200 pieces a second.
    with ModelServer(reply=reply, token_delay_s=1 / PER_S) as server:
        print(server.url, flush=True)
        threading.Event().wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        arguments.alone.write_text(json.dumps(asyncio.run(display_alone())))
    elif arguments.serve:
        serve()
    else:
        with tempfile.TemporaryDirectory() as name:
            display(Path(name))
            program(Path(name))
            ctrl_c(Path(name))


if __name__ == "__main__":
    main()
