"""Ctrl-C while a call blocks: in a script, inside a running event loop, in IPython and in a Jupyter kernel."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from loopback import ModelServer, faults

Serve = Callable[..., ModelServer]

SESSION = """
import asyncio
from mellea_cli import generative, start_session
m = start_session("ollama", "test-model", base_url={url!r})

@generative
def size(text: str) -> int:
    "The number of words."

async def read():
    return str(await m.ainstruct("Say something."))

async def call():
    return m.instruct("Say something.")

async def stub():
    return size(m, "one two")
"""


def waiting(serve: Serve) -> ModelServer:
    return serve(fault=faults.always(faults.stall(0)))


@pytest.mark.parametrize(
    "last_line",
    ["asyncio.run(call())", "asyncio.run(stub())", "asyncio.run(read())", 'm.instruct("Say something.")'],
)
def test_ctrl_c_ends_a_script_and_cancels_the_request(serve: Serve, last_line: str) -> None:
    """One Ctrl-C ends the program, also inside a running event loop, and the server sees the connection close."""
    server = waiting(serve)
    program = SESSION.format(url=server.url) + last_line
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as script:
        server.wait(lambda state: state.in_flight == 1, 60)
        script.send_signal(signal.SIGINT)
        _, complaint = script.communicate(timeout=60)
    assert complaint.rstrip().endswith("KeyboardInterrupt")
    server.wait(lambda state: state.in_flight == 0)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ['m.instruct("Say something.")', "await call()", 'size(m, "one two")', "await read()"])
def test_an_interrupt_ends_a_jupyter_cell(serve: Serve, cell: str) -> None:
    """The cell ends with `KeyboardInterrupt`, the request is cancelled, and the kernel runs the next cell."""
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    server = waiting(serve)
    kernel, client = manager.start_new_kernel(kernel_name="python3", startup_timeout=60)
    try:
        assert client.execute_interactive(SESSION.format(url=server.url), timeout=60)["content"]["status"] == "ok"
        asked = client.execute(cell, stop_on_error=False)
        server.wait(lambda state: state.in_flight == 1, 60)
        kernel.interrupt_kernel()
        assert reply_to(client, asked)["ename"] == "KeyboardInterrupt"
        server.wait(lambda state: state.in_flight == 0)
        assert reply_to(client, client.execute("1 + 1"))["status"] == "ok"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def reply_to(client: Any, asked: str) -> dict[str, Any]:
    while True:
        message = client.get_shell_msg(timeout=60)
        if message["parent_header"].get("msg_id") == asked:
            return dict(message["content"])


@pytest.mark.slow
def test_ctrl_c_ends_a_call_in_ipython(serve: Serve) -> None:
    """The prompt of IPython comes back and takes the next line."""
    pytest.importorskip("IPython")
    server = waiting(serve)
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "IPython",
        "--simple-prompt",
        "--no-banner",
        "--colors=NoColor",
        "--no-confirm-exit",
    ]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as shell:
        os.close(theirs)
        lines = (
            "from mellea_cli import start_session",
            f'm = start_session("ollama", "test-model", base_url={server.url!r})',
            'm.instruct("Say something.")',
        )
        os.write(ours, "".join(f"{line}\n" for line in lines).encode())
        server.wait(lambda state: state.in_flight == 1, 60)
        shell.send_signal(signal.SIGINT)
        server.wait(lambda state: state.in_flight == 0)
        os.write(ours, b"print('still', 'here')\nexit()\n")
        seen = b""
        while b"still here" not in seen and (piece := os.read(ours, 4096)):
            seen += piece
        shell.wait(60)
    os.close(ours)
    assert b"KeyboardInterrupt" in seen
