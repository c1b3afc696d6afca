"""What an edited themes file asks again, and what it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from run_io import plan as any_plan

from mellea_cli.io.journal import MemoryAnswers
from mellea_cli.items import Failure, Item, Outcome, Success
from mellea_cli.pipelines.theme_prompts import Theme, label_pipeline
from mellea_cli.run.theme_labels import settle_question
from themed import KIND, LATE, RUDE

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
