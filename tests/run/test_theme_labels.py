"""Theme labels: what an edit asks again, agreement with the summary, and counts that add up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from run_io import plan as any_plan

from mellea_cli.errors import ExitCode
from mellea_cli.io.journal import MemoryAnswers
from mellea_cli.items import Failure, Item, Outcome, Success
from mellea_cli.pipelines.theme_prompts import Theme, label_pipeline
from mellea_cli.run.theme_labels import LabelCounts, Unreconciled, agreeing, audit, settle_question
from themed import KIND, LATE, RUDE, row

ALL = (LATE, RUDE, KIND)


def named(theme: Theme, name: str) -> Theme:
    return dataclasses.replace(theme, name=name)


def answered(*themes: str, quotes: Mapping[str, str] | None = None) -> Success:
    return Success({"themes": list(themes), "theme_quotes": dict(quotes or {name: name for name in themes})})


def test_a_first_question_asks_what_the_file_says() -> None:
    """Nothing is remembered: names and order are the file's."""
    question = settle_question(ALL, MemoryAnswers())
    assert question.asked == ALL
    assert question.earlier == ()


def test_a_new_name_or_order_asks_the_same_question() -> None:
    """The model goes on being asked by the first names, and the answer is renamed on its way out."""
    journal = MemoryAnswers()
    settle_question(ALL, journal)
    question = settle_question((named(KIND, "Nice people"), named(RUDE, "Rudeness"), LATE), journal)
    assert question.asked == ALL
    renamed = question.renamed(answered("Late delivery", "Kind people"))
    assert isinstance(renamed, Success)
    assert renamed.values == {
        "themes": ["Nice people", "Late delivery"],
        "theme_quotes": {"Nice people": "Kind people", "Late delivery": "Late delivery"},
    }


def test_names_may_be_swapped() -> None:
    """Two themes that take each other's names are not mixed up."""
    journal = MemoryAnswers()
    settle_question(ALL, journal)
    question = settle_question((named(LATE, RUDE.name), named(RUDE, LATE.name), KIND), journal)
    renamed = question.renamed(answered(LATE.name))
    assert isinstance(renamed, Success)
    assert renamed.values["themes"] == [RUDE.name]


def test_other_none_and_failures_keep_their_words() -> None:
    """They belong to no theme."""
    question = settle_question(ALL, MemoryAnswers())
    for word in ("other", "none"):
        outcome = question.renamed(Success({"themes": [word], "theme_quotes": {}}))
        assert isinstance(outcome, Success)
        assert outcome.values["themes"] == [word]
    failure = Failure("parse", "no")
    assert question.renamed(failure) is failure


def look_up(journal: MemoryAnswers, themes: tuple[Theme, ...], text: str) -> Outcome | None:
    question = settle_question(themes, journal)
    plan = any_plan(pipeline=label_pipeline(question.asked))
    return question.carried(plan, journal)(Item(0, 0, text))


def keep(journal: MemoryAnswers, themes: tuple[Theme, ...], answers: Mapping[str, Outcome]) -> None:
    plan = any_plan(pipeline=label_pipeline(settle_question(themes, journal).asked))
    journal.commit([(plan.key(text, 0), outcome) for text, outcome in answers.items()])


def test_a_theme_taken_out_leaves_the_rows_that_did_not_have_it() -> None:
    """The model had the choice and chose others: only rows with the theme, and failed ones, are asked again."""
    journal = MemoryAnswers()
    answers = {
        "a": answered(LATE.name),
        "b": answered(RUDE.name),
        "c": answered(LATE.name, RUDE.name),
        "d": answered("none", quotes={}),
        "e": Failure("parse", "no"),
    }
    keep(journal, ALL, answers)
    short = (LATE, named(KIND, "Nice people"))
    assert {text for text in "abcdef" if look_up(journal, short, text) is not None} == {"a", "d"}


def test_an_answer_is_found_two_edits_later() -> None:
    """Lists are remembered: what was not asked again after the first edit need not be after the second."""
    journal = MemoryAnswers()
    keep(journal, ALL, {"a": answered(LATE.name), "b": answered(KIND.name)})
    keep(journal, (LATE, KIND), {})
    carried = look_up(journal, (named(LATE, "Delays"),), "a")
    assert isinstance(carried, Success)
    assert look_up(journal, (LATE,), "b") is None


def test_a_new_theme_definition_kind_or_example_carries_nothing() -> None:
    """The model saw something else: every row is asked again."""
    journal = MemoryAnswers()
    keep(journal, ALL, {"a": answered(LATE.name)})
    for changed in (
        dataclasses.replace(LATE, definition="Later."),
        dataclasses.replace(LATE, kind="both"),
        dataclasses.replace(LATE, examples=("later",)),
    ):
        assert look_up(journal, (changed, RUDE, KIND), "a") is None
    assert look_up(journal, (*ALL, Theme("Prices", "Too dear.")), "a") is None


def test_an_edit_that_is_taken_back_finds_its_answers() -> None:
    """The first list is still remembered, names and order with it."""
    journal = MemoryAnswers()
    settle_question(ALL, journal)
    settle_question((LATE, Theme("Prices", "Too dear.")), journal)
    assert settle_question(tuple(reversed(ALL)), journal).asked == ALL


