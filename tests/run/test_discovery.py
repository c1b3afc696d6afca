"""Themes out of phrases: distinct, within their number, with the phrases that speak for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mellea_cli.items import Item
from mellea_cli.pipelines.pipeline import Pipeline
from mellea_cli.pipelines.theme_prompts import PROPOSE_BATCH, Polarity, propose_pipeline
from mellea_cli.requirements.requirement import Answered
from mellea_cli.run.theme_discovery import discover
from themed import reply


class Asked:
    """Answers by rule, and keeps what was asked."""

    def __init__(self, broken: str = "", names: Sequence[str] = ()) -> None:
        self.questions: list[tuple[str, str]] = []
        self._broken = broken
        self._names = names

    async def __call__(self, pipeline: Pipeline, items: Sequence[Item]) -> Sequence[Mapping[str, Any] | None]:
        step = pipeline.steps[0]
        answers: list[Mapping[str, Any] | None] = []
        for item in items:
            self.questions.append((step.name, item.text))
            if step.name == self._broken:
                answers.append(None)
            elif step.name == "propose" and self._names:
                answers.append({"themes": [[name, f"About {name}."] for name in self._names]})
            else:
                parsed = step.output.parse(reply(item.text, step.output.schema))
                answers.append(pipeline.assemble({step.name: parsed}))
        return answers


def phrases(complaints: int, praise: int = 0) -> dict[Polarity, Counter[str]]:
    words = ("late", "rude", "price")
    return {
        "complaint": Counter(f"{words[n % 3]} number {n}" for n in range(complaints)),
        "praise": Counter(f"{('kind', 'quick')[n % 2]} number {n}" for n in range(praise)),
    }


async def test_themes_have_a_kind_a_definition_and_two_of_their_phrases() -> None:
    """Complaints first; each example is a phrase that was put to the theme."""
    themes = await discover(phrases(40, 40), Asked(), most=12)
    assert {theme.name for theme in themes} == {
        "Late delivery",
        "Rude staff",
        "High prices",
        "Kind people",
        "Quick help",
    }
    assert [theme.kind for theme in themes] == ["complaint"] * 3 + ["praise"] * 2
    for theme in themes:
        assert theme.definition == f"About {theme.name.lower()}."
        assert len(theme.examples) == 2
    assert all("late" in example for theme in themes if theme.name == "Late delivery" for example in theme.examples)


async def test_a_theme_that_no_phrase_speaks_for_is_dropped() -> None:
    """The model had to name more than there are: those it made up get no row, and are gone."""
    names = [theme.name for theme in await discover(phrases(40), Asked(), most=8)]
    assert not any(name.startswith("Matter") for name in names)


async def test_there_are_never_more_than_asked_for() -> None:
    """Over both kinds together, each of which has its part."""
    for most in (1, 2, 3, 4):
        themes = await discover(phrases(60, 10), Asked(), most=most)
        assert 0 < len(themes) <= most
        assert most < 2 or {theme.kind for theme in themes} == {"complaint", "praise"}


async def test_many_phrases_are_asked_about_in_batches() -> None:
    """No question is longer than a batch; what most phrases speak for stays."""
    asked = Asked()
    themes = await discover(phrases(100), asked, most=2)
    proposals = [text for step, text in asked.questions if step == "propose"]
    assert len(proposals) == -(-100 // PROPOSE_BATCH)
    assert all(len(text.splitlines()) <= PROPOSE_BATCH for text in proposals)
    assert [theme.name for theme in themes] == ["Late delivery", "Rude staff"]


class Dazzled(Asked):
    """Sees nothing else where there is what most lines say."""

    async def __call__(self, pipeline: Pipeline, items: Sequence[Item]) -> Sequence[Mapping[str, Any] | None]:
        common = any("late" in item.text for item in items)
        self._names = ["Late delivery"] if common else ["Late deliveries", "Rude staff"]
        return await super().__call__(pipeline, items)


async def test_what_the_first_themes_leave_over_is_looked_at_again() -> None:
    """By itself, and only when there is enough of it; a theme that is there already is not found once more."""
    words = Counter([*(f"late number {n}" for n in range(60)), *(f"rude number {n}" for n in range(20))])
    asked = Dazzled()
    themes = await discover({"complaint": words, "praise": Counter()}, asked, most=12)
    assert [theme.name for theme in themes] == ["Late delivery", "Rude staff"]
    proposals = [text for step, text in asked.questions if step == "propose"]
    again = proposals[-(-80 // PROPOSE_BATCH) :]
    assert sum(len(text.splitlines()) for text in again) == 20
    few = Counter([*(f"late number {n}" for n in range(60)), "rude", "rude again"])
    assert [theme.name for theme in await discover({"complaint": few}, Dazzled(), most=12)] == ["Late delivery"]


async def test_names_that_mean_the_same_are_one_theme() -> None:
    """A name within another's, a plural, a reserved or unusable one: the first stands, the rest go."""
    names = ["Long wait", "Long waits for help", "Waiting long", "other", "| =", "=Cost|money", "None"]
    themes = await discover(phrases(10), Asked(names=names, broken="sort"), most=12)
    assert [theme.name for theme in themes] == ["Long wait", "Cost/money"]


