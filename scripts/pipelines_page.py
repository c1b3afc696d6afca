"""Writes the tables of `pipelines.md` from the models of a pipeline file, the templates and the commands.

python scripts/pipelines_page.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import typer.main
from pydantic_core import PydanticUndefined

from mellea_cli.cli.app import app
from mellea_cli.cli.pipeline_file import TEMPLATES, template_path
from mellea_cli.pipelines.pipeline_spec import (
    BUILT_IN,
    FILTERS,
    OPTIONS,
    TAKEN,
    ExampleSpec,
    FieldSpec,
    FieldType,
    PipelineSpec,
    StepSpec,
    load_pipeline,
)

PAGE = Path(__file__).parents[1] / "docs" / "pipelines.md"
_BLOCK = re.compile(r"(<!-- (\w+): written by scripts/pipelines_page\.py -->\n).*?(<!-- until here -->)", re.DOTALL)

# What a type's answer is in JSON, in a table, and what the model is told and checked for.
_TYPES: Mapping[FieldType, tuple[str, str, str]] = {
    "text": ("text", "text", "a few words; with `one_sentence` exactly one sentence"),
    "category": ("text", "text", "exactly one of `choices`; case does not count"),
    "categories": ("list", "joined by ` \\| `", "all of `choices` that apply, each once, in the order of the file"),
    "bool": ("`true` or `false`", "`true` or `false`", "yes or no"),
    "int": ("number", "number", "a whole number"),
    "number": ("number", "number", "any finite number"),
    "date": ("text", "text", "a day as `2026-01-31`"),
    "quote": ("text", "text", "words of the row, copied exactly; white space does not count"),
    "list": ("list", "JSON", "short texts, in the order of the row"),
}
_VALUES = {
    "fields": "tables `[fields.NAME]`",
    "examples": "tables `[[examples]]`",
    "steps": "tables `[[steps]]`",
    "answer": "table",
    "row": "table",
    "choices": "table or list",
    "labels": "table or list",
    "minimum": "number or date",
    "maximum": "number or date",
    "type": "one of the types below",
    "extends": " or ".join(f"`{name}`" for name in BUILT_IN),
    "pattern": "text",
    "max_words": "whole number from 1 on",
}


def _kind(name: str, annotation: Any) -> str:
    plain = str(annotation)
    if plain.startswith("list[typing.Annotated[str"):
        return "list of texts"
    return _VALUES.get(name) or ("`true` or `false`" if "bool" in plain else "text")


def _default(info: Any) -> str:
    if info.default is PydanticUndefined:
        return "required"
    if info.default in (None, "", {}, []):
        return ""
    return f"`{str(info.default).lower() if isinstance(info.default, bool) else info.default}`"


def _keys(model: Any) -> list[str]:
    rows = [
        f"| `{name}` | {_kind(name, info.annotation)} | {_default(info)} | {info.description} |"
        for name, info in model.model_fields.items()
    ]
    return ["| key | value | default | meaning |", "|---|---|---|---|", *rows]


def _types() -> list[str]:
    options = {name: [option for option, types in OPTIONS.items() if name in types] for name in get_args(FieldType)}
    rows = [
        f"| `{name}` | {_TYPES[name][2]} | {_TYPES[name][0]} | {_TYPES[name][1]} |"
        f" {', '.join(f'`{option}`' for option in options[name])} |"
        for name in get_args(FieldType)
    ]
    return ["| type | answer | in JSON | in CSV and TSV | own options |", "|---|---|---|---|---|", *rows]


def _templates() -> list[str]:
    rows = []
    for name, what in TEMPLATES.items():
        fields = load_pipeline(template_path(name)).fields.items()
        rows.append(f"| `{name}` | {what} | {', '.join(f'`{field}` ({spec.type})' for field, spec in fields)} |")
    return ["| template | what it asks | fields |", "|---|---|---|", *rows]


def _taken() -> list[str]:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in TAKEN.items()]
    for pipeline, steps in BUILT_IN.items():
        names = ", ".join(f"`{field}`" for fields in steps.values() for field in fields)
        rows.append(f'| {names} | with `extends = "{pipeline}"`: built-in columns |')
    return ["| name | what it is |", "|---|---|", *rows]


def _built_in() -> list[str]:
    rows = [
        f"| `{pipeline}` | `{step}` | {', '.join(f'`{field}`' for field in fields)} |"
        for pipeline, steps in BUILT_IN.items()
        for step, fields in steps.items()
    ]
    return ["| `extends` | step | fields |", "|---|---|---|", *rows]


def _commands() -> list[str]:
    group: Any = typer.main.get_command(app)
    rows = []
    for name, command in group.commands["pipeline"].commands.items():
        arguments = [one.metavar for one in command.params if one.param_type_name == "argument"]
        options = [one.opts for one in command.params if one.param_type_name == "option" and one.name != "help"]
        flags = ", ".join(f"`{', '.join(spellings)}`" for spellings in options)
        rows.append(f"| `mellea pipeline {' '.join([name, *arguments])}` | {command.help.splitlines()[0]} | {flags} |")
    return ["| command | what it does | flags |", "|---|---|---|", *rows]


_BLOCKS: Mapping[str, Callable[[], list[str]]] = {
    "file": lambda: _keys(PipelineSpec),
    "fields": lambda: _keys(FieldSpec),
    "examples": lambda: _keys(ExampleSpec),
    "steps": lambda: _keys(StepSpec),
    "types": _types,
    "filters": lambda: [", ".join(f"`{name}`" for name in FILTERS)],
    "taken": _taken,
    "builtin": _built_in,
    "templates": _templates,
    "commands": _commands,
}


def page(text: str) -> str:
    """The page with its tables made again."""
    found = [match[2] for match in _BLOCK.finditer(text)]
    if sorted(found) != sorted(_BLOCKS):
        raise ValueError(f"the page has the blocks {sorted(found)}, and not {sorted(_BLOCKS)}")
    return _BLOCK.sub(lambda match: f"{match[1]}\n" + "\n".join(_BLOCKS[match[2]]()) + f"\n\n{match[3]}", text)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name} is written\n")


if __name__ == "__main__":
    main()
