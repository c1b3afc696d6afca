"""A quick look at whether a file can be a model at all, before a server spends seconds on finding out."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from mellea_cli.errors import ModelFileError

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
