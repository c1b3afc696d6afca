"""The themes file: TOML that a person reads and edits, and that the next run uses as it stands."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from mellea_cli.errors import UsageError
from mellea_cli.io.files import output_error
from mellea_cli.pipelines.theme_prompts import NONE, OTHER, Kind, Theme

JOINT = " | "
"""What stands between names in one cell of a table; so no name may hold it."""
MOST_THEMES = 50
_KEYS = ("name", "definition", "kind", "examples")
_KINDS: tuple[str, ...] = get_args(Kind)
# A spreadsheet would run a cell that begins so.
_FORMULA_STARTS = ("=", "+", "-", "@")
_LONGEST: Mapping[str, int] = {"name": 60, "definition": 300, "example": 300}
_HEAD = """\
# Themes, found by `mellea themes` and yours to edit. The next run uses this file as it stands, so that counts can be
# compared from week to week; delete the file to have themes found anew.
#
# A new name alone costs nothing: rows are labelled with it and nothing is asked again.
# A theme that is taken out costs one question for each row that had it.
# A new theme, another definition, kind or example changes the question: every row is asked again.
#
# name: short, unique. definition: one line, what belongs to it. kind: "complaint", "praise" or "both".
# examples: two phrases that belong to it.
"""


def read_themes(path: Path) -> tuple[Theme, ...] | None:
    """Read a themes file.

    Returns:
        Its themes in their order; `None` when there is no such file.

    Raises:
        UsageError: it cannot be read, is not TOML, or holds what is no theme; the theme is named.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: the themes cannot be read: {error}", hint=_way_out(path)) from error
    tables = content.get("theme")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{path}: holds no themes", hint=f"write each one as a [[theme]] table, or {_way_out(path)}")
    if unknown := sorted(content.keys() - {"theme"}):
        raise UsageError(f"{path}: {unknown[0]!r} is no key of a themes file", hint="write each theme as [[theme]]")
    if len(tables) > MOST_THEMES:
        raise UsageError(f"{path}: holds {len(tables)} themes; {MOST_THEMES} are the most", hint="merge some of them")
    themes = tuple(_theme(table, f"{path}: theme {number}") for number, table in enumerate(tables, start=1))
    _refuse_twins(themes, path)
    return themes


def write_themes(path: Path, themes: Sequence[Theme]) -> None:
    """Write a themes file, whole or not at all; what is there already stays.

    Raises:
        OutputError: it cannot be written.
        UsageError: there is such a file.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text("\n".join((_HEAD, *map(_table, themes))), encoding="utf-8")
        if path.exists():
            fresh.unlink()
            raise UsageError(f"{path}: has come to be there meanwhile and was left as it is", hint="type it again")
        fresh.replace(path)
    except OSError as error:
        raise output_error(str(path), error) from error


def _table(theme: Theme) -> str:
    """One theme as TOML: a JSON string is a basic string of TOML too, once DEL is escaped."""
    lines = ["[[theme]]"]
    for key in _KEYS:
        value = getattr(theme, key)
        text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
        lines.append(f"{key} = {text}".replace("\x7f", "\\u007f"))
    return "\n".join((*lines, ""))


def _theme(table: Mapping[str, Any], where: str) -> Theme:
    if unknown := [key for key in table if key not in _KEYS]:
        raise UsageError(f"{where}: {unknown[0]!r} is no key of a theme", hint=f"a theme has {', '.join(_KEYS)}")
    name = _line(table, "name", where)
    where = f"{where} ({name})"
    if JOINT.strip() in name:
        raise UsageError(f"{where}: a name may not hold {JOINT.strip()!r}, which stands between names in a table")
    if name.startswith(_FORMULA_STARTS):
        raise UsageError(f"{where}: a name may not begin with {name[0]!r}, a spreadsheet would run it as a formula")
    if name.casefold() in (OTHER, NONE):
        raise UsageError(f"{where}: {OTHER!r} and {NONE!r} are there without being named", hint="choose another name")
    kind = table.get("kind", "both")
    if kind not in _KINDS:
        raise UsageError(f"{where}: kind is {kind!r}", hint=f"write one of {', '.join(_KINDS)}")
    examples = table.get("examples", [])
    if not isinstance(examples, list):
        raise UsageError(f"{where}: examples are a list of phrases", hint='write it as examples = ["one", "two"]')
    told = tuple(_text(example, "example", where) for example in examples[:2])
    return Theme(name, _line(table, "definition", where), kind, told)


def _line(table: Mapping[str, Any], key: str, where: str) -> str:
    if key not in table:
        raise UsageError(f"{where}: has no {key}", hint=f'write it as {key} = "..."')
    return _text(table[key], key, where)


def _text(value: Any, key: str, where: str) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text:
        raise UsageError(f"{where}: {key} is not a text", hint=f'write it as {key} = "..."')
    if len(text) > _LONGEST[key]:
        raise UsageError(f"{where}: the {key} is longer than {_LONGEST[key]} characters", hint="say it more briefly")
    return text


def _refuse_twins(themes: Sequence[Theme], path: Path) -> None:
    for one, other in itertools.combinations(themes, 2):
        same = ""
        if one.name.casefold() == other.name.casefold():
            same = "name"
        elif (one.kind, one.definition.casefold()) == (other.kind, other.definition.casefold()):
            same = "definition"
        if same:
            raise UsageError(
                f"{path}: {other.name!r} has the same {same} as {one.name!r}", hint="make them differ, or drop one"
            )


def _way_out(path: Path) -> str:
    return f"mend it, or move it away to have themes found anew: mv {path} {path}.old"
