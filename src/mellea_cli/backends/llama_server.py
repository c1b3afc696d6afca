"""The embedded llama.cpp server as a program of its own: `python -m mellea_cli.backends.llama_server`.

It is a child process and not a thread, because a fault in the native code then ends the server and not the run with its
journal, because its log can be silenced as a whole, because the parent stays light, and because its work never waits
for the parent's Python, or the other way round.

One line of JSON comes in on stdin (`ServerConfig`), one goes out on stdout: `{"url": ...}` when the server answers, or
`{"error": ..., "cause": ...}`. The server then runs until stdin ends, which also happens when the parent is killed.
This module imports nothing of the package, so that the child starts quickly.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_PR_SET_PDEATHSIG = 1
_NOBODY = "http://nobody.invalid"
_SPINS = "1000"
"""How often a thread looks for the others before it sleeps."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What the parent decides.

    Args:
        model: the GGUF file.
        name: what the server calls the model in its answers.
        slots: requests that are worked on at once.
        context_per_slot: tokens of prompt and answer together, for each slot.
        api_key: what every request must carry as a bearer token.
        parent: the parent's process id.
        log: whether llama.cpp writes its log to stderr; otherwise errors only.
        states: folder in which the state of a slot may be saved; empty for none.
    """

    model: str
    name: str
    slots: int
    context_per_slot: int
    api_key: str
    parent: int
    log: bool = False
    states: str = ""


def main() -> None:
    """Run the server until stdin ends."""
    # A terminal's Ctrl-C reaches every process in front; how to stop is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reply = _take_stdout()
    line = sys.stdin.buffer.readline()
    if not line:
        return
    config = ServerConfig(**json.loads(line))
    _die_with(config.parent)
    try:
        server = _start(config)
    except ImportError as error:
        _send(reply, {"error": str(error), "cause": "not-installed"})
        return
    except (RuntimeError, MemoryError) as error:
        _send(reply, {"error": str(error), "cause": "not-loaded"})
        return
    _send(reply, {"url": str(server.listening_address)})
    sys.stdin.buffer.read()
    # Not an orderly end: that would wait for requests which nobody reads any more. There is nothing to save.
    os._exit(0)


def _take_stdout() -> BinaryIO:
    """Keep stdout for the reply alone: whatever native code prints goes to stderr."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return reply


def _send(reply: BinaryIO, message: dict[str, str]) -> None:
    with reply:
        reply.write(json.dumps(message).encode() + b"\n")


def _die_with(parent: int) -> None:
    """On Linux, ask to be killed when the parent's thread that started us ends.

    The end of stdin says the same, but nobody listens to it while a model is being loaded: that holds Python's lock.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)  # the parent went away before we asked


def _start(config: ServerConfig) -> Any:
    """Load the model and start to listen. Raises `ImportError` and `RuntimeError`."""
    # After each operation the threads wait for the slowest. They spin for it, and with the OpenMP library's default of
    # 300,000 turns they keep the processor from whoever it is waiting for: with one other program at work, two threads
    # made a fifth of the tokens that one made. With 1,000 turns they were as fast alone, and several times faster then.
    # Read when the library is loaded, so it is set here and for this process only.
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config.model
    params.model_alias = {config.name}
    params.n_parallel = config.slots
    params.n_ctx = config.slots * config.context_per_slot  # shared out evenly among the slots
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config.api_key]
    params.verbosity = 3 if config.log else 1
    params.n_threads_http = config.slots + 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = thread_count()
    # Each slot keeps the prompt it saw last. The cache of older prompts on top of that (8 GiB by default) made a batch
    # no faster and grew by tens of megabytes a second: the prompts of a batch share one beginning, and no more.
    params.cache_prompt = True
    params.cache_ram_mib = 0
    if config.states:
        params.slot_save_path = f"{config.states}/"  # the server joins path and name as they are
    # An answer that outgrows its slot ends with "length"; the alternative drops the prompt's beginning in silence.
    params.ctx_shift = False
    # The first request does what a warm-up would do.
    params.warmup = False
    params.fit_params = _has_gpu(xllamacpp.get_device_info())
    params.ui = False
    params.cors_origins = _NOBODY  # no page in a browser has business here
    return xllamacpp.Server(params)


def _has_gpu(devices: Iterable[dict[str, Any]]) -> bool:
    """Whether there is a device whose memory the model has to be fitted to; the search costs time at every start."""
    return any("GPU" in str(device.get("type", "")) for device in devices)


def thread_count() -> int:
    """Threads to compute with: the physical cores this process may use, within its container's share of time.

    Two threads on one core take turns at the same arithmetic units, so they gain nothing; threads beyond a container's
    quota make all of them wait.
    """
    if not hasattr(os, "sched_getaffinity"):
        return max(1, os.cpu_count() or 1)
    allowed = os.sched_getaffinity(0)
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota() or len(cores)))


def _siblings(cpu: int) -> str:
    """The logical processors that share a core with this one, as the kernel writes them."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)


def _quota() -> int | None:
    """Processors' worth of time that the container allows, rounded up; `None` for no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main()
