"""The server's routes: both chat protocols, and the look-ups that clients make around them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from loopback.batches import BatchRoutes
from loopback.plan import Call, Fault, Settings
from loopback.protocols import ChatProtocol, OllamaProtocol, OpenAIProtocol
from loopback.replies import find_mark, pieces, prompt_of, tokens
from loopback.state import State


class ModelApp:
    """The request handlers of one server."""

    def __init__(self, settings: Settings, state: State) -> None:
        self.settings = settings
        self.state = state
        self.models = list(settings.models)
        self.closing = asyncio.Event()
        self._working = 0

    def build(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._openai_chat)
        app.router.add_post("/api/chat", self._ollama_chat)
        app.router.add_get("/v1/models", self._openai_models)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/ps", self._running)
        app.router.add_post("/api/pull", self._pull)
        BatchRoutes(self).add_to(app)
        app.router.add_get("/counts", self._counts)
        app.router.add_post("/counts/clear", self._clear)
        return app

    async def _openai_chat(self, request: web.Request) -> web.StreamResponse:
        return self._unauthorized(request) or await self._chat(request, OpenAIProtocol())

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        if not self.settings.api_key or request.headers.get("Authorization") == f"Bearer {self.settings.api_key}":
            return None
        return _json(401, {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}})

    async def _ollama_chat(self, request: web.Request) -> web.StreamResponse:
        return await self._chat(request, OllamaProtocol())

    async def _chat(self, request: web.Request, protocol: ChatProtocol) -> web.StreamResponse:
        body = json.loads(await request.read())
        prompt = prompt_of(body)
        index, attempt = self.state.arrive(prompt)
        with self.state.change():
            self.state.connections.add(request.transport.get_extra_info("peername") if request.transport else ())
            if self.settings.record:
                self.state.bodies.append(body)
                self.state.headers.append({name.lower(): value for name, value in request.headers.items()})
        call = Call(prompt, attempt, index, body.get("model", ""), protocol.name, protocol.schema(body), body)
        answer = _Answer(self, request, protocol, call)
        self._working += 1
        try:
            return await answer.send(busy=self._working - 1)
        except (asyncio.CancelledError, ConnectionResetError):
            if not self.closing.is_set():
                with self.state.change():
                    self.state.disconnects += 1
            raise
        finally:
            self._working -= 1
            answer.leave()

    def knows(self, model: str, protocol: str) -> bool:
        """Whether the server has this model; `x` means `x:latest` for Ollama."""
        names = [model, f"{model}:latest"] if protocol == "ollama" and ":" not in model else [model]
        return any(name in self.models for name in names)

    def _look_up(self, request: web.Request) -> None:
        with self.state.change():
            self.state.lookups.append(request.path)

    async def _openai_models(self, request: web.Request) -> web.Response:
        self._look_up(request)
        if self.settings.guards_list and (refusal := self._unauthorized(request)):
            return refusal
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "loopback"} for name in self.models]
        return _json(200, {"object": "list", "data": data})

    async def _tags(self, request: web.Request) -> web.Response:
        self._look_up(request)
        return _json(200, {"models": [{"name": name, "model": name, "size": 1} for name in self.models]})

    async def _version(self, request: web.Request) -> web.Response:
        self._look_up(request)
        return _json(200, {"version": "0.99.0"})

    async def _running(self, request: web.Request) -> web.Response:
        self._look_up(request)
        return _json(200, {"models": []})

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        self._look_up(request)
        name = json.loads(await request.read())["model"]
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        lines: list[dict[str, Any]] = [{"status": "pulling manifest"}]
        if self.settings.pullable is not None and name not in self.settings.pullable:
            lines.append({"error": "pull model manifest: file does not exist"})
        else:
            lines += [{"status": "pulling abc", "digest": "abc", "total": 100, "completed": n} for n in (0, 50, 100)]
            lines.append({"status": "success"})
            self.models.append(name if ":" in name else f"{name}:latest")
        for line in lines:
            await response.write(json.dumps(line).encode() + b"\n")
        await response.write_eof()
        return response

    async def _counts(self, _: web.Request) -> web.Response:
        return _json(200, self.state.counts())

    async def _clear(self, _: web.Request) -> web.Response:
        self.state.clear()
        return _json(200, {})


class _Answer:
    """One chat request on its way to its end, whichever that is."""

    def __init__(self, app: ModelApp, request: web.Request, protocol: ChatProtocol, call: Call) -> None:
        self._app = app
        self._state = app.state
        self._settings = app.settings
        self._request = request
        self._protocol = protocol
        self._call = call
        self._left = False
        self._sent = 0

    def leave(self) -> None:
        """Count the request out, once: before its last bytes go, so that the client's next one never overlaps it."""
        if not self._left:
            self._left = True
            with self._state.change():
                self._state.in_flight -= 1

    async def send(self, *, busy: int) -> web.StreamResponse:
        """Answer, or refuse, or fail as planned; `busy` requests are being worked on already."""
        settings, call = self._settings, self._call
        if settings.max_parallel is not None and busy >= settings.max_parallel:
            with self._state.change():
                self._state.refused += 1
            error = {"error": {"message": "too many requests", "code": "rate_limit_exceeded"}}
            return _json(429, error, {"Retry-After": settings.retry_after})
        if not self._app.knows(call.model, call.protocol):
            return _json(404, {"error": _missing(call)})
        refusal = self._protocol.refusal(call.body, settings.refuse)
        if refusal:
            return web.Response(status=400, text=refusal, content_type="application/json")
        fault = settings.fault(call) or Fault()
        if fault.status is not None:
            return web.Response(status=fault.status, body=fault.body.encode(), headers=dict(fault.headers))
        if call.body.get("stream", call.protocol == "ollama"):
            return await self._stream(fault)
        await asyncio.sleep(settings.latency_s)
        text = self._text(fault)
        return _json(200, self._protocol.whole(text, fault.finish or "stop", self._usage(text), call.body))

    def _text(self, fault: Fault) -> str:
        return self._settings.reply(self._call.prompt, self._call.schema) if fault.text is None else fault.text

    def _usage(self, text: str) -> tuple[int, int]:
        words = sum(len(str(message.get("content") or "").split()) for message in self._call.body["messages"])
        return words, self._sent or len(pieces(text))

    async def _stream(self, fault: Fault) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self._protocol.content_type})
        await response.prepare(self._request)
        for part in pieces(self._settings.thinking):
            await response.write(self._protocol.piece(part, thinking=True))
        latency_s = self._settings.latency_s if fault.latency_s is None else fault.latency_s
        if latency_s:
            await asyncio.sleep(latency_s)
        text = self._text(fault)
        if self._settings.logprobs is not None and self._call.body.get("logprobs") and fault.text is None:
            likely = self._settings.logprobs(self._call.prompt)
            best = max(likely, key=lambda token: likely[token])
            parts = [best] if self._call.schema is None else tokens(text)
            for part in parts:
                await response.write(self._protocol.likely(part, {**likely, part: likely.get(part, -0.1)}))
            text, self._sent = "", len(parts)
        parts = [text[at : at + 4096] for at in range(0, len(text), 4096)] if len(text) > 100_000 else pieces(text)
        for part in parts:
            if fault.after == self._sent:
                break
            await self._piece(response, part, fault)
        if fault.after is not None:
            return await self._fail(response, fault)
        while fault.endless:
            await self._piece(response, fault.endless, fault)
        self.leave()
        if fault.finish is not None:
            await response.write(self._protocol.end(fault.finish, self._usage(text), self._call.body))
            with self._state.change():
                self._state.completed += 1
                asked = self._state.started[self._call.index]
                self._state.answered.append((find_mark(self._call.prompt), asked, time.monotonic()))
        await response.write_eof()
        return response

    async def _piece(self, response: web.StreamResponse, text: str, fault: Fault) -> None:
        delay = fault.drip_s or self._settings.token_delay_s
        # An endless answer to a client that reads as fast as we write must still leave the loop to others.
        if self._sent and (delay or fault.endless):
            await asyncio.sleep(delay)
        await response.write(self._protocol.piece(text))
        self._sent += 1
        with self._state.change():
            self._state.pieces += 1

    async def _fail(self, response: web.StreamResponse, fault: Fault) -> web.StreamResponse:
        if fault.then == "stall":
            await self._app.closing.wait()
        self.leave()
        if fault.then == "half":
            await response.write(self._protocol.piece("never to be seen")[:-12])
        if fault.then == "error":
            await response.write(self._protocol.error(fault.error))
        if fault.then in ("cut", "stall"):
            if self._request.transport is not None:
                self._request.transport.close()
            return response
        await response.write_eof()
        return response


def _missing(call: Call) -> Any:
    if call.protocol == "ollama":
        return f"model '{call.model}' not found"
    return {"message": f"The model `{call.model}` does not exist.", "code": "model_not_found"}


def _json(status: int, value: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=json.dumps(value), content_type="application/json", headers=headers)
