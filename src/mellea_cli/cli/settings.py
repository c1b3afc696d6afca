"""Settings: a flag beats a `MELLEA_*` variable, which beats the configuration file.

The file is TOML. Keys are flags without their dashes; at the top they hold for every command that knows them, in a
table named after a command for that one::

    model = "qwen2.5-coder-1.5b"

    [summarise]
    concurrency = 8

`[pool.NAME]` describes several servers, see `mellea_cli.cli.pools`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mellea_cli.errors import UsageError, nearest

# Another spelling of a command reads the same table.
ALIASES = {"summarize": "summarise"}
POOLS = "pool"


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the configuration file is looked for: `MELLEA_CONFIG`, else the user's configuration directory."""
    if named := environ.get("MELLEA_CONFIG"):
        return Path(named).expanduser()
    from platformdirs import user_config_path

    return user_config_path("mellea") / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """Read the configuration file; an absent one is empty.

    Raises:
        UsageError: it cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: the configuration cannot be read: {error}", hint="mend it or move it away"
        ) from error


def defaults_for(
    config: Mapping[str, Any],
    commands: Mapping[str, frozenset[str]],
    path: Path,
    lists: Mapping[str, frozenset[str]] | None = None,
) -> dict[str, Any]:
    """The configuration as defaults by command and parameter.

    Args:
        config: the file's content.
        commands: the parameters that each command knows, by command.
        path: the file, for messages.
        lists: those of them that may be given several times, by command: one value alone is a list of one.

    Raises:
        UsageError: a key that no command knows, with the nearest one that there is.
    """
    shared = {key: value for key, value in config.items() if not isinstance(value, dict)}
    # The tables of pools are read when one is asked for.
    tables = {ALIASES.get(key, key): value for key, value in config.items() if isinstance(value, dict) and key != POOLS}
    known = {name for parameters in commands.values() for name in parameters}
    for key in shared:
        _refuse_unknown(key, known, path, "")
    for table in tables:
        if table not in commands:
            _refuse_unknown(table, set(commands), path, "")
    defaults: dict[str, Any] = {}
    for command, parameters in commands.items():
        own = tables.get(ALIASES.get(command, command), {})
        for key in own:
            _refuse_unknown(key, set(parameters), path, f"[{command}] ")
        merged = {_parameter(key): value for key, value in {**shared, **own}.items()}
        several = (lists or {}).get(command, frozenset())
        defaults[command] = {
            key: [value] if key in several and not isinstance(value, list) else value
            for key, value in merged.items()
            if key in parameters
        }
    return defaults


def _parameter(key: str) -> str:
    return key.replace("-", "_")


def _refuse_unknown(key: str, known: set[str], path: Path, where: str) -> None:
    if _parameter(key) in known:
        return
    near = nearest(_parameter(key), known)
    hint = f"did you mean {near.replace('_', '-')!r}?" if near else "mellea summarise --help lists what can be set"
    raise UsageError(f"{path}: {where}there is no setting {key!r}", hint=hint)
