"""Backend: llama.cpp's own `/completion`, which takes a plain prompt instead of messages."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.http import WireClient
from mellea_cli.errors import BackendUnavailable, StreamBroken
from mellea_cli.messages import Chunk, GenerateRequest, Usage


class CompletionBackend:
    """Client of one server."""

    name = "llama-completion"
    slots = None

    def __init__(self, settings: BackendSettings) -> None:
        self._wire = WireClient(
            settings.base_url or "http://127.0.0.1:8080",
            max_connections=settings.concurrency,
            connect_timeout_s=settings.connect_timeout_s,
            hints={BackendUnavailable: "start it with `llama-server -m FILE.gguf`"},
            network=settings.network,
        )

    async def prepare(self, model: str) -> None:
        """Check that the server is up: it has only one model."""
        await self._wire.get_json("/health")

    async def models(self) -> list[str]:
        return ["default"]

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        options = request.options
        body = {
            "prompt": "\n\n".join(message.content for message in request.messages) + "\n\n",
            "stream": True,
            "temperature": options.temperature,
            "n_predict": options.max_tokens or -1,
        }
        if request.output_schema is not None:
            body["json_schema"] = request.output_schema
        async with aclosing(self._wire.stream("/completion", body)) as batches:
            async for events in batches:
                for event in events:
                    if not event.get("stop"):
                        yield Chunk(event["content"])
                        continue
                    reason = "length" if event.get("stop_type") == "limit" else "stop"
                    usage = Usage(event.get("tokens_evaluated", 0), event.get("tokens_predicted", 0))
                    yield Chunk(event.get("content", ""), finish_reason=reason, usage=usage)
                    return
        raise StreamBroken(f"the answer from {self._wire.base_url} ended without its last event")

    async def aclose(self) -> None:
        await self._wire.aclose()
