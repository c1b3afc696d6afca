"""The themes that a user has seen and edited: names, definitions and their order."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mellea_cli.errors import InputError


@dataclass(frozen=True, slots=True)
class Theme:
    """One theme as its file describes it."""

    name: str
    definition: str = ""
    kind: str = ""
    """`complaint`, `praise` or `both`."""
    examples: Sequence[str] = ()


def read_themes(path: Path) -> list[Theme]:
    """Read a themes file: TOML with a `[[theme]]` table for each theme.

    Raises:
        InputError: it cannot be read, or a theme has no name.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file).get("theme")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read: {reason}", path=str(path), hint="name another --themes-file") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not TOML: {error}", path=str(path), hint="mend it, or leave --themes-file out") from error
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(
            "holds no [[theme]] tables", path=str(path), hint="name a file that mellea themes wrote or that looks so"
        )
    return [_theme(table, number, path) for number, table in enumerate(tables, start=1)]


def _theme(table: dict[str, Any], number: int, path: Path) -> Theme:
    name = table.get("name")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"theme {number} has no name", path=str(path), hint='give it one: name = "…"')
    examples = table.get("examples", [])
    return Theme(
        name=name.strip(),
        definition=str(table.get("definition", "")).strip(),
        kind=str(table.get("kind", "")).strip(),
        examples=tuple(str(one) for one in examples) if isinstance(examples, list) else (),
    )
