"""Theme discovery: sampled phrases, and themes that are distinct, few enough, and supported by phrases."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mellea_cli.items import Item
from mellea_cli.pipelines.pipeline import Pipeline
from mellea_cli.pipelines.theme_prompts import PROPOSE_BATCH, Polarity, Theme, propose_pipeline
from mellea_cli.requirements.requirement import Answered
from mellea_cli.run.theme_discovery import LabelledSample, discover, propose, read_judgement, sample_phrases
from themed import KIND, LATE, RUDE, reply, row


def as_items(rows: list[dict[str, Any]]) -> list[Item]:
    return [Item(place, place, str(fields["text"]), fields) for place, fields in enumerate(rows)]


@pytest.mark.parametrize(
    "fields",
    [
        {"sentiment": "negative", "issues": {"main_complaint": "late ", "positive_aspect": None, "urgency": "high"}},
        {"sentiment": "negative", "main_complaint": "late", "positive_aspect": "", "urgency": "high"},
        {
            "issues": "theirs",
            "sentiment": "theirs too",
            "mellea_sentiment": "negative",
            "mellea_issues": {"main_complaint": "late", "positive_aspect": None, "urgency": "high"},
        },
    ],
)
def test_what_was_said_is_read_in_every_form(fields: dict[str, Any]) -> None:
    """Nested, flat, or under the names that ours took because the input had those columns."""
    found = read_judgement(fields)
    assert found is not None
    assert (found.phrases, found.sentiment, found.urgency) == ({"complaint": "late"}, "negative", "high")


@pytest.mark.parametrize("fields", [{}, {"text": "x"}, {"sentiment": None, "issues": None, "error": {"kind": "parse"}}])
def test_a_row_that_failed_says_nothing(fields: dict[str, Any]) -> None:
    """Nobody knows whether it complains: that is not the same as no complaint."""
    assert read_judgement(fields) is None


def test_small_strata_are_not_lost() -> None:
    """Of 3,000 complaints the three urgent ones are all there, and the sample keeps its size."""
    rows = [row(number, "t", complaint=f"late {number}") for number in range(3000)]
    for place in (7, 1500, 2900):
        rows[place]["issues"]["urgency"] = "high"
    drawn = sample_phrases(as_items(rows), most=100)
    assert {"late 7", "late 1500", "late 2900"} <= set(drawn["complaint"])
    assert 90 <= drawn["complaint"].total() <= 100
    assert drawn["praise"] == Counter()


def test_the_same_seed_draws_the_same_in_the_same_order() -> None:
    """So the questions of a second discovery are those of the first."""
    items = as_items([row(n, "t", complaint=f"c{n % 700}", praise=f"p{n}") for n in range(2000)])
    one, again, other = (sample_phrases(items, most=50, seed=seed) for seed in (1, 1, 2))
    assert list(one["complaint"].items()) == list(again["complaint"].items())
    assert one != other


def test_every_phrase_is_there_when_there_are_few() -> None:
    """Each with how often it was said; a long one is cut, on one line."""
    rows = [row(1, "t", complaint="late"), row(2, "t", complaint="late"), row(3, "t", praise="a\n b" * 100)]
    drawn = sample_phrases(as_items(rows))
    assert drawn["complaint"] == Counter({"late": 2})
    (phrase,) = drawn["praise"]
    assert len(phrase) == 120
    assert "\n" not in phrase


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


async def test_a_theme_that_without_phrases_is_dropped() -> None:
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
    """No question is longer than a batch; what most phrases support stays."""
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
    """A name within another's, a plural, a reserved or unusable one: the first is kept, the others are dropped."""
    names = ["Long wait", "Long waits for help", "Waiting long", "other", "| =", "=Cost|money", "None"]
    themes = await discover(phrases(10), Asked(names=names, broken="sort"), most=12)
    assert [theme.name for theme in themes] == ["Long wait", "Cost/money"]


async def test_the_same_name_for_complaint_and_praise_is_told_apart() -> None:
    """Names are unique in a themes file."""
    themes = await discover(phrases(10, 10), Asked(names=["Staff"], broken="sort"), most=12)
    assert [theme.name for theme in themes] == ["Staff", "Staff (praise)"]


@pytest.mark.parametrize(("broken", "found"), [("propose", False), ("sort", True)])
async def test_a_question_that_fails_costs_only_what_it_was_for(broken: str, found: bool) -> None:
    """Without proposals there is nothing; without sorting the proposals are kept, without examples."""
    themes = await discover(phrases(10), Asked(broken), most=4)
    assert bool(themes) is found
    assert all(theme.examples == () for theme in themes)


async def test_a_theme_out_of_the_worked_example_is_asked_again() -> None:
    """Small models copy examples: the reason names the copies, and the fallback leaves them out."""
    step = propose_pipeline("praise", 2).steps[0]
    example = json.loads(step.prompt.examples[0].answer)["themes"]
    mine = {"name": "Quick help", "definition": "Help came quickly."}
    parsed = step.output.parse(json.dumps({"themes": [example[0], mine]}))
    verdict = await step.requirements[0].check(Answered("", parsed))
    assert not verdict
    assert example[0]["name"] in str(verdict.reason)
    assert step.fallback is not None
    fixed = step.fallback(parsed, "")
    assert [theme.name for theme in fixed.themes] == ["Quick help"]
    assert await step.requirements[0].check(Answered("", fixed))


