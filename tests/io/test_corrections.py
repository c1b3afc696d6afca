"""Corrections files: what counts of them, bad lines, cut lines, random order, and the rows that teach."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mellea_cli.errors import InputError, OutputError
from mellea_cli.io.corrections import (
    Correction,
    Corrections,
    CorrectionsFile,
    corrections_path,
    read_lines,
    reviewed_rows,
    sample_rank,
    teaching_rows,
)


def said(item: str, person: object, field: str = "sentiment", **more: object) -> Correction:
    facts = {"text": f"Text {item}.", "model": "negative", "who": "eva", "when": "2026-01-01T00:00:00Z", **more}
    return Correction(item=item, field=field, person=person, **facts)  # type: ignore[arg-type]  # a test's shorthand


def test_what_is_added_is_read_again(tmp_path: Path) -> None:
    """Every value, also null, lists and text that is no UTF-8."""
    file = CorrectionsFile(tmp_path / "c.jsonl")
    wanted = [said("1", "mixed", seed=7), said("2", None, withdrawn=True), said("ü", ["a", "b"], text="\udcff")]
    file.add(wanted[:1])
    file.add(wanted[1:])
    assert read_lines(file.path) == wanted
    assert json.loads(file.path.read_text("utf-8").splitlines()[0]) == {
        "item": "1",
        "text": "Text 1.",
        "field": "sentiment",
        "model": "negative",
        "person": "mixed",
        "who": "eva",
        "when": "2026-01-01T00:00:00Z",
        "sample": "random",
        "seed": 7,
    }


def test_no_file_is_no_correction(tmp_path: Path) -> None:
    """Unless it was named."""
    assert not Corrections(read_lines(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="no such corrections file"):
        Corrections(read_lines(tmp_path / "none.jsonl", must_exist=True))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"item": "1", "field": "sentiment", "model": null}', "no 'person'"),
        ('{"item": "1", "field": "f", "model": 1, "person": 2, "note": 3}', "'note' is no key"),
        ('{"item": "1", "field": 4, "model": 1, "person": 2}', "'field' must be text"),
        ('{"item": "1", "field": "f", "model": 1, "person": 2, "sample": "x"}', "'sample' must be one of random"),
        (
            '{"item": "1", "field": "f", "model": 1, "person": 2, "seed": "x"}',
            "'size' must be whole numbers",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, why: str) -> None:
    """With the file and the line."""
    path = tmp_path / "c.jsonl"
    path.write_text(said("1", "mixed").line() + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=why) as found:
        Corrections(read_lines(path))
    assert str(found.value).startswith(f"{path}:3: ")


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    """The reader leaves it out, the writer removes it, and a whole line without its end stays."""
    path = tmp_path / "c.jsonl"
    first, second = said("1", "mixed"), said("2", "positive")
    path.write_text(first.line() + second.line()[:40], encoding="utf-8")
    assert read_lines(path) == [first]
    CorrectionsFile(path).add([second])
    assert read_lines(path) == [first, second]
    path.write_text(first.line().rstrip("\n"), encoding="utf-8")
    CorrectionsFile(path).add([second])
    assert read_lines(path) == [first, second]


def test_a_killed_writer_loses_nothing_that_it_has_added(tmp_path: Path) -> None:
    """Each judgement that was reported as saved is there, and each line is whole."""
    program = (
        "import sys; from pathlib import Path; from mellea_cli.io.corrections import *\n"
        "file = CorrectionsFile(Path(sys.argv[1]))\n"
        "for n in range(100_000):\n"
        "    file.add([Correction(str(n), 'x' * 500, 'sentiment', 'negative', 'mixed')])\n"
        "    print(n, flush=True)\n"
    )
    path = tmp_path / "c.jsonl"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        saved = [int(writer.stdout.readline()) for _ in range(25)]
        writer.send_signal(signal.SIGKILL)
        saved += [int(line) for line in writer.stdout]
    found = [int(one.item) for one in read_lines(path)]
    assert found[: len(saved)] == saved
    assert len(found) - len(saved) in (0, 1)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """One clear error."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        CorrectionsFile(tmp_path / "folder").add([said("1", "mixed")])


