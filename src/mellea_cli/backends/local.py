"""The embedded model: a llama.cpp server of our own, on loopback, for the length of a run."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from mellea_cli.backends.http import WireClient
from mellea_cli.backends.llama_server import ServerConfig
from mellea_cli.errors import BackendError, BackendUnavailable, ModelFileError, ModelMissing, Scope, UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Message, Options

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.openai import OpenAIBackend
    from mellea_cli.models.store import ModelStore


# The life of the embedded server's process, seen from the parent.

_START_S = 300.0
"""A gigabyte from a slow disk takes a minute; nothing takes five."""
_STOP_S = 3.0
_LOG_TAIL = 16 * 1024


class EmbeddedServer:
    """One running server process. Made by `start`; ends with `stop`, or by itself when this process ends.

    Attributes:
        url: the server's address on loopback.
        api_key: what requests must carry; random, and told to the child over its stdin only.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: BinaryIO | None) -> None:
        self._process = process
        self._log = log
        self._last_error = ""
        self.url = ""
        self.api_key = secrets.token_urlsafe(32)

    @classmethod
    async def start(
        cls,
        model: Path,
        *,
        name: str,
        slots: int,
        context_per_slot: int,
        log: bool = False,
        states: Path | None = None,
    ) -> Self:
        """Start a server and wait until it answers.

        Args:
            model: the GGUF file.
            name: what the server calls the model.
            slots: requests that are worked on at once.
            context_per_slot: tokens of prompt and answer together, for each slot.
            log: pass the server's log on to stderr.
            states: a folder in which the state of a slot may be saved.

        Raises:
            UsageError: the llama.cpp binding is not installed.
            ModelFileError: the server cannot load this model.
            BackendUnavailable: the process died, or was not ready in time.
        """
        # llama.cpp's reason for a failure stands in its log only: kept in an unnamed file, it costs no reader.
        kept = None if log else tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a file `json.py` in the current folder must not be imported
                "-m",
                "mellea_cli.backends.llama_server",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=kept,
                start_new_session=True,  # out of a terminal's Ctrl-C even while Python is starting
            )
        except BaseException as error:
            if kept is not None:
                kept.close()
            if isinstance(error, OSError):
                raise BackendUnavailable(f"cannot start the embedded server: {error.strerror or error}") from error
            raise
        server = cls(process, kept)
        kept_in = str(states) if states else ""
        config = ServerConfig(str(model), name, slots, context_per_slot, server.api_key, os.getpid(), log, kept_in)
        try:
            server.url = await server._ready(config)
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child was running when the event loop last looked."""
        return self._process.returncode is None

    async def gone(self, within_s: float) -> bool:
        """Wait a moment for the child to end: a broken connection is often noticed before the death behind it."""
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def obituary(self) -> str:
        """How the child ended, with the last error of its log."""
        code = self._process.returncode
        if code is None:
            return "is still running"
        how = _signal_name(-code) if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        reason = self._reason()
        return f"died ({how})" + (f": {reason}" if reason else "")

    async def stop(self) -> None:
        """Close the child's stdin, which ends it, and kill it if that does not help. May be called twice."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            if not await self.gone(_STOP_S if self.url else 0.0):
                process.kill()
                await process.wait()
        except BaseException:
            if process.returncode is None:
                process.kill()
            raise
        finally:
            if self._log is not None:
                self._last_error = self._reason()
                self._log.close()
                self._log = None

    async def _ready(self, config: ServerConfig) -> str:
        """Send the configuration, wait for the reply, return the address in it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the child was started without pipes")
        try:
            async with asyncio.timeout(_START_S):
                stdin.write(json.dumps(asdict(config)).encode() + b"\n")
                await stdin.drain()
                line = await stdout.readline()
        except TimeoutError:
            raise BackendUnavailable(
                f"the embedded server was not ready after {_START_S:.0f} s",
                hint="is the disk or the network drive with the model very slow? -vv shows the server's log",
            ) from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            await self.gone(_STOP_S)
            raise BackendUnavailable(
                f"the embedded server {self.obituary()}", hint="-vv shows its log; a smaller model needs less memory"
            )
        reply = json.loads(line)
        if "url" in reply:
            return str(reply["url"])
        raise self._refusal(reply["cause"], reply["error"], config.model)

    def _refusal(self, cause: str, error: str, model: str) -> UsageError | ModelFileError:
        if cause == "not-installed":
            return UsageError(f"the embedded server is not installed ({error})", hint="pip install 'mellea-cli[local]'")
        return ModelFileError(
            f"the embedded server cannot load {model}: {self._reason() or error}",
            hint="if it is out of memory try a smaller --concurrency or model; -vv shows the server's log",
        )

    def _reason(self) -> str:
        """The first error of the log's tail, without its time and place; the later ones only follow from it."""
        if self._log is None:
            return self._last_error
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _LOG_TAIL))
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        errors = [line.partition(" E ")[2] for line in lines if " E " in line]
        found = errors[0] if errors else next((line for line in reversed(lines) if line.strip()), "")
        return " ".join(found.split())[:300]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# The beginning that all prompts of a run share, evaluated once for all slots of the embedded server.
