"""Which backend and model a command uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopback import ModelServer
from mellea_cli.cli.backend_setup import choose_model, model_identity
from mellea_cli.errors import ModelMissing, UsageError
from rowfiles import Run


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
