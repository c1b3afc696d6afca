"""Model files from the Hugging Face hub, and from the cache that its own tools keep on this machine.

The `huggingface_hub` package is not needed for this: a download is one GET with a Range, and the store checks the hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mellea_cli.backends.reach import Reach
from mellea_cli.models.catalogue import ModelFile
from mellea_cli.models.partial import PartialFile
from mellea_cli.models.source import Progress, ProgressCallback, SourceFailed

if TYPE_CHECKING:
    import httpx

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
        self._reach = Reach.of(environ)

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
