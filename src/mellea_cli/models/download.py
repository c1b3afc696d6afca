"""Model files from the Hugging Face hub, and from the cache that its own tools keep on this machine.

The `huggingface_hub` package is not needed for this: a download is one GET with a Range, and the store checks the hash.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, Self
from urllib.parse import quote

from mellea_cli.backends.security import NetworkPolicy
from mellea_cli.models.catalogue import ModelFile

if TYPE_CHECKING:
    import httpx


# A file that is still being fetched, and can be gone on with after any kind of end.

_CHECKPOINT = 16 * 1024 * 1024
"""Bytes between two syncs: what a power cut can cost at most."""


class PartialFile:
    """The beginning of a file, with a note beside it of how many bytes are surely on disk.

    After a crash the tail behind that number may be torn (a grown file whose last pages never reached the disk), so
    it is cut off on opening. Leaving the `with` block syncs, whatever the reason for leaving.

    Args:
        path: where the bytes are gathered; the note stands at `path` + `.json`.
        size: how many bytes the whole file has; more are refused.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._note = path.with_name(path.name + ".json")
        self._file: BinaryIO | None = None
        self._kept = 0
        self._synced = 0

    @property
    def kept(self) -> int:
        """Bytes gathered so far."""
        return self._kept

    @property
    def complete(self) -> bool:
        """Whether all bytes are there; their hash is another question."""
        return self._kept == self.size

    def __enter__(self) -> Self:
        noted = _noted(self._note)
        self._open(noted if noted <= self.size else 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            try:
                self.sync()
            finally:
                self._file.close()
                self._file = None

    def append(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            ValueError: there would be more than `size`.
        """
        if self._kept + len(data) > self.size:
            raise ValueError(f"more than the {self.size} bytes that the file has")
        self._opened().write(data)
        self._kept += len(data)
        if self._kept - self._synced >= _CHECKPOINT:
            self.sync()

    def sync(self) -> None:
        """Bring everything appended so far to the disk, then note how much that is."""
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        if self._synced != self._kept:
            beside = self._note.with_name(self._note.name + ".new")
            beside.write_text(json.dumps({"kept": self._kept}), encoding="utf-8")
            beside.replace(self._note)
            self._synced = self._kept

    def restart(self) -> None:
        """Forget every byte."""
        self._clear()
        self._open(0)

    def adopt(self, whole: Path) -> None:
        """Take a whole file that is already on this machine instead of fetching it: as a hard link, else as a copy.

        Raises:
            ValueError: `whole` does not have the right size.
        """
        if whole.stat().st_size != self.size:
            raise ValueError(f"{whole} does not have {self.size} bytes")
        self._clear()
        try:
            self.path.hardlink_to(whole)
        except OSError:
            shutil.copyfile(whole, self.path)
        self._open(self.size)

    def move_to(self, target: Path) -> None:
        """Give the finished file its name; this object must not be used afterwards."""
        self.sync()
        self._opened().close()
        self._file = None
        self.path.replace(target)
        self._note.unlink(missing_ok=True)
        _sync_folder(target.parent)

    def _open(self, known: int) -> None:
        """Open at the `known`-th byte, cutting off what lies behind it."""
        if known == 0:
            self._clear()
        self._file = self.path.open("ab")
        there = self._file.tell()
        self._kept = self._synced = min(there, known)
        if there > self._kept:
            self._file.truncate(self._kept)

    def _clear(self) -> None:
        # Unlinked, not emptied: after `adopt` the same bytes may belong to another program's cache as well.
        if self._file is not None:
            self._file.close()
            self._file = None
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError(f"{self.path} is not open")
        return self._file


def remove_partial(path: Path) -> int:
    """Remove a partial file and its note; returns the bytes that became free."""
    freed = bytes_of(path)
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".json").unlink(missing_ok=True)
    return freed


def bytes_of(path: Path) -> int:
    """The file's size; 0 when it is not there, or went away at this moment (another process may be at work)."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _noted(note: Path) -> int:
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))["kept"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # no note, or a torn one: nothing is known to be whole
    return kept if isinstance(kept, int) and kept >= 0 else 0


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; where folders cannot be synced (Windows) the file system does it in its own time."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# What the store and the places it fetches from agree on.

BLOCK = 1024 * 1024
"""Bytes that are read or written at a time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull has come.

    Args:
        phase: `waiting` for another process that pulls the same file, `fetching`, or `checking` the hash.
        done: bytes fetched, or bytes hashed.
        total: bytes in the whole file.
        source: where the bytes come from, in a few words.
    """

    phase: Literal["waiting", "fetching", "checking"]
    done: int
    total: int
    source: str = ""


ProgressCallback = Callable[[Progress], None]
"""Called often, in the thread that pulls; must return at once."""


class SourceFailed(Exception):
    """A source cannot give the file; the text is its reason, in one line.

    Never leaves this package: the store tries the next source, and names every reason when there is none left.
    """


class Source(Protocol):
    """A place that may have a model file."""

    @property
    def name(self) -> str:
        """What the place is called in progress and errors."""

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        """Append what is missing to `partial`, until it holds `model.size` bytes.

        The bytes that `partial` already holds may come from another source: they are a prefix of the one right file,
        or the hash will tell. Raises `SourceFailed`, and `OSError` when the disk refuses.
        """


def silent(progress: Progress) -> None:
    """A progress callback that does nothing."""


DEFAULT_ENDPOINT = "https://huggingface.co"

_CONNECT_S = 3.0
"""For each address of the host: a hub that cannot be reached must not hold up the next source."""
_STALL_S = 30.0
_ROUNDS = 5
_TRUE = frozenset({"1", "on", "yes", "true"})
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubCache:
    """Files that other tools have already fetched from the hub to this machine.

    The file is taken over as a hard link (a copy where that cannot be): it costs no second gigabyte, and it stays ours
    when the hub's own tools clear their cache. Nothing is ever written through the link.

    Args:
        environ: where `HF_HUB_CACHE`, `HF_HOME` and `XDG_CACHE_HOME` are looked up.
    """

    name = "hub cache"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @property
    def root(self) -> Path:
        """The folder in which the hub's tools keep repositories."""
        environ = self._environ
        for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            if environ.get(variable):
                return Path(environ[variable]).expanduser()
        if environ.get("HF_HOME"):
            return Path(environ["HF_HOME"]).expanduser() / "hub"
        caches = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return caches / "huggingface" / "hub"

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        """Take over a copy of the right size; the store checks its hash."""
        for path in self._copies(model):
            partial.adopt(path)
            progress(Progress("fetching", model.size, model.size, self.name))
            return
        raise SourceFailed(f"no copy in {self.root}")

    def _copies(self, model: ModelFile) -> Iterator[Path]:
        if not model.hub_repo:
            return
        snapshots = self.root / ("models--" + model.hub_repo.replace("/", "--")) / "snapshots"
        for path in sorted(snapshots.glob(f"*/{model.file}")):
            # A snapshot holds links into a folder of blobs: only the real file can be linked to.
            real = path.resolve()
            if real.is_file() and real.stat().st_size == model.size:
                yield real


class Hub:
    """The Hugging Face hub, or the mirror that `HF_ENDPOINT` names.

    A transfer that breaks off is gone on with at once, but only for as long as each try brings new bytes: an
    unreachable or hanging hub is given up after one. There is no need for `If-Range`: were the file on the hub
    exchanged, its size or its hash would be wrong.

    Args:
        environ: where `HF_ENDPOINT`, `HF_HUB_OFFLINE` and `HF_TOKEN` are looked up.
        stall_s: seconds without a byte after which a transfer is given up.
    """

    name = "Hugging Face hub"

    def __init__(self, environ: Mapping[str, str], *, stall_s: float = _STALL_S) -> None:
        self._endpoint = (environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._offline = environ.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE
        self._token = environ.get("HF_TOKEN", "").strip()
        self._stall_s = stall_s
        self._reach = NetworkPolicy.of(environ)

    def url(self, model: ModelFile) -> str:
        """Where the file can be had, by hand too."""
        return f"{self._endpoint}/{quote(model.hub_repo)}/resolve/main/{quote(model.file)}"

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        """Get the bytes that are missing."""
        if not model.hub_repo:
            raise SourceFailed("does not have this file")
        if self._offline:
            raise SourceFailed("not asked, HF_HUB_OFFLINE is set")
        for round_left in reversed(range(_ROUNDS)):
            before = partial.kept
            try:
                self._get(model, partial, progress)
            except SourceFailed:
                if partial.kept <= before or round_left == 0:
                    raise
            if partial.complete:
                return
        raise SourceFailed(f"stopped at {partial.kept} of {model.size} bytes")

    def _get(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        """One request; leaves what it brought in `partial`."""
        import httpx

        headers = {"Accept-Encoding": "identity", "User-Agent": "mellea-cli"}
        if partial.kept:
            headers["Range"] = f"bytes={partial.kept}-"
        if self._token:
            # The client drops this header when a redirect leads to another host, as the hub's redirects do.
            headers["Authorization"] = f"Bearer {self._token}"
        timeout = httpx.Timeout(self._stall_s, connect=min(_CONNECT_S, self._stall_s))
        try:
            with (
                httpx.Client(timeout=timeout, follow_redirects=True, event_hooks={"request": [self._permit]}) as client,
                client.stream("GET", self.url(model), headers=headers) as response,
            ):
                self._check(response, model, partial)
                for block in response.iter_raw():
                    partial.append(block)
                    progress(Progress("fetching", partial.kept, model.size, self.name))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceFailed(f"{self._endpoint}: {_reason(error)}") from error
        except ValueError as error:
            raise SourceFailed(f"{self._endpoint} sent {error}") from error

    def _permit(self, request: httpx.Request) -> None:
        """Let a request out, each one that a redirect leads to as well."""
        self._reach.permit(str(request.url))

    def _check(self, response: httpx.Response, model: ModelFile, partial: PartialFile) -> None:
        """Refuse an answer that cannot be the rest of the file, before its gigabyte is fetched."""
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
            if partial.kept:
                partial.restart()  # it does not do ranges: everything comes again
        else:
            start, total = _content_range(response.headers.get("Content-Range", ""))
            if start != str(partial.kept):
                raise SourceFailed(f"{self._endpoint} sent another range than it was asked for")
        if total.isdigit() and int(total) != model.size:
            raise SourceFailed(f"{self._endpoint} has {total} bytes under this name, not {model.size}")


def _content_range(header: str) -> tuple[str, str]:
    """The first byte and the whole size in `bytes FIRST-LAST/SIZE`, as they stand there."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header.strip())
    return (found[1], found[2]) if found else ("", "")


def _reason(error: Exception) -> str:
    import httpx

    if isinstance(error, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, httpx.ConnectError):
        return "cannot connect"
    if isinstance(error, httpx.TimeoutException):
        return "stopped sending"
    return " ".join(str(error).split()) or type(error).__name__
