"""Where an output goes: a file, standard output, or something special such as a device or a named pipe."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mellea_cli.errors import OutputError, ReaderGone

STDOUT_NAME = "<stdout>"
_STDOUT_PATHS = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_DESCRIPTOR_FOLDERS = ("/dev/fd/", "/proc/self/fd/")
_HINTS = {
    errno.ENOSPC: "make room, then type the same command again: finished answers are kept",
    errno.EDQUOT: "make room, then type the same command again: finished answers are kept",
    errno.EFBIG: "raise the limit for file sizes (ulimit -f), then type the same command again",
    errno.EACCES: "choose a place that you may write to with -o",
    errno.EPERM: "choose a place that you may write to with -o",
    errno.EROFS: "choose a place that can be written to with -o",
    errno.EIO: "check the disk, then type the same command again: finished answers are kept",
    errno.ENAMETOOLONG: "choose a shorter name with -o",
    errno.EISDIR: "name a file inside it",
}


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """One resolved output."""

    kind: Literal["file", "stdout", "special"]
    name: str
    """How messages call it."""
    path: Path
    """The file itself, symbolic links followed; meaningless for standard output."""

    @property
    def partial(self) -> Path:
        """Where the finished rows grow while a run goes on."""
        return self._beside(".partial")

    @property
    def journal(self) -> Path:
        """Where the answers are kept."""
        return self._beside(".journal")

    @property
    def lock(self) -> Path:
        """What a run holds so that no other run writes this output."""
        return self._beside(".lock")

    @property
    def fresh(self) -> Path:
        """Where the whole output is written before it is renamed into place."""
        return self._beside(".new")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def resolve_output(output: str | None) -> OutputTarget:
    """Say what an output is; nothing is opened.

    Args:
        output: a path, or `-` or `None` for standard output.

    Raises:
        OutputError: it is a directory, or its directory is not there.
    """
    if output is None or output == "-" or output in _STDOUT_PATHS:
        return OutputTarget("stdout", STDOUT_NAME, Path("-"))
    if output.startswith(_DESCRIPTOR_FOLDERS) or output == "/dev/stderr":
        return OutputTarget("special", output, Path(output))
    try:
        path = Path(os.path.realpath(output))
        mode = path.stat().st_mode if path.exists() else None
    except (OSError, ValueError) as error:
        raise OutputError(f"{output!r}: not a file name: {error}", hint="choose another name with -o") from error
    if (mode is not None and stat.S_ISDIR(mode)) or output.endswith("/"):
        raise OutputError(f"{output}: is a directory", hint="name a file inside it")
    if mode is not None and not stat.S_ISREG(mode):
        return OutputTarget("special", output, path)
    if not path.parent.is_dir():
        raise OutputError(f"{output}: there is no folder {path.parent}", hint=f"make it first: mkdir -p {path.parent}")
    return OutputTarget("file", output, path)


def same_file(first: str, second: str) -> bool:
    """Whether two paths lead to the same file, through links too; a path that is not there is compared by name."""
    try:
        return Path(first).samefile(second)
    except (OSError, ValueError):
        return os.path.realpath(first) == os.path.realpath(second)


def output_error(name: str, error: OSError) -> OutputError:
    """Word a failed write, with the way out where there is one."""
    if isinstance(error, BrokenPipeError):
        return ReaderGone(f"{name}: nobody reads it any more")
    code = error.errno or 0
    return OutputError(f"{name}: cannot be written: {error.strerror or error}", hint=_HINTS.get(code, ""))
