"""How far traffic may go: every connection that this program opens asks here first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from mellea_cli.backends.connection import is_loopback, without_secrets
from mellea_cli.errors import UsageError

LOCAL_ONLY = "MELLEA_LOCAL_ONLY"
ALLOW_HTTP = "MELLEA_ALLOW_HTTP"

_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be connected to.

    Args:
        local_only: nothing but this machine.
        allow_http: other machines without TLS too, where everybody on the way can read along.
    """

    local_only: bool = False
    allow_http: bool = False

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Read `MELLEA_LOCAL_ONLY` and `MELLEA_ALLOW_HTTP`."""
        return cls(_is_on(environ.get(LOCAL_ONLY, "")), _is_on(environ.get(ALLOW_HTTP, "")))

    def permit(self, url: str) -> None:
        """Let an address pass.

        Raises:
            UsageError: it leads to another machine and nothing may, or without TLS and that may not be.
        """
        if is_loopback(url):
            return
        shown = without_secrets(url)
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

    def permit_program(self, name: str) -> None:
        """Let a program run that connects on its own to wherever its own settings say.

        Raises:
            UsageError: nothing but this machine may be connected to.
        """
        if self.local_only:
            raise UsageError(
                f"{name} would connect to a package index, and --local-only allows nothing outside this machine",
                hint=f"fetch the model first without --local-only ({LOCAL_ONLY}): mellea models pull NAME",
            )


def _is_on(text: str) -> bool:
    return text.strip().lower() in _TRUE