#
# Each slot of llama.cpp's server keeps the prompt it saw last, but evaluates a prompt's beginning for itself: on a
# small machine that is many seconds a slot before the first token. So one slot evaluates it, its state is saved to a
# file, and the others take the file in. The file stays beside the models, so the next run does not evaluate anything.

_LOG = logging.getLogger(__name__)

# Each file holds tens of megabytes, and a new prompt or model makes the old ones useless.
_KEPT = 6
# Something has to follow the prefix; what it is does not matter, a real request writes over it.
_AFTER = Message("user", ".")

Prefix = tuple[Message, ...]


class PromptCache:
    """Puts prompt beginnings into the slots of one running server.

    Args:
        wire: speaks to the server itself, not to its `/v1`.
        chat: speaks to its chat completions.
        folder: where states are kept; the server was started with it.
        identity: tells apart everything but the messages that a state depends on: model file, context, engine version.
        slots: how many slots the server has.
    """

    def __init__(self, wire: WireClient, chat: Backend, folder: Path, identity: str, slots: int) -> None:
        self._wire = wire
        self._chat = chat
        self._folder = folder
        self._identity = identity
        self._slots = slots

    async def warm(self, model: str, prefixes: Sequence[Prefix], tell: Callable[[str], None]) -> None:
        """Put each prefix into its share of the slots. What goes wrong costs time later, and nothing else.

        Args:
            model: the model's name on the server.
            prefixes: the beginnings, in the order in which they will be needed.
            tell: told once that this takes a moment, when nothing is kept from an earlier run.
        """
        told = False
        for place, prefix in enumerate(prefixes[: self._slots]):
            share = range(place, self._slots, min(len(prefixes), self._slots))
            name = self._name(prefix)
            try:
                if await self._restored(name, share):
                    continue
                if not told:
                    tell("the model reads its instructions, once: later runs start without that")
                    told = True
                await self._evaluate(model, prefix, share[0])
                await self._slot(share[0], "save", name)
                await self._restored(name, share[1:])
            except BackendError as error:
                _LOG.info("the prompt's beginning is evaluated slot by slot: %s", error.message)
        self._prune()

    def _name(self, prefix: Prefix) -> str:
        parts = [self._identity, *(f"{message.role}\n{message.content}" for message in prefix)]
        return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() + ".slot"

    async def _restored(self, name: str, share: Sequence[int]) -> bool:
        path = self._folder / name
        if not path.is_file():
            return False
        try:
            for slot in share:
                await self._slot(slot, "restore", name)
        except BackendError:
            # Cut short by a crash, or from an engine that only seemed the same: it is made anew.
            path.unlink(missing_ok=True)
            return False
        with suppress(OSError):  # so that the oldest is the one that was not used for longest
            os.utime(path)
        return True

    async def _evaluate(self, model: str, prefix: Prefix, slot: int) -> None:
        options = Options(temperature=0.0, max_tokens=1, native={"id_slot": slot})
        request = GenerateRequest(model, (*prefix, _AFTER), options)
        async with aclosing(self._chat.stream(request)) as chunks:
            async for _ in chunks:
                pass

    async def _slot(self, slot: int, action: str, name: str) -> None:
        await self._wire.post_json(f"/slots/{slot}?action={action}", {"filename": name})

    def _prune(self) -> None:
        with suppress(OSError):
            kept = sorted(self._folder.glob("*.slot"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in kept[_KEPT:]:
                path.unlink(missing_ok=True)


_DEATHS = 4
"""Deaths of the server after which it is not started again."""
_DEATH_S = 2.0


class EmbeddedServerLost(BackendUnavailable):
    """The embedded server died so often that starting it once more makes no sense."""

    kind = "server-lost"
    scope = Scope.RUN


@dataclass(frozen=True, slots=True)
class _Running:
    """A server and the client that speaks to it."""

    server: EmbeddedServer
    client: OpenAIBackend


class LocalBackend:
    """Runs one model in an embedded llama.cpp server and talks to it as to any OpenAI-compatible server.

    The server is started by `prepare`, or by the first request. When it dies, the requests that it was working on fail
    with `BackendUnavailable`, and the next request starts it again, three times at most.

    Args:
        model: a name of the catalogue whose file is in the store, or the path of a GGUF file.
        slots: requests that are worked on at once; memory for the context grows with it.
        context_per_slot: tokens of prompt and answer together that each request has room for.
        log: pass the server's log on to stderr.
        store: where model files are looked up; by default the user's own.
        states: the folder for what `expect` makes it keep; by default beside the store's models.

    Raises:
        UsageError: `slots` or `context_per_slot` is not positive.
    """

    name = "local"

    def __init__(
        self,
        model: str,
        *,
        slots: int,
        context_per_slot: int = 2048,
        log: bool = False,
        store: ModelStore | None = None,
        states: Path | None = None,
    ) -> None:
        if slots < 1 or context_per_slot < 1:
            raise UsageError(f"the embedded server needs at least one slot and one token, not {slots}")
        self._model = model
        self._slots = slots
        self._context_per_slot = context_per_slot
        self._log = log
        self._store = store
        self._states = states
        self._expected: tuple[Prefix, ...] = ()
        self._tell: Callable[[str], None] = _unsaid
        self._running: _Running | None = None
        self._starting = asyncio.Lock()
        self._deaths = 0
        self._last_death = ""
        self._closed = False

    @property
    def slots(self) -> int:
        """Requests the server works on at once."""
        return self._slots

    async def prepare(self, model: str) -> None:
        """Find the model file and start the server.

        Raises:
            ModelMissing: this backend was opened for another model.
            ModelFileError: the file is not here, or cannot be loaded.
            UsageError: no such model, or the llama.cpp binding is not installed.
            BackendUnavailable: the server cannot be started.
        """
        self._check(model)
        await self._client()

    def expect(self, prefixes: Sequence[Prefix], tell: Callable[[str], None]) -> None:
        """Say which beginnings the prompts of a run share: each start of the server puts them into its slots.

        Args:
            prefixes: the beginnings, in the order in which they will be needed.
            tell: told in a sentence when that takes a moment.
        """
        self._expected = tuple(prefixes)
        self._tell = tell

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Send one request and yield its chunks; `mellea_cli.backends.base.Backend.stream` has the contract.

        Before its first chunk it also raises what `prepare` raises, when it has to start the server.
        """
        self._check(request.model)
        running = await self._client()
        try:
            async with aclosing(running.client.stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except BackendError as error:
            if error.status is None and await running.server.gone(_DEATH_S):
                raise BackendUnavailable(
                    f"the embedded server {running.server.obituary()}",
                    partial=error.partial,
                    hint="-vv shows its log; a smaller --concurrency or model needs less memory",
                ) from error
            raise

    async def models(self) -> list[str]:
        """The one model that this backend was opened for."""
        return [self._model]

    async def aclose(self) -> None:
        """Close the connections and stop the server. May be called twice."""
        self._closed = True
        async with self._starting:
            await self._stop()

    def _check(self, model: str) -> None:
        if model != self._model:
            raise ModelMissing(
                f"the embedded server runs {self._model}, not {model}", hint=f"ask for it with -m {self._model}"
            )

    async def _client(self) -> _Running:
        """The running server, started when there is none. Concurrent callers start it once."""
        running = self._running
        if running is not None and running.server.alive:
            return running
        async with self._starting:
            if self._closed:
                raise UsageError("this backend was closed and cannot be asked any more")
            if self._running is not None and not self._running.server.alive:
                self._died(self._running.server.obituary())
                await self._stop()
            if self._running is None:
                self._running = await self._start()
            return self._running

    def _died(self, how: str) -> None:
        self._deaths += 1
        self._last_death = how

    async def _start(self) -> _Running:
        from mellea_cli.backends.openai import OpenAIBackend

        if self._deaths >= _DEATHS:
            raise EmbeddedServerLost(
                f"the embedded server died {self._deaths} times, and is not started again; it {self._last_death}",
                hint="try a smaller --concurrency or another model; -vv shows the server's log",
            )
        path = await asyncio.to_thread(self._file)
        self._states = await asyncio.to_thread(self._states_folder)
        try:
            server = await EmbeddedServer.start(
                path,
                name=self._model,
                slots=self._slots,
                context_per_slot=self._context_per_slot,
                log=self._log,
                states=self._states,
            )
        except BackendUnavailable as error:
            self._died(f"did not start: {error.message}")
            raise
        client = OpenAIBackend(
            base_url=server.url + "/v1",
            api_key=server.api_key,
            name=self.name,
            slots=self._slots,
            keep_alive=False,
        )
        await self._warm(server, client, _identity(path, self._context_per_slot))
        return _Running(server, client)

    async def _warm(self, server: EmbeddedServer, client: OpenAIBackend, identity: str) -> None:
        if self._states is None or not self._expected:
            return
        wire = WireClient(server.url, api_key=server.api_key, headers={"Connection": "close"})
        try:
            prefixes = PromptCache(wire, client, self._states, identity, self._slots)
            await prefixes.warm(self._model, self._expected, self._tell)
        finally:
            await wire.aclose()

    def _states_folder(self) -> Path | None:
        """The folder for saved states, made when it is not there; without one nothing is kept."""
        from mellea_cli.models.store import ModelStore

        folder = self._states or (self._store or ModelStore()).root.with_name("prompts")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return None
        return folder

    def _file(self) -> Path:
        """The model's file, checked. Blocks when it has to be hashed."""
        from mellea_cli.models.store import ModelStore

        path = (self._store or ModelStore()).find(self._model)
        if path is None:
            raise ModelFileError(
                f"the model {self._model} is not on this machine yet", hint=f"mellea models pull {self._model}"
            )
        return path

    async def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            try:
                await running.client.aclose()
            finally:
                await running.server.stop()


def _unsaid(_: str) -> None:
    """Tell nobody."""


def _identity(path: Path, context_per_slot: int) -> str:
    facts = path.stat()
    engine = importlib.metadata.version("xllamacpp")
    return f"{path.name} {facts.st_size} {facts.st_mtime_ns} {context_per_slot} xllamacpp {engine}"
