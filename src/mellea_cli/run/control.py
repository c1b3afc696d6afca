"""Runs on this machine: what each one says about itself in the state folder, and requests to it from other terminals.

A run writes a small record once a second and holds a lock next to it. The lock ends with its process, however that
ends: a record that says "running" without a lock is of a run that was killed, also when its process id is used again.
Requests come over a Unix socket that only the user can reach.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mellea_cli.errors import ExitCode, MelleaError, UsageError
from mellea_cli.events import RunPaused, RunResumed, RunTuned

if TYPE_CHECKING:
    from mellea_cli.engine.workers import Stop
    from mellea_cli.run.batch import LiveRun
    from mellea_cli.run.plan import Prices

EVERY_S = 1.0
# Without locks, or with a process that was stopped, a record that is older than this is old.
SILENT_S = 15.0
_KEPT = 200
_RATE_S = 60.0
_RECORD, _LOCK, _SOCKET, _SCRATCH = ".json", ".lock", ".sock", ".new"
# The path of a Unix socket has room for about 104 bytes.
_LONGEST_SOCKET = 100
_REPLY_S = 10.0
_MOST_BYTES = 64 * 1024

RUNNING, PAUSED = "running", "paused"
"""States of a run that goes on. The others are `finished`, `stopped`, `failed` and, of a killed one, `lost`."""


class RunGone(MelleaError):
    """The run cannot be reached: it has ended, or was killed."""

    exit_code = ExitCode.USAGE
    kind = "run-gone"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run says about itself. Times are seconds since 1970."""

    id: str
    pid: int
    command: str  # The command of the program, such as `summarise`
    output: str  # The whole path of the output; `-` for stdout
    input: str = ""
    pipeline: str = ""
    backend: str = ""
    model: str = ""
    started: float = 0.0
    updated: float = 0.0
    state: str = RUNNING
    reason: str = ""  # Why it is paused, or why it ended early
    total: int | None = None
    done: int = 0
    failed: int = 0
    reused: int = 0
    items_per_s: float = 0.0
    finish_at: float | None = None  # When it will be finished at its rate; `None` while that is unknown
    concurrency: int | None = None
    rpm: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    currency: str = ""
    exit_code: int | None = None
    next_command: str = ""
    locked: bool = True  # Whether the state folder has locks
    socket: str = ""  # Where it takes requests; empty where it takes none

    @property
    def rows(self) -> int:
        """Rows with an outcome."""
        return self.done + self.failed

    @property
    def goes_on(self) -> bool:
        """Whether it is running or paused."""
        return self.state in (RUNNING, PAUSED)


def state_folder() -> Path:
    """The folder of the records, `runs` in the user's state folder."""
    from platformdirs import user_state_path

    return user_state_path("mellea") / "runs"


