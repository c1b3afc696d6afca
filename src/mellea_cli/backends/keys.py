"""Where the key of a paid server comes from: a private file or the environment, never a flag that others could see."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mellea_cli.errors import UsageError

KEY_FILE = "MELLEA_KEY_FILE"
"""Names a file with the key; it counts before `OPENAI_API_KEY`."""
API_KEY = "OPENAI_API_KEY"

_MOST_BYTES = 4_096
_named: set[str] = set()
_HEADER = re.compile(r"(?i)(['\"]?authorization['\"]?\s*[:=]\s*)?['\"]?bearer\s+[^\s'\"]+['\"]?")
_LOGIN = re.compile(r"://[^/@\s'\"]+@")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def api_key(environ: Mapping[str, str]) -> str:
    """The key: what stands in the file that `MELLEA_KEY_FILE` names, else `OPENAI_API_KEY`, else nothing.

    Raises:
        UsageError: the file cannot be read, others may read it too, or it holds something other than one key.
    """
    named = environ.get(KEY_FILE, "")
    return read_key(Path(named).expanduser()) if named else environ.get(API_KEY, "")


def key_named(variable: str, environ: Mapping[str, str]) -> str:
    """The key that the environment holds under this name; the usual one may stand in a file instead.

    Raises:
        UsageError: as `api_key`.
    """
    if variable == API_KEY:
        return api_key(environ)
    _named.add(variable)
    return environ.get(variable, "")


def read_key(path: Path) -> str:
    """Read a key from a file that nobody but its owner may read.

    Its mode is checked on the open file, so that it cannot be another one by the time it is read. Windows has no such
    modes: there the folder of the user keeps others out, and nothing is checked.

    Raises:
        UsageError: as `api_key`.
    """
    try:
        # A pipe, as from `<(pass show KEY)`, is as good as a file.
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and mode & _OTHERS:
                raise UsageError(
                    f"{path}: others may read or change this key file (mode {stat.S_IMODE(mode):04o})",
                    hint=f"make it private: chmod 600 {path}; if others could see the key, have it replaced",
                )
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: the key file cannot be read: {error.strerror or error}", hint="check --key-file"
        ) from error
    lines = content.decode("utf-8", "replace").removeprefix("\ufeff").split()
    if len(lines) != 1 or len(content) > _MOST_BYTES:
        what = "is empty" if not lines else "holds more than one key"
        raise UsageError(f"{path}: the key file {what}", hint="it holds the key and nothing else")
    return lines[0]


def scrubbed(text: str, environ: Mapping[str, str]) -> str:
    """Take every key, headers that carry one, and logins in addresses out of a text that is about to be written.

    No message of ours holds any of them; this is for what nobody has foreseen: the words of a bug.
    """
    known = {environ.get(variable, "").strip() for variable in (API_KEY, *_named)}
    with suppress(UsageError):
        known.add(api_key(environ).strip())
    for key in known - {""}:
        text = text.replace(key, "***")
    return _LOGIN.sub("://***@", _HEADER.sub("***", text))
