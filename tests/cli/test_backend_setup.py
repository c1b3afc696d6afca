"""Which backend and model a command uses."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopback import ModelServer
from mellea_cli.cli.backend_setup import (
    Pool,
    PoolEndpoint,
    choose_model,
    find_pool,
    model_identity,
    read_pool,
    resolve_pool,
)
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.errors import ModelMissing, UsageError
from rowfiles import Run, read_rows


@pytest.fixture(autouse=True)
def no_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")


async def test_without_a_server_the_embedded_model_is_taken() -> None:
    """And the reason is said in one sentence."""
    chosen = await choose_model("auto", None, None)
    assert (chosen.backend, chosen.model, chosen.concurrency) == ("local", "qwen2.5-coder-1.5b", 4)
    assert "no Ollama answers" in chosen.reason


async def test_an_address_is_an_explicit_choice(server: ModelServer) -> None:
    """With --base-url and no --backend the OpenAI protocol is spoken; it needs a model's name."""
    chosen = await choose_model("auto", "m", server.openai_url)
    assert chosen.backend == "openai"
    with pytest.raises(UsageError, match="named"):
        await choose_model("auto", None, server.openai_url)


async def test_a_model_that_nobody_has_is_refused() -> None:
    """Neither Ollama nor the catalogue knows it; the hint says where to look."""
    with pytest.raises(ModelMissing) as raised:
        await choose_model("auto", "no-such-model", None)
    assert "mellea models list" in raised.value.hint


@pytest.mark.parametrize(
    ("model", "hosted"),
    [
        ("gpt-4o", True),
        ("openai/gpt-4o-mini", True),
        ("o3-mini", True),
        ("claude-sonnet-4-5", True),
        ("gemini-2.5-pro", True),
        ("mistral-large-latest", True),
        ("gpt-oss:20b", False),
        ("mistral-small:24b", False),
        ("orca-mini", False),
        ("deepseek-r1", False),
    ],
)
async def test_a_model_of_a_provider_is_not_looked_for_at_ollama(model: str, hosted: bool) -> None:
    """The hint says which backend reaches it; other names may be Ollama's."""
    with pytest.raises(ModelMissing) as raised:
        await choose_model("auto", model, None)
    assert ("--backend openai --base-url URL" in raised.value.hint) is hosted
    assert ("ollama pull" in raised.value.hint) is not hosted


@pytest.mark.parametrize("backend", [(), ("-b", "openai")])
def test_without_a_model_the_servers_models_are_listed(
    mellea: Run, server: ModelServer, tmp_path: Path, backend: tuple[str, ...]
) -> None:
    """The hint names them, and no word of the Python interface."""
    (tmp_path / "in.csv").write_text("text\nfine\n")
    files = (str(tmp_path / "in.csv"), "-o", str(tmp_path / "o.jsonl"))
    ended = mellea("summarise", *files, *backend, "--base-url", server.openai_url)
    assert ended.returncode == 2
    assert "needs a model to be named" in ended.stderr
    assert "choose one of its models with --model: " in ended.stderr
    assert "model_id" not in ended.stderr


async def test_the_small_model_comes_with_a_warning() -> None:
    """Its answers are close to guesses, and the user is told."""
    chosen = await choose_model("local", "smollm2-135m", None)
    assert "testing" in chosen.warning


async def test_the_embedded_model_has_so_many_slots_and_no_more() -> None:
    """A large -c does not cost memory that brings nothing."""
    chosen = await choose_model("local", None, None, concurrency=64)
    assert chosen.concurrency == 8
    assert "8 items at once" in chosen.warning
    assert (await choose_model("scripted", None, None, concurrency=64)).concurrency == 64


def test_a_model_file_is_known_by_its_content_not_its_folder(tmp_path: Path) -> None:
    """Moving the file does not make its answers stale; another file of the same name does."""
    one, other = tmp_path / "a" / "m.gguf", tmp_path / "b" / "m.gguf"
    for path, size in ((one, 10), (other, 10)):
        path.parent.mkdir()
        path.write_bytes(b"x" * size)
    assert model_identity("local", str(one)) == model_identity("local", str(other))
    other.write_bytes(b"x" * 11)
    assert model_identity("local", str(one)) != model_identity("local", str(other))
    assert model_identity("ollama", "granite4.1:3b") == "granite4.1:3b"


