"""The configuration file, and which of several sources of a setting counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from mellea_cli.cli.app import app
from mellea_cli.cli.settings import choose_servers, default_map, read_config
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.errors import UsageError
from rowfiles import Run

GROUP: Any = typer.main.get_command(app)


def test_settings_at_the_top_hold_for_every_command_that_knows_them() -> None:
    """A table for a command beats them; dashes and underscores are the same, and so are both spellings."""
    config = {"backend": "ollama", "max-retries": 1, "base-url": "http://a", "summarize": {"max_retries": 2}}
    defaults = default_map(config, GROUP, Path("c.toml"))
    assert defaults["summarise"] == {"backend": "ollama", "max_retries": 2, "base_url": ["http://a"]}
    assert defaults["summarize"] == defaults["summarise"]
    assert defaults["chat"] == {"backend": "ollama", "base_url": "http://a"}
    assert defaults["models"] == {}


@pytest.mark.parametrize("config", [{"limt": 1}, {"summarise": {"limt": 1}}, {"summarice": {}}])
def test_an_unknown_setting_is_refused_with_the_nearest(config: dict[str, object]) -> None:
    """A typing mistake in the file does not go unnoticed."""
    with pytest.raises(UsageError, match=r"c\.toml") as raised:
        default_map(config, GROUP, Path("c.toml"))
    assert "limit" in raised.value.hint or "summarise" in raised.value.hint


def test_a_mark_of_windows_editor_is_no_setting(tmp_path: Path) -> None:
    """A byte order mark in front of the settings."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfconcurrency = 2\r\n")
    assert read_config(path) == {"concurrency": 2}


def test_a_broken_configuration_names_the_file(tmp_path: Path) -> None:
    """And an absent one is simply empty."""
    path = tmp_path / "config.toml"
    assert read_config(path) == {}
    path.write_text("limit = = 3")
    with pytest.raises(UsageError, match=r"config\.toml"):
        read_config(path)


def test_a_value_that_cannot_be_used_is_refused_with_file_and_flag(mellea: Run, feedback: Path, tmp_path: Path) -> None:
    """The flag's own parser checks it; a variable is named, too."""
    config = tmp_path / "c.toml"
    config.write_text("[summarise]\nconcurrency = 0\n", encoding="utf-8")
    done = mellea("summarise", str(feedback), env={"MELLEA_CONFIG": str(config)})
    assert done.returncode == 2
    assert "--concurrency" in done.stderr
    assert f"(from the configuration file {config})" in done.stderr
    done = mellea("summarise", str(feedback), env={"MELLEA_TIMEOUT": "soon"})
    assert done.returncode == 2
    assert "(from MELLEA_TIMEOUT)" in done.stderr


class Source:
    """Where Click would say that a value comes from."""

    def __init__(self, **names: str) -> None:
        self._names = names

    def __call__(self, parameter: str) -> Any:
        return type("Source", (), {"name": self._names.get(parameter, "DEFAULT")})


@pytest.mark.parametrize(
    ("pool", "base_url", "expected"),
    [
        ("COMMANDLINE", "DEFAULT_MAP", ("office", None)),
        ("COMMANDLINE", "ENVIRONMENT", ("office", None)),
        ("DEFAULT_MAP", "COMMANDLINE", (None, ["http://a"])),
        ("DEFAULT_MAP", "DEFAULT_MAP", ("office", None)),
    ],
)
def test_the_nearer_wish_counts(pool: str, base_url: str, expected: tuple[str | None, list[str] | None]) -> None:
    """A flag beats a variable, a variable the file; in the file a pool beats an address."""
    given = {"pool": "office", "base_url": ["http://a"], "backend": "auto"}
    settled = choose_servers(given, Source(pool=pool, base_url=base_url))
    assert (settled["pool"], settled["base_url"]) == expected


def test_a_pool_and_an_address_in_one_breath_are_refused() -> None:
    """Nobody can tell which one was meant."""
    given = {"pool": "office", "base_url": ["http://a"], "backend": "auto"}
    with pytest.raises(UsageError, match="--base-url"):
        choose_servers(given, Source(pool="COMMANDLINE", base_url="COMMANDLINE"))


def test_one_address_is_no_pool() -> None:
    """It is a single server; several are a pool."""
    assert RunOptions(base_url=["http://a"]).server_url == "http://a"
    assert not RunOptions(base_url=["http://a"]).has_pool
    several = RunOptions(base_url=["http://a", "http://b"])
    assert (several.server_url, several.has_pool) == (None, True)
