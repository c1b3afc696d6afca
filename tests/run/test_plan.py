"""The fingerprint covers exactly what changes answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from run_io import plan

from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.items import Item
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


def shared(one: str, other: str, **changes: Any) -> bool:
    """Whether two texts share an answer."""
    settled = plan(**{"normalise": True, **changes})
    keys = [settled.shared_key(Item(0, 0, text), settled.key(text)) for text in (one, other)]
    return keys[0] == keys[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Great", "GREAT"),
        ("very good", "  very \t good\n"),
        ("good, cheap", "- Good, cheap."),
        ("good", "\u2022 good ;"),
        ("\u3068\u3066\u3082\u826f\u3044", "\u3068\u3066\u3082\u826f\u3044\u3002"),
        ("\u00c4rgerlich", "\u00e4rgerlich."),
    ],
)
def test_short_texts_that_say_the_same_share_an_answer(one: str, other: str) -> None:
    """Capitals, blanks, a bullet and one stop at the end do not count; without the setting they do."""
    assert shared(one, other)
    assert not shared(one, other, normalise=False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("great", "great?"),
        ("great", "great!"),
        ("great", "great..."),
        ("great", "great :)"),
        ("great :)", "great :("),
        ("great", "great \U0001f44e"),
        ("great", '"great"'),
        ("5", "-5"),
        ("not good", "good"),
        ("Masse", "Ma\u00dfe"),
        ("x" * 81, "X" * 81),
    ],
)
def test_texts_that_may_say_something_else_do_not(one: str, other: str) -> None:
    """Questions, emphasis, hesitation, emoticons, quotation marks and signs count, and so does all of a long text."""
    assert not shared(one, other)


def test_a_shared_key_is_that_of_the_plain_text() -> None:
    """So a row with the plain text itself needs no further key, and journals of earlier versions keep their answers."""
    settled = plan(normalise=True)
    plain, other = Item(0, 0, "great"), Item(1, 1, "Great.")
    assert settled.shared_key(plain, settled.key("great")) == settled.key("great")
    assert settled.shared_key(other, settled.key("Great.")) == settled.key("great") != settled.key("Great.")
    assert settled.key("Great.") == plan().key("Great.")