async def test_the_same_name_for_complaint_and_praise_is_told_apart() -> None:
    """Names are unique in a themes file."""
    themes = await discover(phrases(10, 10), Asked(names=["Staff"], broken="sort"), most=12)
    assert [theme.name for theme in themes] == ["Staff", "Staff (praise)"]


@pytest.mark.parametrize(("broken", "found"), [("propose", False), ("sort", True)])
async def test_a_question_that_fails_costs_only_what_it_was_for(broken: str, found: bool) -> None:
    """Without proposals there is nothing; without sorting the proposals stand, without examples."""
    themes = await discover(phrases(10), Asked(broken), most=4)
    assert bool(themes) is found
    assert all(theme.examples == () for theme in themes)


async def test_a_theme_out_of_the_worked_example_is_asked_again() -> None:
    """Small models copy examples: the reason names the copies, and the last resort leaves them out."""
    step = propose_pipeline("praise", 2).steps[0]
    example = json.loads(step.prompt.examples[0].answer)["themes"]
    mine = {"name": "Quick help", "definition": "Help came quickly."}
    parsed = step.output.parse(json.dumps({"themes": [example[0], mine]}))
    verdict = await step.requirements[0].check(Answered("", parsed))
    assert not verdict
    assert example[0]["name"] in str(verdict.reason)
    assert step.fallback is not None
    mended = step.fallback(parsed, "")
    assert [theme.name for theme in mended.themes] == ["Quick help"]
    assert await step.requirements[0].check(Answered("", mended))


async def test_one_theme_may_be_general() -> None:
    """There is blame without a reason, but a second name for it is dropped."""
    names = ("Poor service", "Long waits", "Bad overall experience", "Rude staff")
    themes = await discover(phrases(10), Asked(names=names, broken="sort"), most=12)
    assert [theme.name for theme in themes] == ["Poor service", "Long waits", "Rude staff"]


async def test_the_plain_name_stands_for_those_that_mean_the_same() -> None:
    """And names that fit anything come last, as more are proposed than can be kept."""
    names = ("Patient issues", "Miscommunication with nurses", "Poor communication", "Long waits")
    themes = await discover(phrases(10), Asked(names=names, broken="sort"), most=2)
    assert [theme.name for theme in themes] == ["Poor communication", "Long waits"]


@pytest.mark.parametrize("said", ["complaint", "praise"])
async def test_the_worked_examples_parse(said: Polarity) -> None:
    """What is shown to the model is an answer to the question that it is asked."""
    step = propose_pipeline(said, 6).steps[0]
    assert len(step.output.parse(step.prompt.examples[0].answer).themes) == 6
