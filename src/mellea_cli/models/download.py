"""Fetching of model files: partial files, and the Hugging Face hub and its cache as sources."""

# The package `huggingface_hub` (2.4) cannot replace the hub client: it deletes an interrupted download, which leaves
# nothing to resume, and retries an unreachable hub for 20 seconds and more before the next source gets its turn.

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, Self
from urllib.parse import quote

from mellea_cli.backends.security import NetworkPolicy, check_certificates, is_true
from mellea_cli.models.catalogue import ModelFile

if TYPE_CHECKING:
    import httpx

BLOCK = 1024 * 1024  # Bytes that are read or written at a time


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a pull."""

    # `waiting` for another process that pulls the same file, `fetching`, or `checking` the hash
    phase: Literal["waiting", "fetching", "checking"]
    done: int  # Bytes fetched, or bytes hashed
    total: int
    source: str = ""


ProgressCallback = Callable[[Progress], None]  # Called often, in the thread that pulls; must return at once


def ignore_progress(progress: Progress) -> None:
    """Do nothing."""


class SourceFailed(Exception):
    """A source cannot provide the file; the text is its reason, in one line.

    It never leaves this package: the store tries the next source, and names every reason when none is left.
    """


class ModelSource(Protocol):
    """A place that may have a model file."""

    @property
    def name(self) -> str:
        """Name in progress and errors."""

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        """Append the missing bytes to `partial`, until it holds `model.size` bytes.

        The bytes in `partial` may come from another source: every source has the same file, and the store checks its
        hash. Raises `SourceFailed`, and `OSError` when the disk refuses.
        """


# Entry point of `mellea.model_sources`: opens a source, given the environment and the network policy
ModelSourceFactory = Callable[[Mapping[str, str], NetworkPolicy], ModelSource]


class PartialFile:
    """The beginning of a file with `size` bytes that is being fetched; a context manager that keeps it open."""

    # A power failure may damage its tail: the finished file then has the wrong hash and is fetched again.

    _file: BinaryIO
    received: int  # bytes in the file

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size

    @property
    def complete(self) -> bool:
        return self.received == self.size

    def __enter__(self) -> Self:
        self._open()
        # An adopted file that a crash has left is complete. One that is not could belong to another program as well.
        if self.received > self.size or (not self.complete and self.path.stat().st_nlink > 1):
            self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, data: bytes) -> None:
        """Add bytes at the end. Raises `ValueError` when they would be more than `size`."""
        if self.received + len(data) > self.size:
            raise ValueError(f"more than the {self.size} bytes that the file has")
        self._file.write(data)
        self.received += len(data)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def restart(self) -> None:
        self._discard()
        self._open()

    def adopt(self, whole: Path) -> None:
        """Replace the content with a complete file on this machine: as a hard link, else as a copy."""
        self._discard()
        try:
            self.path.hardlink_to(whole)
        except OSError:
            shutil.copyfile(whole, self.path)
        self._open()
        if not self.complete:
            self.restart()

    def move_to(self, target: Path) -> None:
        """Rename the finished file; this object must not be used afterwards."""
        self.sync()
        self._file.close()
        self.path.replace(target)
        # Makes the rename durable. Windows cannot sync folders: there the file system chooses the time.
        if os.name == "posix":
            handle = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _open(self) -> None:
        self._file = self.path.open("ab")
        self.received = self._file.tell()

    def _discard(self) -> None:
        # Unlinked, not emptied: after `adopt` another program's cache may have the same bytes.
        self._file.close()
        self.path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Return a file's size; 0 when it does not exist, or is removed by another process at this moment."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class HubCache:
    """Files that other programs have fetched from the hub to this machine."""

    # The store gets a hard link, or a copy where that is impossible: it needs no second gigabyte, and the file stays
    # when the hub's own tools clear their cache. Nothing is ever written through the link.

    name = "hub cache"

    def __init__(self, environ: Mapping[str, str], _: NetworkPolicy | None = None) -> None:
        self._environ = environ

    @property
    def root(self) -> Path:
        """The folder with the hub's repositories, found as the hub's own tools find it."""
        environ = self._environ
        for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            if environ.get(variable):
                return Path(environ[variable]).expanduser()
        if environ.get("HF_HOME"):
            return Path(environ["HF_HOME"]).expanduser() / "hub"
        caches = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return caches / "huggingface" / "hub"

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        """Adopt a copy of the right size; the store checks its hash."""
        snapshots = self.root / ("models--" + model.hub_repo.replace("/", "--")) / "snapshots"
        for path in sorted(snapshots.glob(f"*/{model.file}")) if model.hub_repo else ():
            # A snapshot has symbolic links into a folder of blobs, and only a real file can be hard-linked.
            blob = path.resolve()
            if size_of(blob) == model.size:
                partial.adopt(blob)
                progress(Progress("fetching", model.size, model.size, self.name))
                return
        raise SourceFailed(f"no copy in {self.root}")


DEFAULT_ENDPOINT = "https://huggingface.co"

# For each address of the host: an unreachable hub must not delay the next source.
_CONNECT_S = 3.0
_STALL_S = 30.0
_MAX_REQUESTS = 5
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Hub:
    """The Hugging Face hub, or the mirror in `HF_ENDPOINT`.

    `environ` has the variables of the hub's own tools: `HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_TOKEN`. A broken
    transfer is resumed as long as each request brings new bytes; an unreachable or hanging hub is asked once.
    """

    # No `If-Range`: if the hub's file changed, its size or its hash would be wrong.

    name = "Hugging Face hub"

    def __init__(
        self, environ: Mapping[str, str], network: NetworkPolicy | None = None, *, stall_s: float = _STALL_S
    ) -> None:
        self._endpoint = (environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._offline = is_true(environ.get("HF_HUB_OFFLINE", ""))
        self._token = environ.get("HF_TOKEN", "").strip()
        self._stall_s = stall_s
        self._network = network or NetworkPolicy.from_environ(environ)

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        if not model.hub_repo:
            raise SourceFailed("does not have this file")
        if self._offline:
            raise SourceFailed("not asked, HF_HUB_OFFLINE is set")
        for requests_left in reversed(range(_MAX_REQUESTS)):
            before = partial.received
            try:
                self._get(model, partial, progress)
            except SourceFailed:
                if partial.received <= before or requests_left == 0:
                    raise
            if partial.complete:
                return
        raise SourceFailed(f"stopped at {partial.received} of {model.size} bytes")

    def _get(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        import httpx

        url = f"{self._endpoint}/{quote(model.hub_repo)}/resolve/main/{quote(model.file)}"
        headers = {"Accept-Encoding": "identity", "User-Agent": "mellea-cli"}
        if partial.received:
            headers["Range"] = f"bytes={partial.received}-"
        if self._token:
            # The client drops this header on a redirect to another host, as the hub's redirects are.
            headers["Authorization"] = f"Bearer {self._token}"

        def check_policy(request: httpx.Request) -> None:
            self._network.check_url(str(request.url))

        check_certificates(url)
        timeout = httpx.Timeout(self._stall_s, connect=min(_CONNECT_S, self._stall_s))
        # The hook sees the requests to which redirects lead, too.
        hooks = {"request": [check_policy]}
        try:
            with (
                httpx.Client(timeout=timeout, follow_redirects=True, event_hooks=hooks) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                self._check_response(response, model, partial)
                for block in response.iter_raw():
                    partial.append(block)
                    progress(Progress("fetching", partial.received, model.size, self.name))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, httpx.ConnectTimeout):
                reason = "no connection in time"
            elif isinstance(error, httpx.ConnectError):
                reason = "cannot connect"
            elif isinstance(error, httpx.TimeoutException):
                reason = "stopped sending"
            raise SourceFailed(f"{self._endpoint}: {reason}") from error
        except ValueError as error:
            raise SourceFailed(f"{self._endpoint} sent {error}") from error

    def _check_response(self, response: httpx.Response, model: ModelFile, partial: PartialFile) -> None:
        """Refuse a response that cannot be the rest of the file, before its gigabyte is fetched."""
        status = response.status_code
        if status in (401, 403) and self._token:
            raise SourceFailed(f"{self._endpoint} refused HF_TOKEN ({status}); the file needs none, so unset it")
        if status not in (200, 206):
            raise SourceFailed(f"{self._endpoint} answered {status} {response.reason_phrase}".rstrip())
        for answer in (*response.history, response):
            # The hub states a large file's SHA-256 in this header.
            stated = answer.headers.get("X-Linked-Etag", "").strip('"').lower()
            if _SHA256.fullmatch(stated) and stated != model.sha256:
                raise SourceFailed(f"{self._endpoint} has another file under this name (SHA-256 {stated[:12]}…)")
        if status == 200:
            total = response.headers.get("Content-Length", "")
            if partial.received:
                partial.restart()  # the server does not support ranges and sends everything again
        else:
            content_range = response.headers.get("Content-Range", "").strip()
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
            if found is None or int(found[1]) != partial.received:
                raise SourceFailed(f"{self._endpoint} sent another range than the requested one")
            total = found[2]
        if total.isdigit() and int(total) != model.size:
            raise SourceFailed(f"{self._endpoint} has {total} bytes under this name, not {model.size}")
