"""The themes file: TOML that a person reads and edits, and that the next run uses unchanged."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from mellea_cli.errors import UsageError, nearest
from mellea_cli.io.files import AtomicFile
from mellea_cli.pipelines.pipeline_spec import line_of
from mellea_cli.pipelines.theme_prompts import NONE, OTHER, Kind, Theme

JOINT = " | "  # Separates names in one cell of a table, so a name cannot contain it
MOST_THEMES = 50
# A spreadsheet runs a cell that begins with one of these as a formula.
_FORMULA_STARTS = ("=", "+", "-", "@")
_HEAD = """\
# Themes, found by `mellea themes` and yours to edit. The next run uses this file unchanged, so that counts can be
# compared from week to week; delete the file to find new themes.
#
# A new name alone costs nothing: rows get the new label and nothing is asked again.
# A theme that is removed costs one question for each row that had it.
# A new theme, another definition, kind or example changes the question: every row is asked again.
#
# name: short, unique. definition: one line, what belongs to it. kind: "complaint", "praise" or "both".
# examples: two phrases that belong to it. parent: if you like, a heading that reports count several themes under.
"""


def _one_line(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


def _first_two(value: Any) -> Any:
    return value[:2] if isinstance(value, list) else value


_Name = Annotated[str, StringConstraints(min_length=1, max_length=60), BeforeValidator(_one_line)]
_Line = Annotated[str, StringConstraints(min_length=1, max_length=300), BeforeValidator(_one_line)]


class _ThemeTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: _Name
    definition: _Line
    kind: Kind = "both"
    examples: Annotated[list[_Line], BeforeValidator(_first_two)] = []
    parent: _Name | None = None

    @field_validator("name", "parent")
    @classmethod
    def _usable_as_label(cls, name: str) -> str:
        if JOINT.strip() in name:
            raise ValueError(f"a name cannot contain {JOINT.strip()!r}, which separates names in a table")
        if name.startswith(_FORMULA_STARTS):
            raise ValueError(f"a name cannot begin with {name[0]!r}: a spreadsheet would run it as a formula")
        if name.casefold() in (OTHER, NONE):
            raise ValueError(f"{OTHER!r} and {NONE!r} exist in every run; choose another name")
        return name


class _ThemesFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    theme: Annotated[list[_ThemeTable], Field(min_length=1, max_length=MOST_THEMES)]


def read_themes(path: Path) -> tuple[Theme, ...] | None:
    """Read a themes file; `None` when there is no such file. Errors name the file, the line, the theme and the key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        tables = _ThemesFile.model_validate(content).theme
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise _invalid(path, content, error) from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        where, said = (f"{path}:{at[1]}", str(error)[: at.start()]) if at else (str(path), str(error))
        raise UsageError(f"{where}: the themes cannot be read: {said}", hint=_way_out(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the themes cannot be read: {error}", hint=_way_out(path)) from error
    spelled: dict[str, str] = {}  # Headings that differ in capitals only are one
    themes = tuple(
        Theme(one.name, one.definition, one.kind, tuple(one.examples), spelled.setdefault(heading.casefold(), heading))
        for one in tables
        for heading in (one.parent or "",)
    )
    for number, theme in enumerate(themes):
        if theme.parent.casefold() in {one.name.casefold() for one in themes}:
            message = f"{_place(path, 'theme', number, 'parent')}: the parent {theme.parent!r} is a theme of its own"
            raise UsageError(message, hint="give the heading another name: there are two levels, and it is no label")
    for (_, one), (number, other) in itertools.combinations(enumerate(themes), 2):
        same = ""
        if one.name.casefold() == other.name.casefold():
            same = "name"
        elif (one.kind, one.definition.casefold()) == (other.kind, other.definition.casefold()):
            same = "definition"
        if same:
            message = f"{_place(path, 'theme', number, same)}: {other.name!r} has the same {same} as {one.name!r}"
            raise UsageError(message, hint="make them differ, or remove one")
    return themes


def write_themes(path: Path, themes: Sequence[Theme]) -> None:
    """Write a new themes file, whole or not at all; raises `UsageError` when there is one already."""
    try:
        with AtomicFile(path, str(path)) as file:
            file.write("\n".join((_HEAD, *map(_table, themes))).encode())
            file.commit(overwrite=False)
    except FileExistsError as error:
        message = f"{path}: another program has written it since this run began; it is unchanged"
        raise UsageError(message, hint="run the same command again") from error


def _table(theme: Theme) -> str:
    # A JSON string is a basic string of TOML too, once DEL is escaped.
    lines = ["[[theme]]"]
    for key in _ThemeTable.model_fields:
        value = getattr(theme, key)
        if value == "":
            continue
        text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
        lines.append(f"{key} = {text}".replace("\x7f", "\\u007f"))
    return "\n".join((*lines, ""))


def _place(path: Path, *keys: str | int) -> str:
    """The file, with the line of these keys or of the nearest key that leads to them."""
    while keys and (line := line_of(path, keys)) is None:
        keys = keys[:-1]
    return f"{path}:{line}" if keys else str(path)


def _invalid(path: Path, content: dict[str, Any], error: ValidationError) -> UsageError:
    # An unknown key comes first: it is often the misspelled name of a key that seems to be missing.
    detail = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place, problem = detail["loc"], detail["type"]
    if len(place) < 3:
        if problem == "extra_forbidden":
            return UsageError(f"{_place(path, *place)}: unknown key {place[0]!r}", hint="write each theme as [[theme]]")
        if problem == "too_long":
            where, number = _place(path, "theme", MOST_THEMES), len(content["theme"])
            message = f"{where}: holds {number} themes; {MOST_THEMES} are the most"
            return UsageError(message, hint="merge some of them")
        return UsageError(
            f"{_place(path, 'theme')}: holds no themes",
            hint=f"write each one as a [[theme]] table, or {_way_out(path)}",
        )
    number, key = int(place[1]), str(place[2])
    name = _one_line(content["theme"][number].get("name"))
    where = f"{_place(path, *place)}: theme {number + 1}"
    if isinstance(name, str) and name and key != "name":
        where += f" ({name})"
    hint = 'write it as examples = ["one", "two"]' if key == "examples" else f'write it as {key} = "..."'
    if problem == "extra_forbidden":
        close = nearest(key, _ThemeTable.model_fields)
        hint = f"did you mean {close}?" if close else f"the keys are {', '.join(_ThemeTable.model_fields)}"
        return UsageError(f"{where}: unknown key {key!r}", hint=hint)
    if problem == "missing":
        return UsageError(f"{where}: {key} is missing", hint=hint)
    reason = detail["msg"].removeprefix("Value error, ").replace("Input", "it").replace("String", "it")
    return UsageError(f"{where}: {key}: {reason}", hint=hint)


def _way_out(path: Path) -> str:
    return f"correct it, or move it away to find new themes: mv {path} {path}.old"