def test_a_model_other_than_the_default_is_not_fetched_unasked(mellea: Run, feedback: Path) -> None:
    """Off a terminal nobody can be asked: the run is refused before anything is fetched."""
    done = mellea("summarise", str(feedback), "--backend", "local", "-m", "smollm2-135m")
    assert done.returncode == 2
    assert "mellea models pull smollm2-135m" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_is_downloaded_by_an_ollama_server(mellea: Run, feedback: Path) -> None:
    """With --pull, and without it the hint has the command."""
    with ModelServer(models=("other",)) as server:
        arguments = ("summarise", str(feedback), "-b", "ollama", "-m", "small", "--base-url", server.url)
        without = mellea(*arguments)
        assert without.returncode == 4
        assert "ollama pull small" in without.stderr
        done = mellea(*arguments, "--pull")
        assert done.returncode == 0, done.stderr
        assert server.state.completed == 30


@pytest.mark.parametrize(
    ("backend", "name", "identity"),
    [
        ("ollama", "llama3.2", "llama3.2"),
        ("ollama", "llama3.2:latest", "llama3.2"),
        ("ollama", "library/llama3.2", "llama3.2"),
        ("ollama", "registry.ollama.ai/library/llama3.2:latest", "llama3.2"),
        ("ollama", "somebody/llama3.2:1b", "somebody/llama3.2:1b"),
        ("openai", "library/llama3.2:latest", "library/llama3.2:latest"),
    ],
)
def test_spellings_of_one_ollama_model_share_their_answers(backend: str, name: str, identity: str) -> None:
    """Elsewhere a name means what it says."""
    assert model_identity(backend, name) == identity


Serve = Callable[..., ModelServer]


def read(text: str, name: str = "office") -> Pool:
    table = read_pool(tomllib.loads(text), name, "config.toml")
    return resolve_pool(table, RunOptions(model="m"), name)


def test_the_short_form_names_addresses_that_are_alike() -> None:
    """Weights belong to the addresses, the rest to all; names are host and port."""
    pool = read("""
        [pool.office]
        model = "granite4.1:3b"
        urls = ["http://gpu1:11434", "http://gpu2:11434/"]
        weights = [2, 1]
        concurrency = 8
    """)
    assert (pool.name, pool.model, pool.backend) == ("office", "granite4.1:3b", "ollama")
    assert pool.endpoints == (
        PoolEndpoint("gpu1:11434", "http://gpu1:11434", "ollama", "granite4.1:3b", 8, 2.0),
        PoolEndpoint("gpu2:11434", "http://gpu2:11434/", "ollama", "granite4.1:3b", 8, 1.0),
    )


def test_the_long_form_gives_each_endpoint_its_own() -> None:
    """What an endpoint says itself beats what the pool says; an address with a path speaks OpenAI's protocol."""
    pool = read("""
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
    assert pool.backend == "pool"
    assert pool.endpoints[0].concurrency == 4
    assert pool.endpoints[1] == PoolEndpoint(
        "desk", "http://127.0.0.1:8080/v1", "openai", "granite", 2, 0.5, "DESK_KEY"
    )


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("urls = []", "names no endpoint"),
        ('urls = "http://a:1"', r"urls = 'http://a:1': .* list"),
        ('urls = ["http://a:1"]\nweights = [1, 2]', "as many"),
        ('urls = ["http://a:1"]\nweights = ["heavy"]', "weights = 'heavy'"),
        ('urls = ["http://a:1"]\nweights = [0]', "weights = 0"),
        ('urls = ["http://a:1"]\nconcurrency = 0', "concurrency = 0"),
        ('urls = ["http://a:1"]\nconcurrency = true', "concurrency = True"),
        ('urls = ["http://a:1"]\nmodel = 3', "model = 3"),
        ('urls = ["http://a:1"]\nbackend = "local"', "backend = 'local'"),
        ('urls = ["http://a:1", "http://a:1/"]', "is there twice"),
        ('urls = ["http://a:1"]\nkey = "sk-1"', "no setting 'key'"),
        ('urls = ["http://a:1"]\nendpoints = 3', r"endpoints = 3: .* list"),
        ('endpoints = [{name = "a"}]', "endpoint 1: url is missing"),
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
    pool = find_pool(RunOptions(base_url=["https://host/a/v1", "https://host/b/v1"], model="m"))
    assert pool is not None
    assert [one.name for one in pool.endpoints] == ["https://host/a/v1", "https://host/b/v1"]


def test_addresses_need_a_backend_that_has_some() -> None:
    """The embedded model is nowhere."""
    with pytest.raises(UsageError, match="local"):
        find_pool(RunOptions(base_url=["http://a:1", "http://b:1"], backend="local"))


def summary(stderr: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(stderr.splitlines()[-1])
    return loaded


def test_repeated_addresses_share_the_work_and_the_journal(
    mellea: Run, feedback: Path, serve: Serve, tmp_path: Path
) -> None:
    """All rows are answered, each endpoint's figures are told; with one address alone nothing is asked again."""
    one, other = serve(latency_s=0.02), serve(latency_s=0.02)
    where = ("-m", "test-model", "--base-url", one.openai_url)
    both = (*where, "--base-url", other.openai_url)
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "--json", *both)
    assert done.returncode == 0, done.stderr
    told = summary(done.stderr)
    assert [row["id"] for row in read_rows(tmp_path / "out.jsonl")] == list(range(30))
    assert [point["requests"] for point in told["endpoints"]] == [one.state.requests, other.state.requests]
    assert sum(point["answered"] for point in told["endpoints"]) == 30
    assert sum(point["completion_tokens"] for point in told["endpoints"]) == told["completion_tokens"]
    assert told["backend"] == "openai"
    again = mellea("summarise", str(feedback), "-o", "out.jsonl", "--json", *where)
    assert (again.returncode, summary(again.stderr)["reused"], summary(again.stderr)["endpoints"]) == (0, 30, [])
    assert one.state.requests + other.state.requests == 30


