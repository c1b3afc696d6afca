"""Writes the pages that follow from the program: `python scripts/reference.py`.

`docs/commands.md` and `docs/settings.md` come from the Typer app. tests/test_reference.py compares the files with
what this script writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from mellea_cli.cli.app import COMMANDS, app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

# Variables that no flag has, with what they do. tests/test_reference.py finds every variable that the source reads.
VARIABLES = {
    "MELLEA_CONFIG": "path of the configuration file",
    "MELLEA_CACHE_DIR": "folder for embedded models and saved prompts, instead of the cache folder",
    "MELLEA_LOOP": "`asyncio` keeps Python's own event loop where uvloop is installed",
    "OPENAI_API_KEY": "key of an OpenAI-compatible server",
    "OPENAI_BASE_URL": "address of an OpenAI-compatible server; `--base-url` beats it",
    "OLLAMA_HOST": "address of the Ollama server, as for Ollama itself",
    "OLLAMA_API_KEY": "key of an Ollama server behind a proxy, or of Ollama's cloud",
    "OLLAMA_NUM_PARALLEL": "requests that a local Ollama server works on at once; sets where `-c auto` starts",
    "RAY_ADDRESS": "the Ray cluster, if `--ray-address` is not given",
    "RAY_AUTH_MODE": "authentication of a Ray cluster, as for Ray itself",
    "RAY_AUTH_TOKEN": "token of a Ray cluster, as for Ray itself",
    "HF_ENDPOINT": "address of the model hub from which embedded models are downloaded",
    "HF_HOME": "folder of the hub's own cache, which `mellea` reads",
    "HF_HUB_CACHE": "folder of the hub's cached models, which `mellea` reads",
    "HF_HUB_OFFLINE": "`1` does not ask the hub",
    "HF_TOKEN": "token of the hub; the models of the catalogue need none",
    "XDG_CACHE_HOME": "cache folder of your user account, for the hub's cache",
    "SSL_CERT_FILE": "file with the certificates to trust",
    "SSL_CERT_DIR": "folder with the certificates to trust",
    "NO_COLOR": "any value turns colours off",
    "FORCE_COLOR": "any value turns colours on, also in a pipe",
    "TERM": "`dumb` turns panels and colours off",
    "TTY_COMPATIBLE": "`0` treats the screen as no terminal, `1` as a terminal",
    "TTY_INTERACTIVE": "`0` shows plain lines instead of panels",
    "CI": "any value but `0` and `false` shows plain lines instead of panels",
    "EDITOR": "editor of `/edit` in the chat",
    "VISUAL": "editor of `/edit` in the chat; it beats `EDITOR`",
    "INPUTRC": "settings file of the line editor; Vi keys in the chat follow it",
}

_NOTE = "<!-- `make reference` writes this page from the program. Change the help texts, or scripts/reference.py. -->\n"
_ABOUT_COMMANDS = """\
`mellea COMMAND --help` shows the same text at the terminal. Every flag of a batch command is also a variable and a key
of the configuration file: [settings.md](settings.md). [exit-codes.md](exit-codes.md) describes the exit codes.
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
    variables = [f"| `{name}` | {text} |" for name, text in VARIABLES.items()]
    text = f"""# Settings and variables

{_NOTE}
A flag on the command line beats a variable, and a variable beats the configuration file. `mellea doctor` shows the path
of the configuration file, and every setting that differs from its default.

## The configuration file

The file is TOML. Its keys are the names in the third column of the next table. A key at the top applies to every
command that has the flag. A key in a table applies to the command of that name. `[pool.NAME]` describes several
servers: [scaling.md](scaling.md).

```toml
backend = "ollama"

[summarise]
concurrency = 8
max-errors = "5%"

[report]
by = ["channel"]
```

An unknown key is an error, and the message names the nearest key. `MELLEA_CONFIG` names another file.

## Flags, variables and keys

| flag | variable | key | commands |
|---|---|---|---|
ROWS

A variable for a switch takes `1` or `0`. `MELLEA_TEXT_FIELD` takes several columns on separate lines.

## Other variables

| variable | meaning |
|---|---|
VARIABLES

Proxies follow `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. A pool names its own variables for keys with
`key_env`.
"""
    return text.replace("ROWS", "\n".join(rows)).replace("VARIABLES", "\n".join(variables))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _slug(heading: str) -> str:
    return heading.lower().replace(" ", "-")


PAGES = {"commands.md": commands_page, "settings.md": settings_page}


if __name__ == "__main__":
    for file, text in PAGES.items():
        (DOCS / file).write_text(text(), encoding="utf-8")
