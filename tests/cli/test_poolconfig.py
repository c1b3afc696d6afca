"""Pools in the configuration file and on the command line."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from mellea_cli.cli.pools import EndpointSpec, PoolSpec, of_addresses, read_pool, weighed
from mellea_cli.errors import UsageError


def read(text: str, name: str = "office") -> PoolSpec:
    return read_pool(tomllib.loads(text), name, "config.toml")


def test_the_short_form_names_addresses_that_are_alike() -> None:
    """Weights belong to the addresses, the rest to all; names are host and port."""
    spec = read("""
        [pool.office]
        model = "granite4.1:3b"
        urls = ["http://gpu1:11434", "http://gpu2:11434/"]
        weights = [2, 1]
        concurrency = 8
    """)
    assert (spec.name, spec.model, spec.backend) == ("office", "granite4.1:3b", "ollama")
    assert spec.endpoints == (
        EndpointSpec("gpu1:11434", "http://gpu1:11434", "ollama", None, 8, 2.0),
        EndpointSpec("gpu2:11434", "http://gpu2:11434/", "ollama", None, 8, 1.0),
    )


def test_the_long_form_gives_each_endpoint_its_own() -> None:
    """What an endpoint says itself beats what the pool says; an address with a path speaks OpenAI's protocol."""
    spec = read("""
        [pool.office]
        concurrency = 4
        urls = ["http://127.0.0.1:11434"]
        [[pool.office.endpoints]]
        name = "desk"
        url = "http://127.0.0.1:8080/v1"
        model = "granite"
        concurrency = 2
        weight = 0.5
        key_env = "DESK_KEY"
    """)
    assert spec.backend == "pool"
    assert spec.endpoints[0].concurrency == 4
    assert spec.endpoints[1] == EndpointSpec(
        "desk", "http://127.0.0.1:8080/v1", "openai", "granite", 2, 0.5, "DESK_KEY"
    )


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("urls = []", "names no endpoint"),
        ('urls = "http://a:1"', "not a list"),
        ('urls = ["http://a:1"]\nweights = [1, 2]', "as many"),
        ('urls = ["http://a:1"]\nweights = ["heavy"]', "weight 'heavy'"),
        ('urls = ["http://a:1"]\nweights = [0]', "weight 0"),
        ('urls = ["http://a:1"]\nconcurrency = 0', "concurrency 0"),
        ('urls = ["http://a:1"]\nconcurrency = true', "concurrency True"),
        ('urls = ["http://a:1"]\nmodel = 3', "model = 3"),
        ('urls = ["http://a:1"]\nbackend = "local"', "'local' cannot be in a pool"),
        ('urls = ["http://a:1", "http://a:1/"]', "stands there twice"),
        ('urls = ["http://a:1"]\nkey = "sk-1"', "no setting 'key'"),
        ('urls = ["http://a:1"]\nendpoints = 3', "not tables"),
        ('endpoints = [{name = "a"}]', "has no url"),
        ('endpoints = [{url = "http://a:1", wait = 2}]', "no setting 'wait'"),
        ('endpoints = [{url = "http://a:1", name = "x"}, {url = "http://b:1", name = "x"}]', "called 'x'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(table: str, problem: str) -> None:
    """The message names file and pool, the hint says what to write."""
    with pytest.raises(UsageError, match=problem) as raised:
        read(f"[pool.office]\n{table}")
    assert raised.value.message.startswith("config.toml: [pool.office]")
    assert raised.value.hint


def test_a_pool_that_is_not_there_is_refused_with_those_that_are() -> None:
    """A slip of the pen is easy to see."""
    with pytest.raises(UsageError, match="no pool 'offcie'") as raised:
        read('[pool.office]\nurls = ["http://a:1"]', "offcie")
    assert "office" in raised.value.hint
    with pytest.raises(UsageError):
        read("", "office")


def test_one_host_may_serve_several_paths() -> None:
    """Where host and port do not tell endpoints apart, their addresses do."""
    spec = of_addresses(["https://host/a/v1", "https://host/b/v1"], "auto", "")
    assert [one.name for one in spec.endpoints] == ["https://host/a/v1", "https://host/b/v1"]


def test_addresses_need_a_backend_that_has_some() -> None:
    """The embedded model is nowhere."""
    with pytest.raises(UsageError, match="local"):
        of_addresses(["http://a:1", "http://b:1"], "local", "")


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
        ("DEFAULT_MAP", "COMMANDLINE", (None, "http://a")),
        ("DEFAULT_MAP", "DEFAULT_MAP", ("office", None)),
    ],
)
def test_the_nearer_wish_counts(pool: str, base_url: str, expected: tuple[str | None, str | None]) -> None:
    """A flag beats a variable, a variable the file; in the file a pool beats an address."""
    given = {"pool": "office", "base_url": ["http://a"], "backend": "auto"}
    settled = weighed(given, Source(pool=pool, base_url=base_url))
    assert (settled["pool"], settled["base_url"]) == expected


def test_a_pool_and_an_address_in_one_breath_are_refused() -> None:
    """Nobody can tell which one was meant."""
    given = {"pool": "office", "base_url": ["http://a"], "backend": "auto"}
    with pytest.raises(UsageError, match="--base-url"):
        weighed(given, Source(pool="COMMANDLINE", base_url="COMMANDLINE"))


def test_one_address_is_no_pool() -> None:
    """It is used as ever; several are kept apart from it."""
    one = weighed({"pool": None, "base_url": ["http://a"], "backend": "auto"}, Source())
    assert (one["base_url"], one["base_urls"]) == ("http://a", ())
    several = weighed({"pool": None, "base_url": ["http://a", "http://b"], "backend": "auto"}, Source())
    assert (several["base_url"], several["base_urls"]) == (None, ("http://a", "http://b"))
