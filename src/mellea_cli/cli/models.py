"""`mellea models`: the embedded backend's model files."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mellea_cli.cli.app import command_group
from mellea_cli.cli.flags import JsonFlag, write_json

models_app = command_group("List, download and remove the embedded backend's models.")

_Name = Annotated[str, typer.Argument(help="A name from `mellea models list`.")]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


@models_app.command("list")
def list_models(as_json: JsonFlag = False) -> None:
    """List the models of the catalogue, and say which are on this machine."""
    from mellea_cli.models.catalogue import DEFAULT_MODEL
    from mellea_cli.models.store import ModelStore
    from mellea_cli.ui.console import print_table

    store = ModelStore()
    words = {"verified": "here", "unchecked": "here, not checked yet", "partial": "partly here", "absent": "not here"}
    if as_json:
        write_json(
            [
                {
                    "name": entry.model.name,
                    "bytes": entry.model.size,
                    "state": entry.state,
                    "licence": entry.model.licence,
                    "for": entry.model.note,
                    "default": entry.model.name == DEFAULT_MODEL,
                }
                for entry in store.entries()
            ]
        )
        return
    rows = []
    for entry in store.entries():
        name = f"{entry.model.name} (default)" if entry.model.name == DEFAULT_MODEL else entry.model.name
        rows.append((name, _megabytes(entry.model.size), words[entry.state], entry.model.licence, entry.model.note))
    print_table(rows, headers=("model", "size", "state", "licence", "for"), stream=sys.stdout, environ=os.environ)


@models_app.command("pull")
def pull_model(name: _Name, as_json: JsonFlag = False) -> None:
    """Download a model, or continue its download, and verify it."""
    from mellea_cli.models.catalogue import lookup
    from mellea_cli.models.store import ModelStore
    from mellea_cli.ui.console import say
    from mellea_cli.ui.download_bar import Download

    model = lookup(name)
    with Download(sys.stderr, os.environ, label=model.name) as download:
        path = ModelStore().pull(model.name, download)
    if as_json:
        write_json({"name": model.name, "path": str(path)})
    else:
        say(sys.stderr, f"{model.name} is at {path}")
    if model.quality_warning:
        say(sys.stderr, model.quality_warning)


@models_app.command("path")
def path_of_model(name: _Name, as_json: JsonFlag = False) -> None:
    """Print the path of a model's file; fails when it is missing."""
    from mellea_cli.errors import ModelFileError
    from mellea_cli.models.catalogue import lookup
    from mellea_cli.models.store import ModelStore

    model = lookup(name)
    path = ModelStore().find(model.name)
    if path is None:
        raise ModelFileError(
            f"{model.name} is not on this machine", hint=f"download it with: mellea models pull {name}"
        )
    if as_json:
        write_json({"name": model.name, "path": str(path)})
    else:
        typer.echo(str(path))


@models_app.command("rm")
def remove_model(
    name: _Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask at a terminal.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove a model's file, or a part of it. At a terminal it asks first."""
    from mellea_cli.cli.backend_setup import at_terminal, confirmed
    from mellea_cli.errors import ModelFileError
    from mellea_cli.models.catalogue import lookup
    from mellea_cli.models.store import ModelStore
    from mellea_cli.ui.console import say

    model = lookup(name)
    store = ModelStore()
    size = next(entry.size for entry in store.entries() if entry.model.name == model.name)
    question = f"Remove {model.name} ({_megabytes(size)})? Another download is needed to use it again."
    # A script has said what it wants: nobody is there to answer.
    if size and not yes and at_terminal() and not confirmed(question):
        say(sys.stderr, f"{model.name} is kept")
        return
    freed = store.remove(model.name)
    if not freed:
        raise ModelFileError(f"{model.name} is not on this machine", hint="mellea models list shows which are")
    if as_json:
        write_json({"name": model.name, "freed_bytes": freed})
    else:
        say(sys.stderr, f"removed {model.name}: frees {_megabytes(freed)}")
