"""The fingerprint covers exactly what changes answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from run_io import plan

from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.messages import Options
from mellea_cli.pipelines.default_prompts import PIPELINES, SINGLE
from mellea_cli.run.plan import Caps

PROMPT = dataclasses.replace(SINGLE.steps[0].prompt, system="Be kind.")
OTHER_PROMPT = dataclasses.replace(SINGLE, steps=(dataclasses.replace(SINGLE.steps[0], prompt=PROMPT),))


@pytest.mark.parametrize(
    "change",
    [
        {"pipeline": PIPELINES["steps"]},
        {"pipeline": OTHER_PROMPT},
        {"identity": "another-model"},
        {"backend": "ollama"},
        {"options": Options(temperature=0.5)},
        {"options": Options(temperature=0.0, seed=7)},
        {"options": Options(temperature=0.0, native={"top_k": 3})},
        {"redacted": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_answers_changes_the_fingerprint(change: dict[str, Any]) -> None:
    """Another prompt, model or sampling asks again."""
    assert plan(**change).fingerprint != plan().fingerprint
    assert plan(**change).key("text") != plan().key("text")


@pytest.mark.parametrize(
    "change",
    [
        {"concurrency": 1},
        {"policy": RetryPolicy(max_retries=0)},
        {"deadlines": Deadlines(1, 1, 1)},
        {"max_wait_s": 1.0},
        {"grace_s": 0.0},
        {"rpm": 5.0, "tpm": 5.0},
        {"caps": Caps(tokens=1)},
        {"model": "a-name-for-the-same-file"},
    ],
    ids=str,
)
def test_speed_and_time_limits_do_not(change: dict[str, Any]) -> None:
    """The answers of a slow run are those of a quick one."""
    assert plan(**change).fingerprint == plan().fingerprint


def test_keys_tell_texts_apart() -> None:
    """One letter is another key; lone surrogates have one too."""
    assert len({plan().key(text) for text in ("a", "b", "", "\ud800", "a ")}) == 5
    assert plan().key("a") == plan().key("a")


def test_calls() -> None:
    """Items times steps."""
    assert plan(pipeline=PIPELINES["steps"]).calls(10) == 30
