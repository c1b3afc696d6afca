"""The provider's batch queue: OpenAI's routes for files and batches, and the servers that have the same.

See "Batch API" in OpenAI's guides and "Files" and "Batches" in its API reference: at most 50,000 requests and 200 MB in
one file, done within the completion window or expired, at half the price.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from mellea_cli.backends import security
from mellea_cli.backends.http import WireClient
from mellea_cli.backends.http_errors import ErrorHints, ErrorObject, one_line
from mellea_cli.backends.openai import DEFAULT_BASE_URL, whole_answer
from mellea_cli.backends.wire_format import LineDecoder, decoded, encoded
from mellea_cli.errors import BackendError, EndpointMissing, ServerFault, StreamBroken
from mellea_cli.messages import Completion

# The lines of the batch file format: requests as OpenAI's Batch API and `vllm run-batch` read them, and replies.
#
# One JSON object a line. A request has `custom_id`, `method`, `url` and `body`; a reply has the same `custom_id`, and
# either a `response` with `status_code` and `body`, or an `error`. Replies come in any order, spread over an output and
# an error file. (OpenAI's API reference, "The request input object" and "The request output object"; vLLM writes both
# into one file, with `body: null` where a request failed.)

CHAT_URL = "/v1/chat/completions"
"""The endpoint that every request names: it is part of the format, wherever the server has its API."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request: a completion, or the reason why there is none."""

    custom_id: str
    completion: Completion | None
    error: str = ""


def request_line(custom_id: str, body: Mapping[str, Any]) -> bytes:
    """Write one request, with the line's end."""
    return encoded({"custom_id": custom_id, "method": "POST", "url": CHAT_URL, "body": body}) + b"\n"


def read_reply(line: bytes, source: str) -> Reply | None:
    """Read one line of an output or error file.

    Args:
        line: the line.
        source: where it comes from, for messages.

    Returns:
        What it says, or `None` when it is no reply at all: not JSON, no object, without a `custom_id`.
    """
    value = decoded(line.decode("utf-8", "replace"))
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
        return None
    custom_id, response = value["custom_id"], value.get("response")
    body = response.get("body") if isinstance(response, dict) else None
    status = response.get("status_code") if isinstance(response, dict) else None
    if isinstance(body, dict) and status in (200, None) and not value.get("error"):
        try:
            return Reply(custom_id, whole_answer(source, body))
        except (BackendError, AttributeError, TypeError) as error:
            # The second and third: an object of another shape than any server's answer.
            said = error.message if isinstance(error, BackendError) else "the answer has an unknown shape"
            return Reply(custom_id, None, one_line(said))
    return Reply(custom_id, None, _trouble(value.get("error") or body, status))


def _trouble(error: object, status: object) -> str:
    said = ErrorObject.read(error if isinstance(error, dict | str) else {})
    words = " ".join(part for part in (str(status or ""), *said.codes[:1], said.message.strip("{}")) if part)
    return one_line(words) or "no answer and no reason"


MAX_REQUESTS = 50_000
"""Requests that one file may hold."""
MAX_BYTES = 200_000_000
"""Bytes that one file may have; the documentation says MB."""
WINDOW = "24h"
"""The only completion window that OpenAI has; other servers name others."""

OVER = frozenset({"completed", "failed", "expired", "cancelled"})
"""States in which nothing more happens to a batch."""

_PIECE = 256 * 1024
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """How a submitted batch stands."""

    id: str
    status: str
    input_file_id: str = ""
    output_file_id: str = ""
    error_file_id: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    created_at: float = 0.0
    """Seconds since 1970, by the server's clock; 0 when it does not say."""
    error_code: str = ""
    error: str = ""
    """Why it failed as a whole, in the server's words."""
    tag: str = ""
    """Our own mark, from its metadata."""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in OVER

    @classmethod
    def read(cls, value: object) -> Batch:
        """Read a batch object. Raises `ServerFault` when it is none."""
        if not isinstance(value, dict) or not value.get("id"):
            raise ServerFault("the server answered with something other than a batch")
        counts = value.get("request_counts") or {}
        errors = (value.get("errors") or {}).get("data") or [{}]
        first = errors[0] if isinstance(errors[0], dict) else {}
        return cls(
            id=str(value["id"]),
            status=str(value.get("status") or ""),
            input_file_id=str(value.get("input_file_id") or ""),
            output_file_id=str(value.get("output_file_id") or ""),
            error_file_id=str(value.get("error_file_id") or ""),
            total=int(counts.get("total") or 0),
            completed=int(counts.get("completed") or 0),
            failed=int(counts.get("failed") or 0),
            created_at=float(value.get("created_at") or 0.0),
            error_code=str(first.get("code") or ""),
            error=one_line(str(first.get("message") or "")),
            tag=str((value.get("metadata") or {}).get("mellea") or ""),
        )


class BatchClient:
    """Talks to one server's batch queue. Nothing is sent again here: whoever calls knows what may be sent twice.

    Every method raises `BackendError` as fits what happened.

    Args:
        base_url: up to and including `/v1`; `None` takes `OPENAI_BASE_URL`, else OpenAI's own.
    """

    def __init__(self, base_url: str | None = None) -> None:
        self._wire = WireClient(
            base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL,
            api_key=security.api_key(os.environ),
            advice=ErrorHints(
                not_authorized="set OPENAI_API_KEY, or --key-file FILE, to a key of this server",
                endpoint_missing="this server may have no batch queue: leave --offload out, or use --export-batch",
            ),
        )

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._wire.base_url

    async def upload(self, path: Path, name: str) -> str:
        """Send a file of requests, piece by piece.

        Args:
            path: the file.
            name: how the server calls it.

        Returns:
            The file's id there.
        """
        boundary = secrets.token_hex(16)
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
        return _file_id(answer, f"{self.base_url}/files")

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
        """Look how a batch stands."""
        return Batch.read(await self._wire.get_json(f"/batches/{quote(batch_id, safe='')}"))

    async def cancel(self, batch_id: str) -> Batch:
        """Ask for a batch to be cancelled; what it has answered until then is kept."""
        return Batch.read(await self._wire.post_json(f"/batches/{quote(batch_id, safe='')}/cancel", {}))

    async def batches(self) -> AsyncIterator[Batch]:
        """Every batch of the account, the newest first."""
        async for entry in self._list("/batches", {}):
            yield Batch.read(entry)

    async def lines(self, file_id: str) -> AsyncGenerator[list[bytes], None]:
        """The lines of a file as they arrive.

        Raises:
            StreamBroken: the file ends in the middle, or in the middle of a line.
        """
        path = f"/files/{quote(file_id, safe='')}/content"
        decoder = LineDecoder()
        async with self._wire.exchange("GET", path) as chunks:
            async for data in chunks:
                if lines := decoder.feed(data):
                    yield lines
        if rest := decoder.flush():
            try:
                json.loads(rest[0])
            except ValueError:
                raise StreamBroken(f"{self.base_url}{path} ended in the middle of a line") from None
            yield rest

    async def aclose(self) -> None:
        """Close every connection."""
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
        while piece := file.read(_PIECE):
            yield piece
    yield end


def _file_id(answer: bytes, url: str) -> str:
    try:
        file_id = json.loads(answer).get("id")
    except (ValueError, AttributeError):
        file_id = None
    if not file_id:
        raise EndpointMissing(f"{url} answered with something other than a file", hint="is the address right?")
    return str(file_id)


def reading(client: BatchClient, file_id: str) -> aclosing[AsyncGenerator[list[bytes], None]]:
    """Hold this around the reading of a file's lines, so that its connection is given back."""
    return aclosing(client.lines(file_id))