def test_two_ollamas_and_a_server_of_openais_protocol(
    mellea: Run, feedback: Path, serve: Serve, tmp_path: Path
) -> None:
    """A pool of the configuration: mixed kinds, a name and a key of its own, figures for people."""
    first, second = serve(latency_s=0.02), serve(latency_s=0.02)
    desk = serve(latency_s=0.02, models=("desk-model",), api_key="sk-desk-5f1c")
    config = tmp_path / "pools.toml"
    config.write_text(
        f"""
        backend = "ollama"
        [summarise]
        base_url = "http://127.0.0.1:9"
        [pool.office]
        model = "test-model"
        urls = ["{first.url}", "{second.url}"]
        [[pool.office.endpoints]]
        name = "desk"
        url = "{desk.openai_url}"
        model = "desk-model"
        key_env = "DESK_KEY"
        """
    )
    env = {"MELLEA_CONFIG": str(config), "DESK_KEY": "sk-desk-5f1c", "OPENAI_API_KEY": "sk-mine-77aa"}
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "--pool", "office", env=env)
    assert done.returncode == 0, done.stderr
    assert all("MARK-" in row["summary"] for row in read_rows(tmp_path / "out.jsonl"))
    assert first.state.completed + second.state.completed + desk.state.completed == 30
    assert min(server.state.completed for server in (first, second, desk)) > 0
    assert {header["authorization"] for header in desk.state.headers} == {"Bearer sk-desk-5f1c"}
    for server in (first, second):
        assert all("authorization" not in header for header in server.state.headers)
    lines = re.findall(r"endpoint: (\S+), (\d+) answered \((\d+)%\), \d", done.stderr)
    assert [name for name, _, _ in lines] == [f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}", "desk"]
    assert sum(int(number) for _, number, _ in lines) == 30
    assert "5f1c" not in done.stderr
    # The pool has one identity, whatever its endpoints call the model: with one endpoint less nothing is asked again.
    config.write_text(config.read_text().replace(f', "{second.url}"', ""))
    again = mellea("summarise", str(feedback), "-o", "out.jsonl", "--pool", "office", "--json", env=env)
    assert summary(again.stderr)["reused"] == 30


def test_an_endpoint_that_is_not_there_is_said_and_the_rest_goes_on(
    mellea: Run, feedback: Path, serve: Serve, tmp_path: Path
) -> None:
    """Away, or without the model: the line says which, and the run is done by the others."""
    good, bare, gone = serve(), serve(models=("other",)), serve()
    gone.stop()
    addresses = [flag for server in (good, bare, gone) for flag in ("--base-url", server.url)]
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "-m", "test-model", *addresses)
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{bare.port} is not used in this run" in done.stderr
    assert "ollama pull test-model" in done.stderr
    assert f"127.0.0.1:{gone.port} is not used now and retried later" in done.stderr
    assert good.state.completed == 30
    assert len(read_rows(tmp_path / "out.jsonl")) == 30


