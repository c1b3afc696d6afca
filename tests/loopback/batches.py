"""The Batch API's file and batch routes: upload, content, delete, create, get, list, cancel.

A batch moves on each time somebody looks at it. What comes out is shuffled, spread over an output and an error file,
and counted: each request of a created batch by its custom id, each answer by its prompt, together with the live ones.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from loopback.protocols import OpenAIProtocol
from loopback.replies import pieces, prompt_of

if TYPE_CHECKING:
    from loopback.app import ModelApp

_EXPIRED = {"code": "batch_expired", "message": "This request could not be executed before the completion window."}
_LIMIT = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for test-model.", "param": None}

RouteFault = Callable[[str, int], "int | str | None"]
"""(route, number of the call on it, from 0) → a status to answer with instead of doing it; `after` to do it and then
answer 500; `cut` to do it and then close the connection; `None` for no fault. Routes: upload create get list files
cancel content delete."""


def _fine(_route: str, _number: int) -> int | str | None:
    return None


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How the queue behaves."""

    looks: int = 2
    """Looks at a batch until it is over: the last but one finds it finalizing."""
    held: Callable[[], bool] = lambda: False
    """While this holds no batch gets beyond in_progress."""
    ends: Callable[[int], str] = lambda _: "completed"
    """How a batch ends, by its number on this server: completed, expired, failed or cancelled."""
    expires: Callable[[str], bool] = lambda _: False
    """Prompts that are left over when their batch's time is up: the batch ends as expired."""
    row: Callable[[str], Mapping[str, Any] | None] = lambda _: None
    """What a prompt's line says instead of an answer: `response` and `error`."""
    text: Callable[[str], str | None] = lambda _: None
    """What a prompt is answered with instead of the server's reply."""
    route: RouteFault = _fine
    truncate: Callable[[int], int | None] = lambda _: None
    """Bytes of a content download that are sent before the connection closes, by the download's number."""
    most_requests: int = 50_000
    most_bytes: int = 200_000_000
    most_active: int | None = None
    """Batches at work beyond this number are refused as a whole for the queue's token limit."""
    lists: bool = True
    """Whether batches and files can be listed."""


@dataclass
class _Batch:
    id: str
    number: int
    file_id: str
    metadata: dict[str, str]
    created_at: int
    status: str = "validating"
    looks: int = 0
    output: str = ""
    errors: str = ""
    counts: dict[str, int] = field(default_factory=lambda: {"total": 0, "completed": 0, "failed": 0})
    failure: Mapping[str, Any] | None = None


