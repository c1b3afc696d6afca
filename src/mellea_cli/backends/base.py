"""Interface between the engine and a kind of model server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from mellea_cli.backends.security import API_KEY, NetworkPolicy, Secrets
from mellea_cli.messages import Chunk, GenerateRequest


class Backend(Protocol):
    """One kind of model server.

    A backend sends each request once: retries and the number of requests in flight are the engine's. Every error that
    leaves it is a `mellea_cli.errors.BackendError`, or a `UsageError` for a request that the protocol cannot express.
    """

    @property
    def name(self) -> str:
        """Name in the registry, such as `"ollama"`."""

    @property
    def slots(self) -> int | None:
        """Requests that the server works on at once, or `None` when unknown."""

    async def prepare(self, model: str) -> None:
        """Make sure that `model` can answer: start what must be started, check what can be checked.

        Called once before a run's first request; `stream` works without it. Raises `BackendError` or
        `ModelFileError`, with the command that solves it as the hint.
        """

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Send one request and yield its chunks as they arrive.

        Exactly one chunk carries a `finish_reason`. A stream that ends without one raises `StreamBroken`. To cancel
        the request, close the generator: that closes the connection.
        """

    async def models(self) -> list[str]:
        """Names that `GenerateRequest.model` may take on this server."""

    async def aclose(self) -> None:
        """Close every connection and stop what `prepare` started. May be called twice."""


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """Settings for opening a backend; each backend uses those that concern it."""

    model: str = ""  # The model that the run will use; the embedded server loads it
    small_model: str = ""  # A second model of the embedded backend, for requests that a small one may answer
    base_url: str | None = None  # The server's address; `None` takes it from the environment
    api_key: str | None = field(default=None, repr=False)  # `None` takes the key from `secrets`
    # The variable with the key of an OpenAI-compatible server; empty for a server without a key
    key_variable: str = API_KEY
    # Maximum requests in flight: the size of the connection pool, and the slots of the embedded server
    concurrency: int | None = None
    context_per_slot: int = 4096  # Tokens of prompt and answer together for each slot of the embedded server
    connect_timeout_s: float = 10.0
    merge_chunks: bool = False  # Yield texts that arrive together as one chunk, which is cheaper
    verbose: bool = False  # Show the embedded server's log
    network: NetworkPolicy | None = None  # `None` takes the policy from the environment
    secrets: Secrets | None = None  # `None` takes keys from the environment