def test_without_any_endpoint_nothing_begins(mellea: Run, feedback: Path, serve: Serve, tmp_path: Path) -> None:
    """The one message names each; there is no output, and the exit code is the server's."""
    one, other = serve(), serve(models=("other",))
    one.stop()
    addresses = [flag for server in (one, other) for flag in ("--base-url", server.url)]
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "-m", "test-model", *addresses)
    assert done.returncode == 4
    assert re.search(
        rf"no endpoint .*:{one.port}: cannot reach .*:{other.port}: .* does not have the model", done.stderr
    )
    assert not (tmp_path / "out.jsonl").exists()


def test_one_key_is_not_spread_over_several_hosts(mellea: Run, feedback: Path, serve: Serve) -> None:
    """A key belongs to one host: on several it is sent nowhere, and that is said."""
    one, other = serve(), serve()
    addresses = ("--base-url", one.openai_url, "--base-url", other.openai_url.replace("127.0.0.1", "localhost"))
    done = mellea(
        "summarise", str(feedback), "-o", "out.jsonl", "-m", "test-model", *addresses, env={"OPENAI_API_KEY": "sk-1"}
    )
    assert done.returncode == 0, done.stderr
    assert "OPENAI_API_KEY is sent to none of the servers" in done.stderr
    assert not any("authorization" in header for header in one.state.headers + other.state.headers)


@pytest.mark.parametrize(
    ("flags", "pool", "said"),
    [
        ((), 'urls = ["http://gpu1.example:11434", "http://127.0.0.1:9"]', "--allow-http"),
        (("--local-only",), 'urls = ["https://gpu1.example/v1"]', "--local-only"),
        ((), 'urls = ["http://127.0.0.1:9/v1"]\nkey_env = "NO_SUCH_KEY"', "export NO_SUCH_KEY="),
        ((), 'urls = ["http://127.0.0.1:9/v1", "http://127.0.0.1:9"]\nmodel = ""', "model ="),
        (("--base-url", "http://127.0.0.1:9"), 'urls = ["http://127.0.0.1:9"]', "--base-url"),
    ],
)
def test_what_may_not_be_is_refused_before_anything_is_sent(
    flags: tuple[str, ...], pool: str, said: str, mellea: Run, feedback: Path, tmp_path: Path
) -> None:
    """Other machines without TLS, other machines at all, a key that is not set, no model, two wishes at once."""
    config = tmp_path / "pools.toml"
    config.write_text(
        f"[pool.p]\n{pool if 'model' in pool else pool + chr(10) + 'model = ' + chr(34) + 'm' + chr(34)}\n"
    )
    done = mellea("summarise", str(feedback), "--pool", "p", *flags, env={"MELLEA_CONFIG": str(config)})
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_one_address_in_the_configuration_stays_one_address(
    mellea: Run, feedback: Path, serve: Serve, tmp_path: Path
) -> None:
    """It may be a text or a list of one, and the doctor tells it as it was written."""
    server = serve()
    config = tmp_path / "c.toml"
    for written in (f'"{server.openai_url}"', f'["{server.openai_url}"]'):
        config.write_text(f'[summarise]\nmodel = "test-model"\nbase_url = {written}\n')
        done = mellea("summarise", str(feedback), "-n", "2", "--json", env={"MELLEA_CONFIG": str(config)})
        assert (done.returncode, summary(done.stderr)["endpoints"]) == (0, [])
    assert server.state.completed == 4
    assert f"{server.openai_url} (from {config})" in mellea("doctor", env={"MELLEA_CONFIG": str(config)}).stdout


def test_the_total_of_requests_in_flight_is_c(mellea: Run, feedback: Path, serve: Serve) -> None:
    """`-c` holds for all endpoints together; a dry run sends nothing and shows it."""
    one, other = serve(latency_s=0.02), serve(latency_s=0.02)
    where = ("-m", "test-model", "-c", "3", "--base-url", one.openai_url, "--base-url", other.openai_url)
    dry = mellea("summarise", str(feedback), "--dry-run", *where)
    assert "3 at most" in dry.stdout
    assert one.state.requests + other.state.requests == 0
    done = mellea("summarise", str(feedback), *where)
    assert done.returncode == 0, done.stderr
    assert max(one.state.max_in_flight, other.state.max_in_flight) <= 3
