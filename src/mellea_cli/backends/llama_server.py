"""The program of the embedded llama.cpp server's process: `python -m mellea_cli.backends.llama_server`.

A process and not a thread: a fault in the native code ends the server and not the run with its journal, its log can be
silenced as a whole, and neither side waits for the other's Python.

It reads one line of JSON from stdin (`ServerConfig`) and writes one to stdout: `{"url": ...}` once the server answers,
or `{"error": ..., "cause": ...}`. It ends when stdin does, which also happens when the parent is killed.
"""

# This module imports nothing of the package, so that the process starts quickly.

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
_NO_ORIGIN = "http://nobody.invalid"
# After each operation the threads wait for the slowest in a spin loop. With the OpenMP library's default of 300,000
# turns they keep the processor from the thread that they wait for: next to one busy program, two threads generated a
# fifth of the tokens of one. With 1,000 turns they are as fast on an idle machine, and several times faster then.
_SPIN_TURNS = "1000"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Configuration from the parent.

    Args:
        model: the GGUF file.
        name: the model's name in requests and answers.
        slots: requests that the server works on at once.
        context_per_slot: tokens of prompt and answer together, for each slot.
        log: write the whole log to stderr; otherwise errors only.
        prompt_cache: folder in which the state of a slot may be saved; empty for none.
        api_key: bearer token that every request must carry.
        parent: the parent's process id.
    """

    model: str
    name: str
    slots: int
    context_per_slot: int
    log: bool = False
    prompt_cache: str = ""
    api_key: str = ""
    parent: int = 0


def main() -> None:
    """Run the server until stdin ends."""
    # A terminal sends Ctrl-C to every process in the foreground; the parent decides how to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reply = _claim_stdout()
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
    # A regular exit would wait for requests whose answers have no reader any more. There is nothing to save.
    os._exit(0)


def _claim_stdout() -> BinaryIO:
    """Reserve stdout for the reply: what native code prints goes to stderr."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return reply


def _send(reply: BinaryIO, message: dict[str, str]) -> None:
    with reply:
        reply.write(json.dumps(message).encode() + b"\n")


def _die_with(parent: int) -> None:
    """On Linux, have this process killed when the thread that started it ends.

    The end of stdin is not noticed while a model is loaded, as that holds Python's lock.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)  # the parent ended before the call


def _start(config: ServerConfig) -> Any:
    """Load the model and start to listen. Raises `ImportError` and `RuntimeError`."""
    # Read when the library is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_TURNS)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config.model
    params.model_alias = {config.name}
    params.n_parallel = config.slots
    params.n_ctx = config.slots * config.context_per_slot  # divided evenly among the slots
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config.api_key]
    params.verbosity = 3 if config.log else 1
    params.n_threads_http = config.slots + 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = thread_count()
    # Each slot keeps its latest prompt. The additional cache of older prompts (8 GiB by default) made a batch no faster
    # and grew by tens of megabytes a second: the prompts of a batch share one prefix, and no more.
    params.cache_prompt = True
    params.cache_ram_mib = 0
    if config.prompt_cache:
        params.slot_save_path = f"{config.prompt_cache}/"  # the server puts the name directly behind
    # An answer that outgrows its slot ends with "length"; a context shift would silently drop the prompt's beginning.
    params.ctx_shift = False
    # The first request warms up as well.
    params.warmup = False
    params.fit_params = _has_gpu(xllamacpp.get_device_info())
    params.ui = False
    params.cors_origins = _NO_ORIGIN  # no web page may send requests
    return xllamacpp.Server(params)


def _has_gpu(devices: Iterable[dict[str, Any]]) -> bool:
    """Whether the model must be fitted to a device's memory; the search for the fit takes time at every start."""
    return any("GPU" in str(device.get("type", "")) for device in devices)


def thread_count() -> int:
    """Number of compute threads: the physical cores that this process may use, within its container's CPU quota.

    Two threads on one core share its arithmetic units and gain nothing; threads beyond a quota make all of them wait.
    """
    if not hasattr(os, "sched_getaffinity"):
        return max(1, os.cpu_count() or 1)
    allowed = os.sched_getaffinity(0)
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota() or len(cores)))


def _siblings(cpu: int) -> str:
    """The logical processors that share a core with this one, in the kernel's notation."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)


def _quota() -> int | None:
    """The container's CPU quota in processors, rounded up; `None` for no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main()
