"""What real servers refuse: models, keys, paths, and texts that are too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from realservers import (
    TEXTS,
    RealServer,
    Run,
    check_rows,
    limited_model,
    read_rows,
    real_server,
    summary_of,
    write_feedback,
)
from relay import Relay

import mellea_cli

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(1200)]

MANY = [f"{TEXTS[number % len(TEXTS)]} Case {number}." for number in range(300)]
_WORDS = ("clerk", "letter", "window", "garden", "engine", "ticket", "winter", "market", "bridge", "doctor")
_STORY = " ".join(
    f"The {_WORDS[number % 10]} of the {_WORDS[number // 10 % 10]} was closed when I came." for number in range(1000)
)
LONG = f"Before all else: the blue door is stuck. {_STORY[:29_920]} In the end the red lamp broke."
# An English token has four or five characters. No count of these texts lies below this one.
LEAST_TOKENS = len(LONG) // 6


@pytest.mark.parametrize("server", ["ollama", "ollama-openai", "litellm"], indirect=True)
def test_a_missing_model(mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path) -> None:
    """The run ends after a few requests, and the message names the models that the server has."""
    feedback = write_feedback(tmp_path / "in.jsonl", MANY)
    wrong = replace(seen, model="no-such-model")
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "-c", "4", *wrong.flags(), env=seen.environ())
    assert done.returncode == 4, done.stderr
    assert len(relay.questions) <= 16
    assert "no-such-model" in done.stderr
    assert seen.model in done.stderr, done.stderr


@pytest.mark.parametrize("server", ["llamacpp"], indirect=True)
def test_a_server_of_one_model_takes_every_name(mellea: Run, server: RealServer, tmp_path: Path) -> None:
    """llama.cpp's server answers with the model it has, whatever name was given: the run ends well."""
    feedback = write_feedback(tmp_path / "in.jsonl", TEXTS[:2])
    other = replace(server, model="no-such-model")
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", *other.flags(), env=server.environ())
    assert done.returncode in {0, 3}, done.stderr
    check_rows(read_rows(tmp_path / "out.jsonl"), TEXTS[:2], done.stderr)


@pytest.mark.parametrize("server", ["ollama", "ollama-openai", "litellm"], indirect=True)
def test_chat_with_a_missing_model(mellea: Run, seen: RealServer, relay: Relay) -> None:
    """`mellea chat` ends at once, and the message names the models that the server has."""
    wrong = replace(seen, model="no-such-model")
    done = mellea("chat", "--no-history", *wrong.flags(), stdin="What is 2+2?\n", env=seen.environ())
    assert done.returncode == 4, done.stderr
    assert done.stdout == ""
    assert len(relay.questions) <= 4
    assert seen.model in done.stderr, done.stderr


@pytest.mark.parametrize("server", ["litellm"], indirect=True)
def test_a_wrong_key(mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path) -> None:
    """The run ends after a few requests, and the message is about the key and does not show it."""
    if not seen.key:
        pytest.skip("MELLEA_REAL_LITELLM_KEY is not set")
    feedback = write_feedback(tmp_path / "in.jsonl", MANY)
    done = mellea(
        "summarise",
        str(feedback),
        "-o",
        "out.jsonl",
        "-c",
        "4",
        *seen.flags(),
        env={"OPENAI_API_KEY": "sk-wrong-12345"},
    )
    assert done.returncode == 4, done.stderr
    assert len(relay.questions) <= 16
    assert "key" in done.stderr.lower()
    assert "sk-wrong-12345" not in done.stderr


@pytest.mark.parametrize("server", ["litellm"], indirect=True)
def test_no_key(mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path) -> None:
    """A server that wants a key and gets none ends the run after a few requests, with a message about the key."""
    if not seen.key:
        pytest.skip("MELLEA_REAL_LITELLM_KEY is not set")
    feedback = write_feedback(tmp_path / "in.jsonl", MANY)
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "-c", "4", "--max-wait", "5s", *seen.flags())
    assert done.returncode == 4, done.stderr
    assert len(relay.questions) <= 16
    assert "key" in done.stderr.lower()