def test_notes_that_cannot_be_read_are_as_good_as_none() -> None:
    """A journal of another version must not stop the run."""
    for note in ("{", "[[3]]", '[[{"name": 1}]]', "7"):
        journal = MemoryAnswers()
        journal.note_facts({"themes": note})
        assert settle_question(ALL, journal).asked == ALL


KINDS = {"Late": "complaint", "Kind": "praise", "Price": "both"}
QUOTES = {"Late": "late", "Kind": "kind", "Price": "price"}


@pytest.mark.parametrize(
    ("complaint", "praise", "kept"),
    [
        ("late", "kind", ["Late", "Kind", "Price"]),
        ("late", None, ["Late", "Price"]),
        (None, "kind", ["Kind", "Price"]),
        (None, None, ["Late", "Kind", "Price"]),
    ],
)
def test_a_row_has_only_themes_of_what_it_says(complaint: str | None, praise: str | None, kept: list[str]) -> None:
    """No complaint, no theme of complaints; a row of which nothing was said is not asked about anyway."""
    fields = row(1, "late, kind, price", complaint, praise)
    outcome = Success({"themes": list(KINDS), "theme_quotes": dict(QUOTES)})
    agreed = agreeing(KINDS, Item(0, 1, fields["text"], fields), outcome)
    assert isinstance(agreed, Success)
    assert agreed.values == {"themes": kept, "theme_quotes": {name: QUOTES[name] for name in kept}}


@pytest.mark.parametrize(("labels", "expected"), [(["Late"], ["other"]), (["other"], ["other"]), (["none"], ["none"])])
def test_what_is_left_of_nothing_is_other(labels: list[str], expected: list[str]) -> None:
    """The row says something, and nothing of it has a theme."""
    fields = row(1, "kind", praise="kind")
    values: dict[str, Any] = {"themes": labels, "theme_quotes": {name: "kind" for name in labels if name in KINDS}}
    agreed = agreeing(KINDS, Item(0, 1, "kind", fields), Success(values))
    assert isinstance(agreed, Success)
    assert agreed.values == {"themes": expected, "theme_quotes": {}}


def test_rows_that_were_never_summarised_keep_their_labels() -> None:
    """Nobody knows what they say; failures stay what they are."""
    outcome = Success({"themes": ["Late"], "theme_quotes": {"Late": "late"}})
    item = Item(0, 1, "late", {"id": 1, "text": "late"})
    assert agreeing(KINDS, item, outcome) is outcome
    failure = Failure("timeout", "too late", "label", 1)
    assert agreeing(KINDS, Item(0, 1, "x", row(1, "x", "late")), failure) is failure


NAMES = ("Late", "Rude")
Read = tuple[Item, Sequence[str] | None, Mapping[str, str]]
ROWS: list[Read] = [
    (Item(0, "a", "So late and rude."), ["Late", "Rude"], {"Late": "late", "Rude": "rude"}),
    (Item(1, "b", "late"), ["Late"], {"Late": "late"}),
    (Item(2, "c", "blue"), ["other"], {}),
    (Item(3, "d", ""), ["none"], {}),
    (Item(4, "e", "?"), None, {}),
]


def counted() -> LabelCounts:
    figures = LabelCounts(NAMES)
    for item, labels, quotes in ROWS:
        figures.add(labels, quotes, item.text, f"row {item.id}")
    return figures


def test_every_row_is_accounted_for_once() -> None:
    """Labelled, other, none and failed add up; a row with two themes counts for both."""
    figures = counted()
    assert (figures.labelled, figures.other, figures.none, figures.failed, figures.rows) == (2, 1, 1, 1, 5)
    assert figures.themes == {"Late": 2, "Rude": 1}
    assert figures.quotes == 3
    audit(figures, ROWS)


@pytest.mark.parametrize(
    ("labels", "quotes", "said"),
    [
        ([], {}, "no label"),
        (["Blue"], {"Blue": "late"}, "not themes"),
        (["Rude", "Late"], {"Late": "late", "Rude": "late"}, "in their order"),
        (["Late", "Late"], {"Late": "late"}, "in their order"),
        (["Late", "other"], {"Late": "late"}, "in their order"),
        (["Late"], {}, "quotes for 0 of 1"),
        (["other"], {"Late": "late"}, "quotes for 1 of 0"),
        (["Late"], {"Late": "delayed"}, "is not in its text"),
        (["Late"], {"Late": ""}, "is not in its text"),
    ],
)
def test_a_row_that_does_not_hold_is_an_error(labels: list[str], quotes: dict[str, str], said: str) -> None:
    """The row is named, and the process ends with the code of an output that cannot be trusted."""
    with pytest.raises(Unreconciled, match=said) as caught:
        LabelCounts(NAMES).add(labels, quotes, "It was late.", "row 7")
    assert caught.value.message.startswith("row 7")
    assert caught.value.exit_code is ExitCode.CANNOT_WRITE


@pytest.mark.parametrize("missing", range(len(ROWS)))
def test_an_output_that_lacks_a_row_is_an_error(missing: int) -> None:
    """Whichever row it is, some figure is not what was counted."""
    with pytest.raises(Unreconciled):
        audit(counted(), [one for place, one in enumerate(ROWS) if place != missing])