async def test_one_theme_may_be_general() -> None:
    """There is blame without a reason, but a second name for it is dropped."""
    names = ("Poor service", "Long waits", "Bad overall experience", "Rude staff")
    themes = await discover(phrases(10), Asked(names=names, broken="sort"), most=12)
    assert [theme.name for theme in themes] == ["Poor service", "Long waits", "Rude staff"]


async def test_the_plainest_of_equivalent_names_is_kept() -> None:
    """And names that fit anything come last, as more are proposed than can be kept."""
    names = ("Patient issues", "Miscommunication with nurses", "Poor communication", "Long waits")
    themes = await discover(phrases(10), Asked(names=names, broken="sort"), most=2)
    assert [theme.name for theme in themes] == ["Poor communication", "Long waits"]


@pytest.mark.parametrize("said", ["complaint", "praise"])
async def test_the_worked_examples_parse(said: Polarity) -> None:
    """What is shown to the model is an answer to the question that it is asked."""
    step = propose_pipeline(said, 6).steps[0]
    assert len(step.output.parse(step.prompt.examples[0].answer).themes) == 6


def labelled(*counts: tuple[int, Sequence[str], str], themes: Sequence[Theme] = (LATE, RUDE, KIND)) -> LabelledSample:
    """A sample of so many rows with these labels, which all say these words."""
    rows = []
    for count, labels, words in counts:
        for number in range(len(rows), len(rows) + count):
            said = f"{words} {number}"
            (item,) = as_items([row(number, said, complaint=said if words else None)])
            rows.append((replace(item, id=f"r{number}"), labels, dict.fromkeys(labels, said)))
    return LabelledSample(rows, themes)


async def test_other_becomes_a_new_theme() -> None:
    """With its evidence; what one or two rows say is no theme, and nor is one that there is already."""
    # A row that is `none` though it complains has no theme either.
    price, late, nothing = (2, ["none"], "a high price"), (5, ["other"], "late"), (9, ["none"], "")
    sample = labelled((20, ["Rude staff"], "rude"), (3, ["other"], "a high price"), price, late, nothing)
    ask = Asked()
    (found,) = await propose(sample, ask, most=6)
    assert (found.change, found.number, [theme.name for theme in found.themes]) == ("new", 1, ["High prices"])
    assert found.reason == "5 of 10 sampled complaints in rows without a theme say this."
    assert found.rows[0][0] in {f"r{number}" for number in range(20, 25)}
    assert all("a high price" in words for _, words in found.rows)
    assert found.themes[0].kind == "complaint"
    assert len(ask.questions) <= sample.most_questions(6)
    rare = labelled((30, ["Rude staff"], "rude"), (2, ["other"], "a high price"), (8, ["other"], "late"))
    assert rare.most_questions(6) > 0
    assert await propose(rare, Asked(), most=6) == []


def test_few_rows_without_a_theme_are_not_searched() -> None:
    """No phrase is drawn from nine of them."""
    few = labelled((9, ["other"], "a high price"))
    assert (few.without_theme, few.other, few.most_questions(6)) == (9, {}, 0)


async def test_a_large_theme_of_two_things_is_split() -> None:
    """Its parts stand below its name; a theme that is about one thing, or small, stays."""
    broad = Theme("Service", "All about service.", "complaint")
    sample = labelled((40, ["Service"], "rude"), (40, ["Service"], "a high price"), themes=(broad, KIND))
    ask = Asked()
    (found,) = await propose(sample, ask, most=6)
    assert (found.change, found.replaces) == ("split", ("Service",))
    assert {(theme.name, theme.parent) for theme in found.themes} == {
        ("Rude staff", "Service"),
        ("High prices", "Service"),
    }
    assert found.reason.startswith("'Service' is in 80 of 80 rows that say something (100%), and 48 of 48 ")
    assert len({words.rsplit(" ", 1)[0] for _, words in found.rows}) == 2
    assert len(ask.questions) <= sample.most_questions(6)
    for one in (
        labelled((80, ["Service"], "rude"), themes=(broad,)),
        labelled((20, ["Service"], "rude"), themes=(broad,)),
    ):
        assert await propose(one, Asked(), most=6) == []
    assert labelled((20, ["Service"], "rude"), themes=(broad,)).most_questions(6) == 0


async def test_themes_of_the_same_rows_are_merged() -> None:
    """The larger keeps its name; nothing is asked. Themes that meet by chance, or of other kinds, stay."""
    both = ["Late delivery", "Rude staff"]
    sample = labelled((10, both, "late, rude"), (4, ["Late delivery"], "late"), (40, ["Kind people"], "kind"))
    (found,) = await propose(sample, None, most=6)
    assert (found.change, found.replaces, found.themes[0].name) == ("merge", tuple(both), "Late delivery")
    assert found.themes[0].definition == "It came late. Somebody was rude."
    assert found.reason == "10 rows have both: of 14 with 'Late delivery' and 10 with 'Rude staff'."
    assert found.rows[0] == ("r0", "late, rude 0 … late, rude 0")
    # In nearly every row each, so nearly always together.
    often = labelled((81, both, "x"), (9, both[:1], "x"), (9, both[1:], "x"), (1, ["other"], "x"))
    assert await propose(often, None, most=6) == []
    assert (
        await propose(labelled((10, ["Late delivery", "Kind people"], "x"), (20, ["other"], "x")), None, most=6) == []
    )
