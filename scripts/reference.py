"""Writes the pages that follow from the program: `python scripts/reference.py`.

`docs/commands.md`, `docs/settings.md` and the manual pages in `man/` come from the Typer app, other pages from the
topics of `mellea help`. tests/test_reference.py compares the files with what this script writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import typer.main

from mellea_cli.cli.app import COMMANDS, app
from mellea_cli.cli.help_pages import CONFIG, environment_text, manual_page
from mellea_cli.cli.help_pages import PAGES as TOPICS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MANUAL = ROOT / "man"

_NOTE = "<!-- `make reference` writes this page from the program. Change the help texts. -->\n"
_ABOUT_COMMANDS = """\
`mellea COMMAND --help-all` shows the same text at the terminal; `--help` shows the usual flags. Every flag of a batch
command is also a variable and a key of the configuration file: [settings.md](settings.md).
[exit-codes.md](exit-codes.md) describes the exit codes.
"""


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Every visible command: its name after `mellea`, the command, its context."""
    group = typer.main.get_command(app)
    top: Any = group.make_context("mellea", [], resilient_parsing=True)
    for name, entry in COMMANDS.items():
        if not entry.hidden:
            command = group.commands[name]  # type: ignore[attr-defined]  # the app is a group
            ctx = command.make_context(name, [], parent=top, resilient_parsing=True)
            yield name, command, ctx
            for sub in getattr(command, "commands", {}).values():
                yield f"{name} {sub.name}", sub, sub.make_context(sub.name, [], parent=ctx, resilient_parsing=True)


def parameters(command: Any, ctx: Any) -> Iterator[tuple[str, str, Any]]:
    """Arguments and flags of a command: the panel, the spellings and the parameter."""
    for parameter in command.params:
        record = parameter.get_help_record(ctx)
        if parameter.name != "help" and record is not None:
            argument = parameter.param_type_name == "argument"
            panel = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Options"
            names = record[0].replace(" range>", ">").replace("<str>", "<text>").replace("<int>", "<n>")
            yield panel, names.replace("<float>", "<n>"), parameter


def commands_page() -> str:
    """The reference of commands and flags."""
    parts = [
        "# Commands\n",
        _NOTE,
        _ABOUT_COMMANDS,
        "| command | what it does |\n|---|---|",
    ]
    rows, sections = [], []
    for name, command, ctx in commands():
        text = " ".join((command.help or "").split("\n\n")[0].split())
        rows.append(f"| [`mellea {name}`](#{_slug(f'mellea {name}')}) | {_cell(text)} |")
        sections.append(_command_section(name, command, ctx))
    return "\n".join(parts) + "\n" + "\n".join(rows) + "\n\n" + "\n".join(sections)


def _command_section(name: str, command: Any, ctx: Any) -> str:
    usage = " ".join(command.collect_usage_pieces(ctx))
    paragraphs = [" ".join(text.split()) for text in (command.help or "").split("\n\n")]
    lines = [f"## mellea {name}\n", f"```\nmellea {name} {usage}\n```\n", "\n\n".join(paragraphs) + "\n"]
    panels: dict[str, list[str]] = {}
    for panel, names, parameter in parameters(command, ctx):
        row = f"| `{_cell(names)}` | {_cell(parameter.help or '')} | {_default(parameter, ctx)} |"
        panels.setdefault(panel, []).append(row)
    for panel, rows in panels.items():
        heading = "argument" if panel == "Arguments" else "flag"
        lines += [f"**{panel}**\n", f"| {heading} | meaning | default |\n|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _default(parameter: Any, ctx: Any) -> str:
    found = re.search(r"\[default: \(?([^\];]+?)\)?(?:[;\]]|$)", (parameter.get_help_record(ctx) or ("", ""))[1])
    return f"`{found[1]}`" if found else ""


def settings_page() -> str:
    """The reference of variables and configuration keys."""
    flags: dict[str, tuple[str, str, set[str]]] = {}
    for name, command, ctx in commands():
        for panel, _, parameter in parameters(command, ctx):
            if panel != "Arguments":
                long = next(one for one in parameter.opts if one.startswith("--"))
                key = parameter.name.replace("_", "-") if " " not in name else ""
                variable = str(parameter.envvar or "")
                shown = (f"`{variable}`" if variable else "", f"`{key}`" if key else "")
                entry = flags.setdefault(
                    f"{long} {variable} {key}", (f"| `{long}` | {shown[0]} | {shown[1]} |", "", set())
                )
                entry[2].add(name)
    rows = [f"{row} {', '.join(f'`{name}`' for name in sorted(names))} |" for row, _, names in sorted(flags.values())]
    text = f"""# Settings and variables

{_NOTE}
A flag on the command line beats a variable, and a variable beats the configuration file. `mellea doctor` shows the path
of the configuration file, and every setting that differs from its default.

## The configuration file

CONFIG

## Flags, variables and keys

| flag | variable | key | commands |
|---|---|---|---|
ROWS

VARIABLES"""
    return text.replace("ROWS", "\n".join(rows)).replace("VARIABLES", environment_text()).replace("CONFIG\n", CONFIG)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _slug(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def topic_page(topic: str) -> str:
    """A topic of `mellea help` as a page."""
    title, _, rest = TOPICS[topic]().partition("\n\n")
    return f"{title}\n\n{_NOTE}\n{rest}"


def manual_pages() -> Iterator[tuple[str, str]]:
    """The manual pages: of the program, and of each command."""
    group = typer.main.get_command(app)
    root: Any = group.make_context("mellea", [], resilient_parsing=True)
    yield "mellea.1", manual_page(root)
    for name, _, _ in commands():
        yield f"mellea-{name.replace(' ', '-')}.1", manual_page(root, name.split())


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "exit-codes.md": partial(topic_page, "exit-codes"),
    "filters.md": partial(topic_page, "filters"),
    "formats.md": partial(topic_page, "formats"),
}


if __name__ == "__main__":
    for file, make in PAGES.items():
        (DOCS / file).write_text(make(), encoding="utf-8")
    MANUAL.mkdir(exist_ok=True)
    for file, text in manual_pages():
        (MANUAL / file).write_text(text, encoding="utf-8")
