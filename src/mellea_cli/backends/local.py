"""The embedded model: a llama.cpp server as a child process on loopback, its prompt cache, and the backend over it."""

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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.http import WireClient
from mellea_cli.backends.llama_server import ServerConfig
from mellea_cli.errors import BackendError, BackendUnavailable, ModelFileError, ModelMissing, Scope, UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Message, Options

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.openai import OpenAIBackend
    from mellea_cli.models.store import ModelStore

_LOG = logging.getLogger(__name__)

Prefix = tuple[Message, ...]  # Messages that the prompts of a run's items share


# A gigabyte from a slow disk takes a minute.
_START_S = 300.0
_STOP_S = 3.0
_LOG_TAIL = 16 * 1024


class EmbeddedServer:
    """One running server process. It ends with `stop`, or by itself when this process ends.

    Attributes:
        url: the server's address on loopback.
        api_key: random key for requests; the child gets it over its stdin only.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: BinaryIO | None) -> None:
        self._process = process
        self._log = log
        self._last_error = ""
        self.url = ""
        self.api_key = secrets.token_urlsafe(32)

    @classmethod
    async def start(cls, config: ServerConfig) -> Self:
        """Start a server and wait until it answers.

        Raises:
            UsageError: the llama.cpp binding is not installed.
            ModelFileError: the server cannot load this model.
            BackendUnavailable: the process ended, or was not ready in time.
        """
        # Only llama.cpp's log has the reason of a failure. An unnamed file needs no task that reads a pipe.
        kept = None if config.log else tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
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
        try:
            server.url = await server._wait_ready(replace(config, api_key=server.api_key, parent=os.getpid()))
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child was running when the event loop last looked."""
        return self._process.returncode is None

    async def ended(self, within_s: float) -> bool:
        """Whether the child ends within this time. A broken connection is often noticed before the end behind it."""
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def exit_reason(self) -> str:
        """How the child ended, with the first error of its log."""
        code = self._process.returncode
        if code is None:
            return "is still running"
        how = f"exit code {code}"
        if code < 0:
            try:
                how = signal.Signals(-code).name
            except ValueError:
                how = f"signal {-code}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        reason = self._log_error()
        return f"died ({how})" + (f": {reason}" if reason else "")

    async def stop(self) -> None:
        """Close the child's stdin, which ends it, and kill it if that does not help. May be called twice."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            if not await self.ended(_STOP_S if self.url else 0.0):
                process.kill()
                await process.wait()
        except BaseException:
            if process.returncode is None:
                process.kill()
            raise
        finally:
            if self._log is not None:
                self._last_error = self._log_error()
                self._log.close()
                self._log = None

    async def _wait_ready(self, config: ServerConfig) -> str:
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
            await self.ended(_STOP_S)
            raise BackendUnavailable(
                f"the embedded server {self.exit_reason()}", hint="-vv shows its log; a smaller model needs less memory"
            )
        reply = json.loads(line)
        if "url" in reply:
            return str(reply["url"])
        error = reply["error"]
        if reply["cause"] == "not-installed":
            raise UsageError(f"the embedded server is not installed ({error})", hint="pip install 'mellea-cli[local]'")
        raise ModelFileError(
            f"the embedded server cannot load {config.model}: {self._log_error() or error}",
            hint="if it is out of memory try a smaller --concurrency or model; -vv shows the server's log",
        )

    def _log_error(self) -> str:
        """The first error in the log's tail, without time and place: the later ones follow from it."""
        if self._log is None:
            return self._last_error
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _LOG_TAIL))
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        errors = [line.partition(" E ")[2] for line in lines if " E " in line]
        found = errors[0] if errors else next((line for line in reversed(lines) if line.strip()), "")
        return " ".join(found.split())[:300]


# Each file holds tens of megabytes, and another prompt or model makes the old ones useless.
_MAX_STATES = 6
# A request needs something after the prefix. What it is does not matter: the first real request overwrites it.
_AFTER_PREFIX = Message("user", ".")