class RunControl:
    """Writes the record of this process's run, and does what other terminals ask. A context manager around the run.

    A state folder that cannot be written costs the record, and never the run.

    Args:
        record: what is known before the run.
        stop: the run's request to stop.
        prices: what tokens cost; `None` when unknown.
        most: requests in flight that the server, or the connections to it, take at most; `None` for any number.
        folder: the state folder; `None` for the user's.
    """

    def __init__(
        self,
        record: RunRecord,
        stop: Stop,
        *,
        prices: Prices | None = None,
        most: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.record = record
        self._stop = stop
        self._prices = prices
        self._most = most
        self._folder = folder or state_folder()
        self._stack = ExitStack()
        self._writes = False
        self._seen: deque[tuple[float, int]] = deque()
        self._changed = asyncio.Event()
        self._run: LiveRun | None = None

    def __enter__(self) -> Self:
        try:
            make_private(self._folder)
            self._lock()
            self._writes = True
        except OSError:
            return self
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.record.goes_on:
            message = error.message if isinstance(error, MelleaError) else ""
            code = error.exit_code if isinstance(error, MelleaError) else None
            self.record = replace(
                self.record,
                state="failed",
                reason=message or (kind.__name__ if kind is not None else ""),
                exit_code=None if code is None else int(code),
                finish_at=None,
            )
        self.record = replace(self.record, socket="")
        self._write()
        self._stack.close()
        if self._writes:
            _prune(self._folder)

    def ended(self, exit_code: int, reason: str, next_command: str) -> None:
        """Note how the run has ended."""
        if self._run is not None:
            self._observe(self._run)
        self.record = replace(
            self.record,
            state="stopped" if reason else "finished",
            reason=reason,
            exit_code=exit_code,
            next_command=next_command,
            finish_at=None,
        )

    async def serve(self, run: LiveRun) -> None:
        """Keep the record up to date and take requests, until cancelled."""
        self._run = run
        server = await self._listen()
        try:
            while True:
                self._observe(run)
                self._write()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), EVERY_S)
                self._changed.clear()
        finally:
            self._observe(run)
            if server is not None:
                server.close()
            self._remove_socket()

    def _observe(self, run: LiveRun) -> None:
        """Read the run's figures."""
        tally, now, clock = run.tally, time.time(), time.monotonic()
        client = run.executor.client
        paused = client is not None and client.balancer.paused
        rows = tally.done + tally.failed
        asked = rows - tally.reused - tally.blank
        if paused:
            self._seen.clear()
        self._seen.append((clock, asked))
        while len(self._seen) > 2 and clock - self._seen[1][0] > _RATE_S:
            self._seen.popleft()
        (then, before), spent = self._seen[0], clock - self._seen[0][0]
        per_s = (asked - before) / spent if clock > then else 0.0
        left = run.total - rows if run.total is not None else None
        self.record = replace(
            self.record,
            updated=now,
            state=PAUSED if paused else RUNNING,
            reason=self.record.reason if paused else "",
            total=run.total,
            done=tally.done,
            failed=tally.failed,
            reused=tally.reused,
            items_per_s=round(per_s, 4),
            finish_at=now + left / per_s if left is not None and per_s > 0 else None,
            concurrency=run.executor.concurrency,
            rpm=client.rpm if client is not None else None,
            prompt_tokens=tally.usage.prompt_tokens,
            cached_tokens=tally.usage.cached_tokens,
            completion_tokens=tally.usage.completion_tokens,
            cost=None if self._prices is None else self._prices.of(tally.usage),
            currency=self._prices.currency if self._prices is not None else "",
        )

    # Requests.

    def handle(self, request: Mapping[str, Any]) -> str:
        """Do what another terminal asks.

        Returns:
            What was done, in a sentence.

        Raises:
            UsageError: this run cannot do it.
        """
        run = self._run
        if run is None:
            raise UsageError("the run has not begun yet", hint="type the same command again in a moment")
        match request.get("do"):
            case "stop":
                again = self._stop.asked.is_set()
                self._stop.ask("stopped by mellea stop", ExitCode.STOPPED_EARLY)
                return "stopping now" if again else "stopping: rows in flight are finished, the same command continues"
            case "pause":
                return self._pause(run, str(request.get("reason") or "mellea pause"))
            case "resume":
                return self._resume(run)
            case "tune":
                return self._tune(run, request.get("concurrency"), request.get("rpm"))
        raise UsageError(f"this run does not know {request.get('do')!r}", hint="it is of another version of mellea")

    def _client(self, run: LiveRun) -> Any:
        client = run.executor.client
        if client is None:
            raise UsageError(
                "a run on a cluster cannot be paused or tuned", hint="stop it, and start it again with other flags"
            )
        return client

    def _pause(self, run: LiveRun, reason: str) -> str:
        client = self._client(run)
        if client.balancer.paused:
            return f"was paused already: {self.record.reason}"
        client.pause()
        self.record = replace(self.record, reason=reason)
        run.observer(RunPaused(reason))
        return "paused: requests in flight are finished, no new one is sent"

    def _resume(self, run: LiveRun) -> str:
        client = self._client(run)
        if not client.balancer.paused:
            return "was not paused"
        client.resume()
        self._seen.clear()
        run.observer(RunResumed())
        return "resumed"

    def _tune(self, run: LiveRun, concurrency: int | None, rpm: float | None) -> str:
        client = self._client(run)
        done: list[str] = []
        if concurrency is not None:
            if self._most is not None and concurrency > self._most:
                raise UsageError(
                    f"this run's server takes {self._most} requests at once at most", hint=f"use -c {self._most}"
                )
            client.set_concurrency(concurrency)
            run.raise_workers(concurrency)
            done.append(f"{concurrency} in flight")
        if rpm is not None:
            client.set_rpm(rpm or None)
            done.append(f"{rpm:g} requests a minute" if rpm else "no limit of requests a minute")
        text = f"at most {' and '.join(done)}" if rpm != 0 or concurrency is not None else done[0]
        run.observer(RunTuned(f"tuned: {text}", concurrency))
        self._seen.clear()
        return text

    async def _listen(self) -> asyncio.Server | None:
        if not (self._writes and hasattr(asyncio, "start_unix_server")):
            return None
        try:
            path = self._socket_path()
            server = await asyncio.start_unix_server(self._answer, path, limit=_MOST_BYTES)
            path.chmod(0o600)
        except OSError:
            return None
        self.record = replace(self.record, socket=str(path))
        return server

    def _socket_path(self) -> Path:
        path = self._folder / (self.record.id + _SOCKET)
        if len(os.fsencode(path)) <= _LONGEST_SOCKET:
            return path
        # `mkdtemp` makes a folder that only this user can enter.
        return Path(tempfile.mkdtemp(prefix="mellea-")) / "run.sock"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REPLY_S):
                line = await reader.readline()
            try:
                reply = {"ok": True, "text": self.handle(json.loads(line))}
            except UsageError as error:
                reply = {"ok": False, "text": error.message, "hint": error.hint}
            except (ValueError, AttributeError, TypeError):
                reply = {"ok": False, "text": "the request cannot be read", "hint": ""}
            self._changed.set()
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # whoever asked has gone
        finally:
            writer.close()

    def _remove_socket(self) -> None:
        _remove_socket(self.record.socket, self._folder)
        self.record = replace(self.record, socket="")

    # The record.

    def _lock(self) -> None:
        from filelock import FileLock, Timeout

        path = self._folder / (self.record.id + _LOCK)
        lock = FileLock(path, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
        except (NotImplementedError, OSError, Timeout):
            self.record = replace(self.record, locked=False)
            return
        self._stack.callback(lambda: path.unlink(missing_ok=True))
        self._stack.callback(lock.release)

    def _write(self) -> None:
        if not self._writes:
            return
        path = self._folder / (self.record.id + _RECORD)
        scratch = path.with_suffix(_SCRATCH)
        # Another run may tidy up, and the disk may be full: neither may cost the run anything.
        with suppress(OSError):
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(asdict(self.record), file)
            scratch.replace(path)


def new_record(command: str, output: str, input_: str, **more: Any) -> RunRecord:
    """The record of a run of this process that starts now."""
    now = time.time()
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{int(now % 1 * 1000):03d}-{os.getpid()}"
    where = output if output == "-" else os.path.realpath(output)
    source = input_ if input_ == "-" else os.path.realpath(input_)
    return RunRecord(name, os.getpid(), command, where, source, started=now, updated=now, **more)


def make_private(folder: Path) -> None:
    """Create a folder that only this user can enter.

    Raises:
        OSError: it cannot be created, or belongs to somebody else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "nt":
        folder.chmod(0o700)


# Other processes' runs.


def read_runs(folder: Path | None = None) -> list[RunRecord]:
    """The runs of this machine, the latest first. One whose process has died without saying so has the state `lost`."""
    folder = folder or state_folder()
    found = []
    for path in sorted(folder.glob("*" + _RECORD), reverse=True):
        record = _read(path)
        if record is not None:
            found.append(_truthful(record, folder))
    return found


def find_run(output: str, folder: Path | None = None) -> RunRecord:
    """The latest run that writes an output, or that has a process id or the id of a record.

    Raises:
        RunGone: there is none that goes on.
    """
    runs = read_runs(folder)
    path = os.path.realpath(output)
    matching = [run for run in runs if output in (str(run.pid), run.id) or (run.output == path and output != "-")]
    going = next((run for run in matching if run.goes_on), None)
    if going is not None:
        return going
    if not matching:
        names = [run.output for run in runs if run.goes_on]
        hint = f"current runs write {', '.join(names[:3])}" if names else "mellea status lists the runs"
        raise RunGone(f"no run on this machine writes {output}", hint=hint)
    last = matching[0]
    raise RunGone(
        f"the run that wrote {output} {ending(last)}", hint=last.next_command or "mellea runs shows how runs have ended"
    )


def ending(run: RunRecord) -> str:
    """How a run ended, in a few words."""
    when = clock(run.updated)
    if run.state == "lost":
        return f"ended without notice, it was last seen at {when}"
    code = f", exit code {run.exit_code}" if run.exit_code is not None else ""
    return f"has ended at {when}{code}" + (f": {run.reason}" if run.reason else "")


def clock(seconds: float, now: float | None = None) -> str:
    """A time for people: `14:05`, or with its date when that is another day."""
    at, today = time.localtime(seconds), time.localtime(time.time() if now is None else now)
    same = (at.tm_year, at.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same else "%Y-%m-%d %H:%M", at)


def ask_run(run: RunRecord, request: Mapping[str, Any]) -> str:
    """Send a request to a run.

    Returns:
        What it did, in a sentence.

    Raises:
        UsageError: this system has no Unix sockets, or the run cannot do it.
        RunGone: it does not answer.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("a run can be controlled only where there are Unix sockets", hint="Ctrl-C stops it")
    if not run.socket:
        raise RunGone("the run takes no requests yet", hint=f"try again in a moment, or stop it: kill {run.pid}")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_REPLY_S)
            connection.connect(run.socket)
            connection.sendall(json.dumps(dict(request)).encode() + b"\n")
            with connection.makefile("rb") as answer:
                reply = json.loads(answer.readline(_MOST_BYTES))
    except (OSError, ValueError) as error:
        raise RunGone(
            f"the run does not answer ({error or type(error).__name__})", hint=f"mellea status; kill {run.pid} stops it"
        ) from error
    if not reply["ok"]:
        raise UsageError(reply["text"], hint=reply.get("hint", ""))
    return str(reply["text"])


