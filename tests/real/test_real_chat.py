"""`mellea chat` on real servers."""

from __future__ import annotations

import json

import pytest
from realservers import RealServer, Run

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(1200)]


def test_one_question_from_a_pipe(mellea: Run, server: RealServer) -> None:
    """`echo QUESTION | mellea chat` prints the answer on stdout and ends well."""
    done = mellea(
        "chat",
        "--no-history",
        "--max-tokens",
        "200",
        *server.flags(),
        stdin="What is 2+2? Answer briefly.\n",
        env=server.environ(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_one_answer_as_json(mellea: Run, server: RealServer) -> None:
    """`--json` prints one JSON object that holds the answer."""
    done = mellea(
        "chat",
        "--no-history",
        "--max-tokens",
        "200",
        "--json",
        *server.flags(),
        stdin="Say hello.\n",
        env=server.environ(),
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert any(isinstance(value, str) and value.strip() for value in json.loads(line).values())


def test_turns_of_one_conversation(mellea: Run, server: RealServer) -> None:
    """With `--turns` each line of stdin gets an answer, one after the other on the same server."""
    done = mellea(
        "chat",
        "--no-history",
        "--max-tokens",
        "200",
        "--turns",
        "--json",
        *server.flags(),
        stdin="Say hello.\nSay it again.\nAnd once more.\n",
        env=server.environ(),
    )
    assert done.returncode == 0, done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3