class PromptCache:
    """Saved states of shared prefixes, loaded into the slots of one running server.

    Args:
        wire: client of the server's root, which has the slots.
        chat: client of its chat completions.
        folder: where states are saved; the server was started with it.
        identity: everything but the messages that a state depends on: model file, context, engine version.
        slots: the server's number of slots.
    """

    # Each slot of llama.cpp's server keeps its latest prompt but evaluates a prefix by itself, which takes a small
    # machine many seconds a slot before the first token. So one slot evaluates the prefix, its state is saved to a
    # file, and the other slots load it. The file is kept: the next run evaluates nothing.

    def __init__(self, wire: WireClient, chat: Backend, folder: Path, identity: str, slots: int) -> None:
        self._wire = wire
        self._chat = chat
        self._folder = folder
        self._identity = identity
        self._slots = slots

    async def warm(self, model: str, prefixes: Sequence[Prefix], notify: Callable[[str], None]) -> None:
        """Load each prefix into its share of the slots. A failure costs time later, and nothing else.

        Args:
            model: the model's name on the server.
            prefixes: in the order in which they will be needed.
            notify: called with a sentence, once, when a prefix must be evaluated.
        """
        notified = False
        for number, prefix in enumerate(prefixes[: self._slots]):
            first, *others = range(number, self._slots, min(len(prefixes), self._slots))
            name = self._file_name(prefix)
            try:
                if await self._load(name, (first, *others)):
                    continue
                if not notified:
                    notify("the model reads its instructions, once: later runs start without that")
                    notified = True
                options = Options(temperature=0.0, max_tokens=1, native={"id_slot": first})
                request = GenerateRequest(model, (*prefix, _AFTER_PREFIX), options)
                async with aclosing(self._chat.stream(request)) as chunks:
                    async for _ in chunks:
                        pass
                await self._call_slot(first, "save", name)
                await self._load(name, others)
            except BackendError as error:
                _LOG.info("each slot evaluates the shared prefix itself: %s", error.message)
        self._prune()

    def _file_name(self, prefix: Prefix) -> str:
        parts = [self._identity, *(f"{message.role}\n{message.content}" for message in prefix)]
        return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() + ".slot"

    async def _load(self, name: str, slots: Sequence[int]) -> bool:
        path = self._folder / name
        if not path.is_file():
            return False
        try:
            for slot in slots:
                await self._call_slot(slot, "restore", name)
        except BackendError:
            # Cut off by a crash, or of an engine with the same version that differs.
            path.unlink(missing_ok=True)
            return False
        with suppress(OSError):  # so that `_prune` removes those that were not used for longest
            os.utime(path)
        return True

    async def _call_slot(self, slot: int, action: str, name: str) -> None:
        await self._wire.post_json(f"/slots/{slot}?action={action}", {"filename": name})

    def _prune(self) -> None:
        with suppress(OSError):
            states = sorted(self._folder.glob("*.slot"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in states[_MAX_STATES:]:
                path.unlink(missing_ok=True)


_MAX_EXITS = 4  # Unexpected ends of the server after which it is not started again
_EXIT_S = 2.0


class EmbeddedServerLost(BackendUnavailable):
    """The embedded server ended so often that it is not started again."""

    kind = "server-lost"
    scope = Scope.RUN


@dataclass(frozen=True, slots=True)
class _Running:
    server: EmbeddedServer
    client: OpenAIBackend


class LocalBackend:
    """One model in an embedded llama.cpp server.

    The server is started by `prepare`, or by the first request. When it ends unexpectedly, the requests in flight fail
    with `BackendUnavailable`, and the next request starts it again, three times at most.

    Args:
        model: a name of the catalogue whose file is in the store, or the path of a GGUF file.
        slots: requests that the server works on at once; each needs memory for its context.
        context_per_slot: tokens of prompt and answer together, for each slot.
        log: pass the server's log on to stderr.
        store: where model files are; `None` for the user's own.
        prompt_cache: folder for saved prefixes; `None` for one next to the store's models.
        small_model: a second model, in a server of its own, for the requests that a small one may answer; empty for
            none. Each of the two servers starts with its first request.

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
        prompt_cache: Path | None = None,
        small_model: str = "",
    ) -> None:
        if slots < 1 or context_per_slot < 1:
            raise UsageError(f"the embedded server needs at least one slot and one token, not {slots}")
        self.model = model
        self.slots = slots
        self._context_per_slot = context_per_slot
        self._log = log
        self._store = store
        self._prompt_cache = prompt_cache
        self._prefixes: tuple[Prefix, ...] = ()
        self._notify: Callable[[str], None] = lambda _: None
        self._running: _Running | None = None
        self._starting = asyncio.Lock()
        self._exits = 0
        self._last_exit = ""
        self._closed = False
        self._small: LocalBackend | None = None
        if small_model and small_model != model:
            self._small = LocalBackend(
                small_model,
                slots=slots,
                context_per_slot=context_per_slot,
                log=log,
                store=store,
                prompt_cache=prompt_cache,
            )

    @classmethod
    def from_settings(cls, settings: BackendSettings) -> Self:
        return cls(
            settings.model,
            slots=settings.concurrency or 1,
            context_per_slot=settings.context_per_slot,
            log=settings.verbose,
            small_model=settings.small_model,
        )

    async def prepare(self, model: str) -> None:
        self._check_model(model)
        await self._ensure_running()

    def share_prefixes(
        self, prefixes: Sequence[Prefix], notify: Callable[[str], None], *, small: Sequence[Prefix] = ()
    ) -> None:
        """Set the shared prefixes of a run's prompts: each start of the server loads them into its slots.

        Args:
            prefixes: in the order in which they will be needed.
            notify: called with a sentence when that takes time.
            small: those of the small model's prompts.
        """
        if self._small is not None:
            self._small.share_prefixes(small, notify)
        else:
            prefixes = (*small, *prefixes)
        self._prefixes = tuple(prefixes)
        self._notify = notify

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        self._check_model(request.model)
        if request.small and self._small is not None:
            async with aclosing(self._small.stream(replace(request, model=self._small.model, small=False))) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        running = await self._ensure_running()
        try:
            async with aclosing(running.client.stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except BackendError as error:
            if error.status is None and await running.server.ended(_EXIT_S):
                raise BackendUnavailable(
                    f"the embedded server {running.server.exit_reason()}",
                    partial=error.partial,
                    hint="-vv shows its log; a smaller --concurrency or model needs less memory",
                ) from error
            raise

    async def models(self) -> list[str]:
        return [self.model]

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of texts by the model's own tokenizer."""
        running = await self._ensure_running()
        wire = WireClient(running.server.url, api_key=running.server.api_key, headers={"Connection": "close"})
        try:
            return [len((await wire.post_json("/tokenize", {"content": text}))["tokens"]) for text in texts]
        finally:
            await wire.aclose()

    async def aclose(self) -> None:
        self._closed = True
        try:
            if self._small is not None:
                await self._small.aclose()
        finally:
            async with self._starting:
                await self._stop()

    def _check_model(self, model: str) -> None:
        if model != self.model:
            raise ModelMissing(
                f"the embedded server runs {self.model}, not {model}", hint=f"ask for it with -m {self.model}"
            )

    async def _ensure_running(self) -> _Running:
        """Return the running server; concurrent callers start it once."""
        running = self._running
        if running is not None and running.server.alive:
            return running
        async with self._starting:
            if self._closed:
                raise UsageError("this backend was closed and cannot be asked any more")
            if self._running is not None and not self._running.server.alive:
                self._count_exit(self._running.server.exit_reason())
                await self._stop()
            if self._running is None:
                self._running = await self._start()
            return self._running

    def _count_exit(self, reason: str) -> None:
        self._exits += 1
        self._last_exit = reason

    async def _start(self) -> _Running:
        from mellea_cli.backends.openai import OpenAIBackend

        if self._exits >= _MAX_EXITS:
            raise EmbeddedServerLost(
                f"the embedded server died {self._exits} times, and is not started again; it {self._last_exit}",
                hint="try a smaller --concurrency or another model; -vv shows the server's log",
            )
        path, prompt_cache = await asyncio.to_thread(self._find_files)
        try:
            server = await EmbeddedServer.start(
                ServerConfig(
                    model=str(path),
                    name=self.model,
                    slots=self.slots,
                    context_per_slot=self._context_per_slot,
                    log=self._log,
                    prompt_cache=str(prompt_cache or ""),
                )
            )
        except BackendUnavailable as error:
            self._count_exit(f"did not start: {error.message}")
            raise
        client = OpenAIBackend(
            base_url=server.url + "/v1", api_key=server.api_key, name=self.name, slots=self.slots, keep_alive=False
        )
        if prompt_cache is not None and self._prefixes:
            facts = path.stat()
            engine = importlib.metadata.version("xllamacpp")
            # A state that was saved with another number of slots cannot be restored.
            shape = f"{self._context_per_slot} {self.slots}"
            identity = f"{path.name} {facts.st_size} {facts.st_mtime_ns} {shape} xllamacpp {engine}"
            wire = WireClient(server.url, api_key=server.api_key, headers={"Connection": "close"})
            try:
                cache = PromptCache(wire, client, prompt_cache, identity, self.slots)
                await cache.warm(self.model, self._prefixes, self._notify)
            finally:
                await wire.aclose()
        return _Running(server, client)

    def _find_files(self) -> tuple[Path, Path | None]:
        """Return the checked model file and the folder of the prompt cache, if it can be made."""
        from mellea_cli.models.store import ModelStore

        store = self._store or ModelStore()
        path = store.find(self.model)
        if path is None:
            raise ModelFileError(
                f"the model {self.model} is not on this machine yet", hint=f"mellea models pull {self.model}"
            )
        folder = self._prompt_cache or store.root.with_name("prompts")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return path, None
        return path, folder

    async def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            try:
                await running.client.aclose()
            finally:
                await running.server.stop()
