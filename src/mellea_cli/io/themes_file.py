"""The themes file: TOML that a person reads and edits, and that the next run uses unchanged."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)

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
    themes = _as_themes(tables)
    _check(themes, lambda *keys: _place(path, "theme", *keys))
    return themes


def _as_themes(tables: Sequence[_ThemeTable]) -> tuple[Theme, ...]:
    spelled: dict[str, str] = {}  # Headings that differ in capitals only are one
    return tuple(
        Theme(one.name, one.definition, one.kind, tuple(one.examples), spelled.setdefault(heading.casefold(), heading))
        for one in tables
        for heading in (one.parent or "",)
    )


def _check(themes: Sequence[Theme], place: Callable[..., str]) -> None:
    """Refuse themes that cannot stand in one list; `place` says where a theme and its key are."""
    for number, theme in enumerate(themes):
        if theme.parent.casefold() in {one.name.casefold() for one in themes}:
            message = f"{place(number, 'parent')}: the parent {theme.parent!r} is a theme of its own"
            raise UsageError(message, hint="give the heading another name: there are two levels, and it is no label")
    for (_, one), (number, other) in itertools.combinations(enumerate(themes), 2):
        same = ""
        if one.name.casefold() == other.name.casefold():
            same = "name"
        elif (one.kind, one.definition.casefold()) == (other.kind, other.definition.casefold()):
            same = "definition"
        if same:
            message = f"{place(number, same)}: {other.name!r} has the same {same} as {one.name!r}"
            raise UsageError(message, hint="make them differ, or remove one")


def write_themes(path: Path, themes: Sequence[Theme]) -> None:
    """Write a new themes file, whole or not at all; raises `UsageError` when there is one already."""
    try:
        with AtomicFile(path, str(path)) as file:
            file.write("\n".join((_HEAD, *map(_table, themes))).encode())
            file.commit(overwrite=False)
    except FileExistsError as error:
        message = f"{path}: another program has written it since this run began; it is unchanged"
        raise UsageError(message, hint="run the same command again") from error


def _table(theme: Theme, name: str = "theme") -> str:
    values = {key: getattr(theme, key) for key in _ThemeTable.model_fields}
    return "\n".join((f"[[{name}]]", *(f"{key} = {_toml(value)}" for key, value in values.items() if value != ""), ""))


def _toml(value: Any) -> str:
    # A JSON string is a basic string of TOML too, once DEL is escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of a themes file that rows suggest: `themes` come in, those that it `replaces` by name go."""

    change: Literal["new", "split", "merge"]
    reason: str
    themes: tuple[Theme, ...]
    replaces: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()  # Some of the rows that show it: ids, and words of their texts
    number: int = 0  # Its name in the file, which stays when others are accepted


_PROPOSALS_HEAD = """\
# Proposals of `mellea themes --propose` for {name}. Nothing of this is used until you accept it:
#   mellea themes --themes-file {command} --accept ask    (or 1,3 or all)
# Names and definitions may be edited here first.
"""


def proposals_path(path: Path) -> Path:
    """The file with proposals for a themes file, next to it."""
    return path.with_name(f"{path.name.removesuffix('.toml')}.proposal.toml")


def write_proposals(path: Path, proposals: Sequence[Proposal]) -> Path:
    """Write the proposals for the themes file `path`, instead of earlier ones; none leave no file."""
    target = proposals_path(path)
    if not proposals:
        target.unlink(missing_ok=True)
        return target
    parts = [_PROPOSALS_HEAD.format(name=path.name, command=shlex.quote(path.name))]
    for one in proposals:
        lines = ["[[proposal]]", *(f"{key} = {_toml(getattr(one, key))}" for key in ("number", "change", "reason"))]
        lines += [f"replaces = {_toml(one.replaces)}"] if one.replaces else []
        rows = "".join(f"  {_toml(row)},\n" for row in one.rows)
        parts += ["\n".join((*lines, f"rows = [\n{rows}]\n"))]
        parts += [_table(theme, "proposal.themes") for theme in one.themes]
    with AtomicFile(target, str(target)) as file:
        file.write("\n".join(parts).encode())
        file.commit()
    return target


def read_proposals(path: Path) -> list[Proposal]:
    """The proposals for the themes file `path`; none when there is no file with them."""
    source = proposals_path(path)
    try:
        tables = tomllib.loads(source.read_text(encoding="utf-8-sig")).get("proposal", [])
        return TypeAdapter(list[Proposal]).validate_python(tables)
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise _unusable(_place(source, "proposal", *error.errors()[0]["loc"]), error) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: cannot be read: {error}", hint="write new proposals with --propose") from error


def _unusable(where: str, error: ValidationError) -> UsageError:
    first = error.errors()[0]
    message = f"{where}: {first['loc'][-1]}: {first['msg'].removeprefix('Value error, ')}"
    return UsageError(message, hint="correct it, or write new proposals with --propose")


def accept_proposals(path: Path, accepted: Sequence[Proposal]) -> tuple[Theme, ...]:
    """Change the themes file as proposals say, and take these out of theirs; comments and other themes stay.

    Returns:
        The themes that the file has now.

    Raises:
        UsageError: the file does not fit the proposals any more; it is unchanged.
    """
    themes = read_themes(path)
    if themes is None:
        raise UsageError(f"{path}: there is no such themes file", hint="name the file that the proposals are for")
    left = [one for one in read_proposals(path) if one not in accepted]
    gone = {name for one in accepted for name in one.replaces}
    if missing := gone - {theme.name for theme in themes}:
        message = f"{path}: has no theme {min(missing)!r} any more, which a proposal replaces"
        raise UsageError(message, hint="write new proposals with --propose")
    wanted = (*(one for one in themes if one.name not in gone), *(theme for one in accepted for theme in one.themes))
    if len(wanted) > MOST_THEMES:
        raise UsageError(f"{path}: would hold {len(wanted)} themes; {MOST_THEMES} are the most", hint="accept fewer")
    _check(wanted, lambda *_: str(path))
    lines = re.split(r"(?<=\n)", path.read_text(encoding="utf-8-sig"))
    starts = [(line_of(path, ("theme", number)) or 1) - 1 for number in range(len(themes))]
    for theme, start, end in [*zip(themes, starts, (*starts[1:], len(lines)), strict=True)][::-1]:
        if theme.name in gone:
            # Comments above the next theme are about that one.
            while end > start + 1 and lines[end - 1].lstrip()[:1] in ("", "#"):
                end -= 1  # noqa: PLW2901 - counted down
            del lines[start:end]
    text = "\n".join(("".join(lines).rstrip() + "\n", *(_table(theme) for one in accepted for theme in one.themes)))
    try:
        changed = _as_themes(_ThemesFile.model_validate(tomllib.loads(text)).theme)
    except ValidationError as error:
        raise _unusable(str(proposals_path(path)), error) from error
    except tomllib.TOMLDecodeError:
        changed = ()
    if [one.name for one in changed] != [_one_line(one.name) for one in wanted]:
        message = f"{path}: cannot be changed, because its themes are not written as [[theme]] tables"
        raise UsageError(message, hint=f"make the change by hand: the themes are in {proposals_path(path)}")
    with AtomicFile(path, str(path)) as file:
        file.write(text.encode())
        file.commit()
    write_proposals(path, left)
    return changed


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
