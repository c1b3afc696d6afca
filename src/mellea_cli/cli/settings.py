"""Settings: a flag beats a `MELLEA_*` variable, which beats the configuration file.

The file is TOML. Keys are flags without their dashes; at the top level they apply to every command that has the flag,
in a table named after a command to that command. `[pool.NAME]` describes several servers. Values are checked where they
are used: by the flag's own parser, or by the pydantic models of a pool.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mellea_cli.errors import UsageError, nearest

# Both spellings of a command read the same table.
ALIASES = {"summarize": "summarise"}
POOLS = "pool"

# How strongly a value was asked for, by where Click found it.
_RANKS = {"COMMANDLINE": 3, "ENVIRONMENT": 2, "DEFAULT_MAP": 1}


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The configuration file: `MELLEA_CONFIG`, else `config.toml` in the user's configuration directory."""
    if named := environ.get("MELLEA_CONFIG"):
        return Path(named).expanduser()
    from platformdirs import user_config_path

    return user_config_path("mellea") / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """Read the configuration file; empty when there is none."""
    try:
        # Windows' editor puts a mark in front.
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        if not os.access(path.parent, os.X_OK):  # the home folder of another user, as in some containers
            return {}
        raise _unreadable(path, error) from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path}: the configuration file cannot be read: {error}", hint="correct it, or move it away")


def default_map(config: Mapping[str, Any], group: Any, path: Path) -> dict[str, dict[str, Any]]:
    """The configuration as Click's defaults: by command of the Click group, then by parameter.

    Raises `UsageError` for an unknown key or table; the hint has the nearest known one.
    """
    commands = {
        name: {parameter.name: parameter for parameter in command.params if parameter.name != "help"}
        for name, command in group.commands.items()
    }
    shared = {key: value for key, value in config.items() if not isinstance(value, dict)}
    tables = {ALIASES.get(key, key): value for key, value in config.items() if isinstance(value, dict) and key != POOLS}
    _refuse_unknown(shared, {name for parameters in commands.values() for name in parameters}, str(path))
    _refuse_unknown(tables, set(commands) - set(ALIASES), str(path))
    defaults: dict[str, dict[str, Any]] = {}
    for command, parameters in commands.items():
        own = tables.get(ALIASES.get(command, command), {})
        _refuse_unknown(own, set(parameters), f"{path}: [{command}]")
        defaults[command] = {}
        for key, value in {**_by_parameter(shared), **_by_parameter(own)}.items():
            if key in parameters:
                several = getattr(parameters[key], "multiple", False) and not isinstance(value, list)
                defaults[command][key] = [value] if several else value
    return defaults


def _by_parameter(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in table.items()}


def _refuse_unknown(table: Mapping[str, Any], known: set[str], place: str) -> None:
    for key in table:
        if key.replace("-", "_") not in known:
            near = nearest(key.replace("-", "_"), known).replace("_", "-")
            hint = f"did you mean {near!r}?" if near else "mellea summarise --help-all lists the settings"
            raise UsageError(f"{place}: there is no setting {key!r}", hint=hint)


def choose_servers(values: Mapping[str, Any], source_of: Callable[[str], Any]) -> dict[str, Any]:
    """Decide between `--pool` and `--base-url` or `--backend`: the stronger source wins, in the file the pool.

    `source_of` gives the source of a parameter's value, as Click's `get_parameter_source`. Two of the same strength
    are a `UsageError`.
    """
    chosen = dict(values)
    ranks = {name: _RANKS.get(getattr(source_of(name), "name", ""), 0) for name in ("pool", "base_url", "backend")}
    other = "base_url" if ranks["base_url"] >= ranks["backend"] else "backend"
    if chosen["pool"] and ranks[other] == ranks["pool"] > 1:
        flag = f"--{other.replace('_', '-')}"
        raise UsageError(f"--pool names its own servers, and {flag} names others", hint=f"omit {flag}")
    if chosen["pool"] and ranks[other] > ranks["pool"]:
        chosen["pool"] = None
    if chosen["pool"]:
        chosen["base_url"] = None
    return chosen