class BatchRoutes:
    """The queue of one server."""

    def __init__(self, app: ModelApp) -> None:
        self._app = app
        self._files: dict[str, tuple[str, bytes]] = {}
        self._batches: dict[str, _Batch] = {}
        self._calls: Counter[str] = Counter()

    @property
    def _plan(self) -> BatchPlan:
        return self._app.settings.batches

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        routes: list[tuple[str, str, str, Any]] = [
            ("POST", "/v1/files", "upload", self._upload),
            ("GET", "/v1/files", "files", self._list_files),
            ("GET", "/v1/files/{id}/content", "content", self._content),
            ("DELETE", "/v1/files/{id}", "delete", self._delete),
            ("POST", "/v1/batches", "create", self._create),
            ("GET", "/v1/batches", "list", self._list),
            ("GET", "/v1/batches/{id}", "get", self._get),
            ("POST", "/v1/batches/{id}/cancel", "cancel", self._cancel),
        ]
        for method, path, name, handler in routes:
            app.router.add_route(method, path, self._faulty(name, handler))

    def _faulty(self, name: str, handler: Any) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            key = self._app.settings.api_key
            if key and request.headers.get("Authorization") != f"Bearer {key}":
                return _json(401, {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}})
            with self._app.state.change():
                self._app.state.queue_calls += 1
            fault = self._plan.route(name, self._calls[name])
            self._calls[name] += 1
            if isinstance(fault, int):
                await request.read()
                headers = {"Retry-After": "0"} if fault == 429 else {}
                return _json(fault, {"error": {"message": "no"}}, headers)
            response: web.StreamResponse = await handler(request)
            if fault == "after":
                return _json(500, {"error": {"message": "it was done, but you shall not know"}})
            if fault == "cut" and request.transport is not None:
                request.transport.close()
            return response

        return handle

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.multipart()
        name, content, purpose = "", b"", ""
        while (part := await form.next()) is not None:
            if getattr(part, "name", "") == "purpose":
                purpose = (await part.read()).decode()
            else:
                name, content = part.filename or "", bytes(await part.read())
        if purpose != "batch" or not content:
            return _json(400, {"error": {"message": "a file and its purpose are wanted"}})
        with self._app.state.change():
            self._app.state.uploads += 1
            self._app.state.uploaded.append(content)
        return _json(200, self._file(self._keep(name, content)))

    def _keep(self, name: str, content: bytes) -> str:
        file_id = f"file-{len(self._files) + self._calls['delete']}-{random.getrandbits(32):x}"
        self._files[file_id] = (name, content)
        return file_id

    def _file(self, file_id: str) -> dict[str, Any]:
        name, content = self._files[file_id]
        return {"id": file_id, "object": "file", "filename": name, "bytes": len(content), "purpose": "batch"}

    async def _list_files(self, request: web.Request) -> web.Response:
        return self._page(request, [self._file(file_id) for file_id in reversed(self._files)])

    def _page(self, request: web.Request, entries: list[dict[str, Any]]) -> web.Response:
        if not self._plan.lists:
            return _json(404, {"detail": "Not Found"})
        after, limit = request.query.get("after"), int(request.query.get("limit", "20"))
        ids = [entry["id"] for entry in entries]
        start = ids.index(after) + 1 if after in ids else 0
        page = entries[start : start + limit]
        return _json(200, {"object": "list", "data": page, "has_more": start + limit < len(entries)})

    async def _content(self, request: web.Request) -> web.StreamResponse:
        found = self._files.get(request.match_info["id"])
        if found is None:
            return _json(404, {"error": {"message": "No such File object"}})
        most = self._plan.truncate(self._calls["content"] - 1)
        if most is None:
            return web.Response(body=found[1], content_type="application/octet-stream")
        response = web.StreamResponse(headers={"Content-Length": str(len(found[1]))})
        await response.prepare(request)
        await response.write(found[1][:most])
        if request.transport is not None:
            request.transport.close()
        return response

    async def _delete(self, request: web.Request) -> web.Response:
        self._files.pop(request.match_info["id"], None)
        return _json(200, {"id": request.match_info["id"], "deleted": True})

    async def _create(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        found = self._files.get(body["input_file_id"])
        if found is None or body["endpoint"] != "/v1/chat/completions" or not body.get("completion_window"):
            return _json(400, {"error": {"message": "no such file, endpoint or window"}})
        number = len(self._batches)
        batch = _Batch(
            f"batch_{number:04d}", number, body["input_file_id"], body.get("metadata") or {}, int(time.time())
        )
        working = sum(one.status in {"validating", "in_progress", "finalizing"} for one in self._batches.values())
        lines = found[1].splitlines()
        batch.counts["total"] = len(lines)
        if self._plan.most_active is not None and working >= self._plan.most_active:
            batch.status, batch.failure = "failed", _LIMIT
        elif len(lines) > self._plan.most_requests or len(found[1]) > self._plan.most_bytes:
            batch.status, batch.failure = "failed", {"code": "too_large", "message": "The file is too large."}
        else:
            with self._app.state.change():
                self._app.state.batch_rows.update(json.loads(line)["custom_id"] for line in lines)
        self._batches[batch.id] = batch
        with self._app.state.change():
            self._app.state.batches += 1
        return _json(200, self._shown(batch))

    def _shown(self, batch: _Batch) -> dict[str, Any]:
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": {"object": "list", "data": [batch.failure]} if batch.failure else None,
            "input_file_id": batch.file_id,
            "completion_window": "24h",
            "status": batch.status,
            "output_file_id": batch.output or None,
            "error_file_id": batch.errors or None,
            "created_at": batch.created_at,
            "request_counts": batch.counts,
            "metadata": batch.metadata,
        }

    async def _list(self, request: web.Request) -> web.Response:
        return self._page(request, [self._shown(batch) for batch in reversed(self._batches.values())])

    async def _get(self, request: web.Request) -> web.Response:
        batch = self._batches.get(request.match_info["id"])
        if batch is None:
            return _json(404, {"error": {"message": "No batch found"}})
        batch.looks += 1
        with self._app.state.change():
            self._app.state.looks += 1
        if batch.status == "cancelling":
            self._finish(batch, "cancelled")
        elif batch.status in {"validating", "in_progress", "finalizing"}:
            if self._plan.held() or batch.looks < self._plan.looks - 1:
                batch.status = "in_progress"
            elif batch.looks < self._plan.looks:
                batch.status = "finalizing"
            else:
                self._finish(batch, self._plan.ends(batch.number))
        return _json(200, self._shown(batch))

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self._batches.get(request.match_info["id"])
        if batch is None:
            return _json(404, {"error": {"message": "No batch found"}})
        if batch.status in {"validating", "in_progress", "finalizing"}:
            batch.status = "cancelling"
        return _json(200, self._shown(batch))

    def _finish(self, batch: _Batch, status: str) -> None:
        """Answer the batch's requests, or as many as its end lets through."""
        batch.status = status
        if status == "failed":
            batch.failure = {"code": "invalid_json_line", "message": "A line is not as it should be.", "line": 1}
            return
        requests = [json.loads(line) for line in self._files[batch.file_id][1].splitlines()]
        random.Random(batch.number).shuffle(requests)  # noqa: S311 - an order
        if status == "cancelled":
            requests = requests[: len(requests) // 2]
        output, errors = [], []
        for request in requests:
            line = self._answered(request)
            failed = line["error"] or (line["response"] or {}).get("status_code") != 200
            (errors if failed else output).append(json.dumps(line))
            if line["error"] == _EXPIRED:
                batch.status = "expired"
        batch.counts = {"total": batch.counts["total"], "completed": len(output), "failed": len(errors)}
        if output:
            batch.output = self._keep("output.jsonl", "".join(line + "\n" for line in output).encode())
        if errors:
            batch.errors = self._keep("errors.jsonl", "".join(line + "\n" for line in errors).encode())

    def _answered(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return answered(request, self._plan, self._app)


def answered(request: Mapping[str, Any], plan: BatchPlan, app: ModelApp) -> dict[str, Any]:
    """One request's line in an output or error file."""
    body = request["body"]
    prompt = prompt_of(body)
    line: dict[str, Any] = {"id": f"batch_req_{request['custom_id'][:8]}", "custom_id": request["custom_id"]}
    if plan.expires(prompt):
        return {**line, "response": None, "error": _EXPIRED}
    if (told := plan.row(prompt)) is not None:
        return {**line, "response": None, "error": None, **told}
    with app.state.change():
        app.state.attempts[prompt] += 1
    protocol = OpenAIProtocol()
    text = plan.text(prompt)
    if text is None:
        text = app.settings.reply(prompt, protocol.schema(body))
    words = sum(len(str(message.get("content") or "").split()) for message in body["messages"])
    whole = protocol.whole(text, "stop", (words, len(pieces(text))), body)
    return {**line, "response": {"status_code": 200, "request_id": "r", "body": whole}, "error": None}


def _json(status: int, value: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=json.dumps(value), content_type="application/json", headers=headers)