def _read(path: Path) -> RunRecord | None:
    known = {one.name for one in fields(RunRecord)}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return RunRecord(**{name: value for name, value in stored.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # it is just being tidied up, or of a version that differs


def _truthful(run: RunRecord, folder: Path) -> RunRecord:
    """The record as it is: a run that does not say that it has ended may be dead."""
    if not run.goes_on:
        return run
    alive = _holds_lock(folder / (run.id + _LOCK)) if run.locked else time.time() - run.updated < SILENT_S
    if alive:
        return run
    _remove_socket(run.socket, folder)
    return replace(run, state="lost", finish_at=None, socket="")


def _holds_lock(path: Path) -> bool:
    """Whether a process holds the lock at `path`."""
    from filelock import FileLock, Timeout

    if not path.exists():
        return False
    try:
        with FileLock(path, thread_local=False, fallback_to_soft=False).acquire(blocking=False):
            return False
    except (Timeout, NotImplementedError):
        return True
    except OSError:
        return False


def _remove_socket(name: str, folder: Path) -> None:
    if not name:
        return
    path = Path(name)
    with suppress(OSError):
        path.unlink()
    if path.parent != folder and path.parent.name.startswith("mellea-"):
        with suppress(OSError):
            path.parent.rmdir()


def _prune(folder: Path) -> None:
    """Delete the oldest records of runs that are over."""
    for path in sorted(folder.glob("*" + _RECORD), reverse=True)[_KEPT:]:
        record = _read(path)
        if record is None or not _truthful(record, folder).goes_on:
            for suffix in (_RECORD, _LOCK, _SOCKET, _SCRATCH):
                with suppress(OSError):
                    path.with_suffix(suffix).unlink(missing_ok=True)