def test_the_last_judgement_counts() -> None:
    """Of all people; who withdraws leaves those of the others."""
    lines = [said("1", "mixed"), said("1", "positive", who="ben"), said("2", "mixed"), said("2", None, withdrawn=True)]
    corrections = Corrections(lines)
    assert [one.person for one in corrections] == ["positive"]
    assert Corrections([*lines, said("1", "x", who="ben", withdrawn=True)]).row("1", "Text 1.")["sentiment"].person == (
        "mixed"
    )
    assert [set(people) for people in corrections.by_people()] == [{"eva", "ben"}]


def test_rows_are_found_by_their_text() -> None:
    """A row has its own judgement, else that of the same text; an edited text has none."""
    corrections = Corrections([said("1", "mixed", text="Late  again."), said("2", "positive", text="Late again.")])
    assert corrections.row("1", "Late again.")["sentiment"].person == "mixed"
    assert corrections.row(2, " Late\nagain.")["sentiment"].person == "positive"
    assert corrections.row("9", "Late again.")["sentiment"].person == "positive"
    assert corrections.row("1", "Early again.") == {}
    assert Corrections([said("1", "mixed", text="")]).row("2", "") == {}


def test_an_edited_cell_is_of_its_row_alone() -> None:
    """Another row with the same text has it only where rows have no ids, and may have changed their numbers."""
    corrections = Corrections(
        [said("1", "mixed", text="Late."), said("2", "positive", text="Late.", field="urgency", sample="edited")]
    )
    assert set(corrections.row("2", "Late.")) == {"urgency"}
    assert set(corrections.row("9", "Late.")) == {"sentiment"}
    assert set(corrections.row("9", "Late.", has_id=False)) == {"sentiment", "urgency"}


def test_the_random_order_is_nested() -> None:
    """A row keeps its place when others are added; which rows belong to the sample so far can be told."""
    texts = [(str(n), f"Text {n}.") for n in range(200)]
    order = sorted(texts, key=lambda row: sample_rank(3, *row))
    assert order != texts
    assert order != sorted(texts, key=lambda row: sample_rank(4, *row))
    judged = Corrections(said(item, "mixed", text=text, seed=3) for item, text in order[:20])
    expected = [row for row in texts if judged.expects(*row)]
    assert sorted(expected) == sorted(order[:20])
    assert all(judged.is_random(*row) for row in expected)
    assert not Corrections([said("1", "mixed", sample="doubtful")]).expects("1", "Text 1.")


def test_links_lead_to_one_corrections_file(tmp_path: Path) -> None:
    """As they do to one journal."""
    (tmp_path / "out.jsonl").write_text("")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "out.jsonl")
    assert corrections_path(tmp_path / "link.jsonl") == tmp_path / "out.jsonl.corrections.jsonl"


def _judged(text: str, label: str, model: str) -> list[Correction]:
    return [Correction(text, text, "sentiment", model, label, "eva")]


def test_teaching_rows_cover_labels_and_errors() -> None:
    """Each label once; the rest are errors, and of like ones only one comes first."""
    lines = [
        *_judged("The parcel came late but the driver was kind.", "mixed", "negative"),
        *_judged("The parcel came late but the driver was nice.", "mixed", "negative"),
        *_judged("The parcel came late but the driver was very kind.", "mixed", "negative"),
        *_judged("Great hotel, awful breakfast.", "mixed", "positive"),
        *_judged("Lovely.", "positive", "positive"),
        *_judged("Broken again.", "negative", "negative"),
    ]
    rows = reviewed_rows(Corrections(lines), ["sentiment"])
    chosen = teaching_rows(rows, "sentiment", 4)
    assert [row.values["sentiment"] for row in chosen] == ["mixed", "negative", "positive", "mixed"]
    assert {chosen[0].text[:10], chosen[3].text[:10]} == {"The parcel", "Great hote"}
    assert teaching_rows(rows, "sentiment", 4) == chosen
    assert all(row.wrong for row in chosen if row.values["sentiment"] == "mixed")


def test_nothing_to_teach() -> None:
    """Where the model was right, or not all fields are judged, or a text is too long."""
    right = Corrections(_judged("Fine.", "positive", "positive"))
    assert teaching_rows(reviewed_rows(right, ["sentiment"]), "sentiment") == []
    assert reviewed_rows(right, ["sentiment", "team"]) == []
    assert reviewed_rows(Corrections(_judged("x" * 900, "positive", "negative")), ["sentiment"]) == []
