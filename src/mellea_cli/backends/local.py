"""The embedded model: a llama.cpp server of our own, on loopback, for the length of a run."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.backends.embedded import EmbeddedServer
from mellea_cli.backends.http import WireClient
from mellea_cli.backends.prefixes import Prefix, Prefixes
from mellea_cli.errors import BackendError, BackendUnavailable, ModelFileError, ModelMissing, Scope, UsageError
from mellea_cli.messages import Chunk, GenerateRequest

if TYPE_CHECKING:
    from mellea_cli.backends.openai import OpenAIBackend
    from mellea_cli.models.store import ModelStore

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
            prefixes = Prefixes(wire, client, self._states, identity, self._slots)
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