@pytest.mark.parametrize("server", ["ollama-openai", "litellm", "llamacpp"], indirect=True)
def test_an_address_of_another_protocol(
    mellea: Run, server: RealServer, relays: Callable[[str], Relay], tmp_path: Path
) -> None:
    """`-b ollama` on a server that has no such protocol ends after a few requests and says what is wrong."""
    feedback = write_feedback(tmp_path / "in.jsonl", MANY)
    relay = relays(server.url)
    other = replace(server, backend="ollama", url=relay.url)
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "-c", "4", *other.flags(), env=server.environ())
    assert done.returncode in {2, 4}, done.stderr
    assert len(relay.requests) <= 16
    assert "ollama" in done.stderr.lower()


@pytest.mark.parametrize("server", ["ollama"], indirect=True)
def test_an_address_without_its_path(mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path) -> None:
    """`-b openai` on an address without its `/v1` ends after a few requests, and the message names `/v1`."""
    feedback = write_feedback(tmp_path / "in.jsonl", MANY)
    other = replace(seen, backend="openai")
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "-c", "4", *other.flags())
    assert done.returncode == 4, done.stderr
    assert len(relay.requests) <= 16
    assert "/v1" in done.stderr


def test_a_long_text_is_not_cut_in_silence(mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path) -> None:
    """A text of 30,000 characters is read in full, or its row fails as too long and is asked once."""
    feedback = write_feedback(tmp_path / "in.jsonl", [LONG])
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "--json", *seen.flags(), env=seen.environ())
    (row,) = read_rows(tmp_path / "out.jsonl")
    if "error" in row and row["error"]["kind"] == "context-too-long":
        assert done.returncode == 3
        assert len(relay.questions) == 1
        return
    check_rows([row], [LONG], done.stderr)
    summary = summary_of(done)
    assert summary["prompt_tokens"] >= LEAST_TOKENS * summary["calls"], done.stderr


async def test_a_long_text_of_a_session_is_not_cut_in_silence(server: RealServer) -> None:
    """A session reads 30,000 characters in full, or raises an error that says they are too many."""
    async with mellea_cli.start_session(
        server.backend, server.model, base_url=server.url, api_key=server.key or None
    ) as m:
        options = {mellea_cli.ModelOption.MAX_NEW_TOKENS: 20}
        thunk = await m.ainstruct(
            "Summarise: {{text}}", user_variables={"text": LONG}, model_options=options, strategy=None
        )
        # The classes of errors are no part of the public names, but each has its kind.
        await asyncio.wait([asyncio.ensure_future(thunk.avalue())])
    if thunk.error is not None:
        assert getattr(thunk.error, "kind", "") == "context-too-long", repr(thunk.error)
        return
    assert thunk.usage is not None
    assert (thunk.usage.prompt_tokens or 0) >= LEAST_TOKENS


@pytest.mark.parametrize("server", ["litellm"], indirect=True)
def test_a_limit_on_requests_is_kept(mellea: Run, seen: RealServer, relay: Relay, tmp_path: Path) -> None:
    """A server that says how long to wait is left alone for so long: no row is lost, and few requests are refused."""
    model = limited_model()
    texts = TEXTS[:4]
    feedback = write_feedback(tmp_path / "in.jsonl", texts)
    narrow = replace(seen, model=model)
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "-c", "1", *narrow.flags(), env=seen.environ())
    assert done.returncode in {0, 3}, done.stderr
    check_rows(read_rows(tmp_path / "out.jsonl"), texts, done.stderr)
    # Two are answered, one is refused and told to wait until the next minute, and so on.
    refused = [one for one in relay.responses if one.status == 429]
    assert len(refused) <= relay.answered // 2 + 1, done.stderr


def test_a_key_goes_to_ollama_as_well(mellea: Run, relays: Callable[[str], Relay], tmp_path: Path) -> None:
    """With `--key-file` every request to an Ollama carries the key, for those that stand behind a gateway."""
    ollama = real_server("ollama")
    relay = relays(ollama.url)
    key = tmp_path / "key"
    key.write_text("sk-of-mine\n", encoding="utf-8")
    key.chmod(0o600)
    feedback = write_feedback(tmp_path / "in.jsonl", TEXTS[:1])
    behind = replace(ollama, url=relay.url)
    done = mellea("summarise", str(feedback), "-o", "out.jsonl", "--key-file", str(key), *behind.flags())
    assert done.returncode in {0, 3}, done.stderr
    assert {one.headers.get("authorization") for one in relay.questions} == {"Bearer sk-of-mine"}
