"""OpenAI's Batch API: files of requests and replies, and the client of a provider's batch queue.

A batch file has one JSON object a line. A request has `custom_id`, `method`, `url` and `body`; a reply has the same
`custom_id` and either a `response` with `status_code` and `body`, or an `error`. Replies come in any order, in an
output and an error file; vLLM's `run-batch` writes one file, with `body: null` where a request failed. See "Batch API"
in OpenAI's guides, and "The request input object" and "The request output object" in its API reference.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote, urlencode

from mellea_cli.backends.http import WireClient
from mellea_cli.backends.http_errors import ErrorObject, is_set, one_line
from mellea_cli.backends.openai import read_completion, server_url
from mellea_cli.backends.security import NetworkPolicy, Secrets
from mellea_cli.backends.wire_format import LineSplitter, as_object, as_text, decode, encode
from mellea_cli.errors import BackendError, EndpointMissing, NotAuthorized, ServerFault, StreamBroken
from mellea_cli.messages import Completion

CHAT_URL = "/v1/chat/completions"  # Endpoint in every request: part of the format, wherever the server has its API

MAX_REQUESTS = 50_000  # Maximum requests in one file
MAX_BYTES = 200_000_000  # Maximum bytes of one file; the documentation says MB
WINDOW = "24h"  # OpenAI's only completion window; other servers have others

OVER = frozenset({"completed", "failed", "expired", "cancelled"})  # Final states of a batch
_STATES = {"success": "completed", "ended": "completed", "timeout_exceeded": "expired", "canceled": "cancelled"}

_READ_SIZE = 256 * 1024
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply to one request: a completion, or the reason why there is none."""

    custom_id: str
    completion: Completion | None
    error: str = ""


def request_line(custom_id: str, body: Mapping[str, Any]) -> bytes:
    """Encode one request as a line."""
    return encode({"custom_id": custom_id, "method": "POST", "url": CHAT_URL, "body": body}) + b"\n"


def read_reply(line: bytes, source: str) -> Reply | None:
    """Decode one line of an output or error file; `None` for a line that is not a JSON object with a `custom_id`."""
    value = decode(line.decode("utf-8", "replace"))
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
        return None
    custom_id, result = value["custom_id"], as_object(value.get("result"))
    given = value.get("response") or result.get("message") or value
    body = given.get("body", given) if isinstance(given, dict) else None
    body = _as_completion(as_object(decode(body)) or body if isinstance(body, str) else body)
    status = given.get("status_code") if isinstance(given, dict) else None
    refused = next((one for one in (value.get("error"), result.get("error")) if is_set(one)), None)
    if isinstance(body, dict) and "choices" in body and str(status or 200).startswith("2") and not refused:
        try:
            return Reply(custom_id, read_completion(source, body))
        except (BackendError, AttributeError, TypeError) as error:
            # The second and third: an object of another shape than any server's answer.
            reason = error.message if isinstance(error, BackendError) else "the answer has an unknown shape"
            return Reply(custom_id, None, one_line(reason))
    failure = refused or body
    said = ErrorObject.read(failure if isinstance(failure, dict | str) and failure is not value else {})
    words = (str(status or ""), *said.codes[:1], said.message.strip("{}") or str(result.get("type") or ""))
    return Reply(custom_id, None, one_line(" ".join(filter(None, words))) or "no answer and no reason")


def _as_completion(body: object) -> object:
    """The body of a chat completion for a message of Anthropic's batches; any other body as it is."""
    parts = body.get("content") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(parts, list):
        return body
    called = [json.dumps(part["input"]) for part in map(as_object, parts) if "input" in part]
    text = "".join(as_text(as_object(part).get("text")) for part in parts)
    used = as_object(body.get("usage"))
    usage = {"prompt_tokens": used.get("input_tokens", 0), "completion_tokens": used.get("output_tokens", 0)}
    choice = {"message": {"content": text or "".join(called[:1])}, "finish_reason": body.get("stop_reason")}
    return {"choices": [choice], "usage": usage}


@dataclass(frozen=True, slots=True)
class Batch:
    """State of a submitted batch."""

    id: str
    status: str
    input_file_id: str = ""
    output_file_id: str = ""
    error_file_id: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    created_at: float = 0.0  # Seconds since 1970, by the server's clock; 0 when it does not say
    error_code: str = ""
    error: str = ""  # Why the whole batch failed, in the server's words
    tag: str = ""  # The mark that this program put into its metadata

    @property
    def over(self) -> bool:
        return self.status in OVER

    @classmethod
    def read(cls, value: object) -> Batch:
        """Read the API's batch object. Raises `ServerFault` for anything else."""
        if isinstance(value, dict):
            value = as_object(value.get("job")) or value
        if not isinstance(value, dict) or not value.get("id"):
            raise ServerFault("the server answered with something other than a batch")
        counts = as_object(value.get("request_counts"))
        status, errors = str(value.get("status") or "").lower(), value.get("errors") or {}
        said = ErrorObject.read(as_object(errors).get("data") or errors)
        return cls(
            id=str(value["id"]),
            status=_STATES.get(status, status),
            input_file_id=str(value.get("input_file_id") or ""),
            output_file_id=str(value.get("output_file_id") or ""),
            error_file_id=str(value.get("error_file_id") or ""),
            total=int(counts.get("total") or 0),
            completed=int(counts.get("completed") or 0),
            failed=int(counts.get("failed") or 0),
            created_at=float(at) if isinstance(at := value.get("created_at"), int | float) else 0.0,
            error_code=next(iter(said.codes), ""),
            error=one_line(said.message),
            tag=str(as_object(value.get("metadata")).get("mellea") or ""),
        )


