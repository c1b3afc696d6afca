"""What is known about a model file that was checked once, so that a gigabyte is not hashed at every start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from mellea_cli.models.source import BLOCK


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
