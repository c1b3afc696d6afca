"""Spellings of one model's name on a real Ollama."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from realservers import TEXTS, RealServer, Run, check_rows, read_rows, real_server, write_feedback
from relay import Relay

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(1200)]


@pytest.fixture
def ollama() -> RealServer:
    """The Ollama."""
    return real_server("ollama")


def spellings(name: str) -> list[str]:
    """Ways to write the name of a model from Ollama's own library."""
    base, _, tag = name.partition(":")
    tag = tag or "latest"
    full = [f"{base}:{tag}", f"library/{base}:{tag}", f"registry.ollama.ai/library/{base}:{tag}"]
    return [base, f"library/{base}", *full] if tag == "latest" else full


def test_every_spelling_finds_the_model(mellea: Run, ollama: RealServer, tmp_path: Path) -> None:
    """`NAME`, `NAME:TAG` and `library/NAME:TAG` are the same model, as they are for Ollama."""
    feedback = write_feedback(tmp_path / "in.jsonl", TEXTS[:1])
    for number, name in enumerate(spellings(ollama.model)):
        done = mellea("summarise", str(feedback), "-o", f"{number}.jsonl", *replace(ollama, model=name).flags())
        assert done.returncode in {0, 3}, (name, done.stderr)
        check_rows(read_rows(tmp_path / f"{number}.jsonl"), TEXTS[:1], done.stderr)


def test_another_spelling_asks_nothing_again(
    mellea: Run, ollama: RealServer, relays: Callable[[str], Relay], tmp_path: Path
) -> None:
    """A finished run is finished under every spelling of its model's name."""
    relay = relays(ollama.url)
    feedback = write_feedback(tmp_path / "in.jsonl", TEXTS[:1])
    asked = 0
    for name in spellings(ollama.model):
        named = replace(ollama, model=name, url=relay.url)
        done = mellea("summarise", str(feedback), "-o", "out.jsonl", "--no-retry-failed", *named.flags())
        assert done.returncode in {0, 3}, (name, done.stderr)
        asked = asked or len(relay.questions)
        assert len(relay.questions) == asked, (name, done.stderr)


def test_another_tag_is_another_model(mellea: Run, ollama: RealServer, tmp_path: Path) -> None:
    """A tag that the server does not have is a missing model, whatever other tags there are."""
    base = ollama.model.partition(":")[0]
    feedback = write_feedback(tmp_path / "in.jsonl", TEXTS[:1])
    for name in (f"{base}:no-such-tag", f"somebody/{base}"):
        done = mellea("summarise", str(feedback), "-o", "out.jsonl", *replace(ollama, model=name).flags())
        assert done.returncode == 4, (name, done.stderr)
        assert name in done.stderr
