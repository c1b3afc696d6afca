"""Network policy, API keys, and the addresses of servers."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from mellea_cli.errors import UsageError

LOCAL_ONLY = "MELLEA_LOCAL_ONLY"
ALLOW_HTTP = "MELLEA_ALLOW_HTTP"
KEY_FILE = "MELLEA_KEY_FILE"
API_KEY = "OPENAI_API_KEY"

_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Which hosts may be reached. Loopback always may.

    Args:
        local_only: refuse every other machine.
        allow_http: allow plain http to other machines, where the network can read feedback and key.
    """

    local_only: bool = False
    allow_http: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read `MELLEA_LOCAL_ONLY` and `MELLEA_ALLOW_HTTP`."""
        return cls(is_true(environ.get(LOCAL_ONLY, "")), is_true(environ.get(ALLOW_HTTP, "")))

    def check_url(self, url: str) -> None:
        """Raise `UsageError` unless the policy allows a connection to `url`."""
        if is_loopback(url):
            return
        shown = redact_url(url)
        if self.local_only:
            raise UsageError(
                f"{shown} is not on this machine, and --local-only allows nothing else",
                hint=f"use --backend local or a server on this machine, or drop --local-only ({LOCAL_ONLY})",
            )
        if url.lower().startswith("http:") and not self.allow_http:
            raise UsageError(
                f"{shown} is another machine without TLS: feedback and key could be read on the way",
                hint="use https, or --allow-http where the network can be trusted",
            )

    def check_program(self, name: str) -> None:
        """Raise `UsageError` unless the policy allows a program such as pip, which chooses its own hosts."""
        if self.local_only:
            raise UsageError(
                f"{name} would connect to a package index, and --local-only allows nothing outside this machine",
                hint=f"fetch the model first without --local-only ({LOCAL_ONLY}): mellea models pull NAME",
            )


def is_true(text: str) -> bool:
    """Whether an environment variable's value switches something on."""
    return text.strip().lower() in _TRUE


_MAX_KEY_FILE = 4_096
_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_AUTHORIZATION = re.compile(r"(?i)(['\"]?authorization['\"]?\s*[:=]\s*)?['\"]?bearer\s+[^\s'\"]+['\"]?")
_LOGIN = re.compile(r"://[^/@\s'\"]+@")
# A pool names its key variables freely, so `scrub` goes by how such variables are usually called. A shorter value is
# no key, and to replace it everywhere would make a text unreadable.
_SECRET_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_MIN_SECRET = 8


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where API keys come from.

    Args:
        key_file: private file that holds the key of `OPENAI_API_KEY` and wins over that variable; empty for none.
        variables: environment variables by name.
    """

    key_file: str = ""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Take the variables of `environ`, and the key file that `MELLEA_KEY_FILE` names."""
        return cls(environ.get(KEY_FILE, ""), environ)

    def key(self, variable: str = API_KEY) -> str:
        """Return the key under this name, empty when there is none.

        Raises:
            UsageError: the key file cannot be read, is not private, or does not hold exactly one key.
        """
        if variable == API_KEY and self.key_file:
            return read_key_file(Path(self.key_file).expanduser())
        return self.variables.get(variable, "")

    def scrub(self, text: str) -> str:
        """Remove every key, authorization header and login from a text, such as the message of an unexpected error."""
        keys = {self.variables.get(API_KEY, "").strip()}
        with suppress(UsageError):
            keys.add(self.key().strip())
        keys |= {
            value.strip()
            for name, value in self.variables.items()
            if name.upper().endswith(_SECRET_NAMES) and len(value.strip()) >= _MIN_SECRET
        }
        for key in sorted(keys - {""}, key=len, reverse=True):
            text = text.replace(key, "***")
        return _LOGIN.sub("://***@", _AUTHORIZATION.sub("***", text))


def read_key_file(path: Path) -> str:
    """Read an API key from a file that only its owner can read; raises `UsageError` as `Secrets.key` does."""
    try:
        # A pipe is fine too: `--key-file <(pass show KEY)`.
        with path.open("rb") as file:
            # The mode of the open file: a path could name another file by the time it is read. Windows has no such
            # modes, there the user's folder keeps others out.
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and mode & _GROUP_AND_OTHERS:
                raise UsageError(
                    f"{path}: others may read or change this key file (mode {stat.S_IMODE(mode):04o})",
                    hint=f"make it private: chmod 600 {path}; if others could see the key, have it replaced",
                )
            content = file.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: the key file cannot be read: {error.strerror or error}", hint="check --key-file"
        ) from error
    words = content.decode("utf-8", "replace").removeprefix("\ufeff").split()
    if len(words) != 1 or len(content) > _MAX_KEY_FILE:
        problem = "is empty" if not words else "holds more than one key"
        raise UsageError(f"{path}: the key file {problem}", hint="it holds the key and nothing else")
    return words[0]


def validate_key(key: str) -> str:
    """Return `key` without white space and quotes around it; raises `UsageError` when no header can carry it."""
    key = key.strip().strip("'\"")
    if not all("!" <= character <= "~" for character in key):
        raise UsageError("the API key contains white space or characters that no key has", hint="copy it again")
    return key


_SECRET_QUERY = re.compile(r"key|token|secret|sig|code|pass|auth", re.IGNORECASE)


def validate_url(url: str) -> str:
    """Return a server's address without a slash at its path's end. It may have a query, such as Azure's `api-version`.

    Raises:
        UsageError: it is not an http or https address, or it carries a user name, a key or a fragment.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        shown = redact_url(url) or "an empty text"
        raise UsageError(
            f"{shown} is not a server's address", hint="write it as http://HOST:PORT, with /v1 if it has one"
        )
    if parts.username is not None or parts.fragment or _SECRET_QUERY.search(parts.query):
        raise UsageError(
            f"the address {redact_url(url)} may not carry a user name, a key or a fragment",
            hint="put the key into OPENAI_API_KEY, or into a file for --key-file",
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), parts.query, ""))


def redact_url(url: str) -> str:
    """Return an address without user name, password, query and fragment, for messages."""
    try:
        parts = urlsplit(url.strip())
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "the address"


def is_loopback(url: str) -> bool:
    """Whether an address stays on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def certificate_problem(environ: Mapping[str, str] = os.environ) -> str:
    """What is wrong with the certificates that the environment names for https; empty when nothing is."""
    import ssl

    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        value = environ.get(name, "")
        folders = value.split(os.pathsep) if name == "SSL_CERT_DIR" else [value]
        if not value or any(Path(path).is_dir() for path in folders if name == "SSL_CERT_DIR"):
            continue
        path = Path(value)
        if not path.is_file() or name == "SSL_CERT_DIR":
            return f"{name} names {value}, which is not there"
        try:
            ssl.create_default_context(cafile=value)
        except (OSError, ssl.SSLError):
            return f"{name} names {value}, which holds no certificate that can be read"
    return ""


def check_certificates(url: str) -> None:
    """Raise `UsageError` when `url` needs certificates and the environment names some that cannot be read."""
    if url.lower().startswith("https:") and (problem := certificate_problem()):
        raise UsageError(f"{redact_url(url)}: {problem}", hint="correct the variable, or unset it")