class BatchClient:
    """Client of one server's batch queue.

    It sends each request once: the caller knows which may be sent twice. Every method raises `BackendError`. Address,
    policy and key come from the environment where they are `None`.
    """

    def __init__(
        self, base_url: str | None = None, *, network: NetworkPolicy | None = None, secrets: Secrets | None = None
    ) -> None:
        self._wire = WireClient(
            server_url(base_url),
            api_key=(secrets or Secrets.from_environ(os.environ)).key(),
            hints={
                NotAuthorized: "set OPENAI_API_KEY, or --key-file FILE, to a key of this server",
                EndpointMissing: "this server may have no batch queue: omit --offload, or use --export-batch",
            },
            network=network,
        )

    @property
    def base_url(self) -> str:
        return self._wire.base_url

    async def upload(self, path: Path, name: str) -> str:
        """Upload a file of requests under a name and return the server's id for it."""
        boundary = token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
            f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        ).encode()
        end = f"\r\n--{boundary}--\r\n".encode()
        size = path.stat().st_size  # noqa: ASYNC240 - one look at a local file
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + size + len(end)),
        }
        async with self._wire.exchange("POST", "/files", content=_form(head, path, end), headers=headers) as chunks:
            answer = b"".join([part async for part in chunks])
        file_id = as_object(decode(answer.decode("utf-8", "replace"))).get("id")
        if not file_id:
            url = f"{self.base_url}/files"
            raise EndpointMissing(f"{url} answered with something other than a file", hint="is the address right?")
        return str(file_id)

    async def find_file(self, name: str) -> str:
        """Return the id of the file that was uploaded under this name, or nothing when there is none."""
        async for entry in self._list("/files", {"purpose": "batch"}):
            if entry.get("filename") == name:
                return str(entry["id"])
        return ""

    async def delete_file(self, file_id: str) -> None:
        """Remove a file from the server."""
        async with self._wire.exchange("DELETE", f"/files/{quote(file_id, safe='')}") as chunks:
            async for _ in chunks:
                pass

    async def create(self, file_id: str, tag: str, window: str = WINDOW) -> Batch:
        """Submit an uploaded file."""
        body = {
            "input_file_id": file_id,
            "endpoint": CHAT_URL,
            "completion_window": window,
            "metadata": {"mellea": tag},
        }
        return Batch.read(await self._wire.post_json("/batches", body))

    async def get(self, batch_id: str) -> Batch:
        """Fetch the state of a batch."""
        return Batch.read(await self._wire.get_json(f"/batches/{quote(batch_id, safe='')}"))

    async def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch; its answers so far are kept."""
        return Batch.read(await self._wire.post_json(f"/batches/{quote(batch_id, safe='')}/cancel", {}))

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield every batch of the account, the newest first."""
        async for entry in self._list("/batches", {}):
            yield Batch.read(entry)

    async def lines(self, file_id: str) -> AsyncGenerator[list[bytes], None]:
        """Yield the lines of a file as they arrive. Raises `StreamBroken` when the file is cut off."""
        path = f"/files/{quote(file_id, safe='')}/content"
        decoder = LineSplitter()
        async with self._wire.exchange("GET", path) as chunks:
            async for data in chunks:
                if lines := decoder.feed(data):
                    yield lines
        if rest := decoder.flush():
            if isinstance(decode(rest[0].decode("utf-8", "replace")), ValueError):
                raise StreamBroken(f"{self.base_url}{path} ended in the middle of a line")
            yield rest

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def _list(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        after = ""
        while True:
            asked = {**query, "limit": str(_PAGE), **({"after": after} if after else {})}
            page = await self._wire.get_json(f"{path}?{urlencode(asked)}")
            entries = page.get("data") if isinstance(page, dict) else None
            listed = [entry for entry in entries or [] if isinstance(entry, dict) and entry.get("id")]
            for entry in listed:
                yield entry
            if not listed or not page.get("has_more") or listed[-1]["id"] == after:
                return
            after = str(listed[-1]["id"])


async def _form(head: bytes, path: Path, end: bytes) -> AsyncGenerator[bytes, None]:
    yield head
    with path.open("rb") as file:
        while piece := file.read(_READ_SIZE):
            yield piece
    yield end
