"""`--confidence` with the default pipeline and own fields, as its users run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loopback import ModelServer, default_reply, find_mark
from mellea_cli.io.corrections import Correction, CorrectionsFile, corrections_path
from rowfiles import Run, read_rows, write_rows

SCRIPTED = ("--backend", "scripted")
ALMOST = {'":': -3.0, "null": -3.0, '":"': -2.5, "true": -1.2, "false": -1.2, "delivery": -1.5, "billing": -1.5}
TEAM = ("--category", "team=billing,delivery")


def likely(_: str) -> dict[str, float]:
    """What else might stand in the place of each token."""
    return ALMOST


def command(server: ModelServer, *more: str) -> tuple[str, ...]:
    url = ("--base-url", server.openai_url, "-m", "test-model")
    return ("summarise", "in.jsonl", "-o", "out.jsonl", "-b", "openai", *url, *more)


def rows_of(path: Path, count: int) -> None:
    write_rows(path / "in.jsonl", [{"id": number, "text": f"The door of MARK-{number}x."} for number in range(count)])


@pytest.mark.parametrize(("pipeline", "calls"), [("single", 1), ("steps", 3)])
def test_each_label_has_a_column(mellea: Run, tmp_path: Path, pipeline: str, calls: int) -> None:
    """The sentiment's column is `confidence`; that of a category or a bool has the field's name before it."""
    rows_of(tmp_path, 2)
    with ModelServer(logprobs=likely, record=True) as server:
        fields = (*TEAM, "--field", "refund(bool): asks for money", "--field", "product: the product")
        done = mellea(*command(server, "-p", pipeline, "--confidence", *fields))
        assert done.returncode == 0, done.stderr
        # One question of the program's own; the own fields of `steps` have a call of their own.
        assert server.state.requests == 1 + 2 * (calls + (pipeline == "steps"))
        asked = [(body["logprobs"], body["top_logprobs"]) for body in server.state.bodies if "logprobs" in body]
        assert set(asked) == {(True, 20)}
        # Nothing can be read off a summary, so its log-probabilities are not asked for.
        assert len(asked) == 1 + 2 * (1 if pipeline == "single" else 3)
    row = read_rows(tmp_path / "out.jsonl")[0]
    added = ["refund", "team", "product", "confidence", "refund_confidence", "team_confidence"]
    assert sorted(list(row)[5:]) == sorted(added)
    assert all(0 < row[name] < 1 for name in row if name.endswith("confidence"))


def test_ollama_gives_them_too(mellea: Run, tmp_path: Path) -> None:
    """The same answer in Ollama's form has the same confidence."""
    rows_of(tmp_path, 1)
    with ModelServer(logprobs=likely) as server:
        assert mellea(*command(server, "--confidence", *TEAM)).returncode == 0
        flags = ("-b", "ollama", "--base-url", server.url, "-m", "granite4.1:3b", "--confidence", *TEAM)
        done = mellea("summarise", "in.jsonl", "-o", "other.jsonl", *flags)
        assert done.returncode == 0, done.stderr
    assert read_rows(tmp_path / "out.jsonl") == read_rows(tmp_path / "other.jsonl")


def test_a_server_without_log_probabilities_is_named_before_any_row_is_sent(mellea: Run, tmp_path: Path) -> None:
    """One line says what is missing and what to do; no text has left."""
    rows_of(tmp_path, 3)
    with ModelServer(record=True) as server:
        done = mellea(*command(server, "--confidence"))
        assert done.returncode == 2
        assert "gives no log-probabilities for test-model, and --confidence needs them" in done.stderr
        assert "--second-reading 0.1" in done.stderr
        assert "MARK-" not in json.dumps(server.state.bodies)


def test_an_answered_row_is_asked_again_only_on_a_clear_word(mellea: Run, tmp_path: Path) -> None:
    """The number of calls is told first; without the flag the answers of both runs are found again."""
    rows_of(tmp_path, 3)
    with ModelServer(logprobs=likely) as server:
        assert mellea(*command(server)).returncode == 0
        plain = read_rows(tmp_path / "out.jsonl")
        refused = mellea(*command(server, "--confidence"))
        assert refused.returncode == 2
        assert "3 rows are asked again, 3 calls" in refused.stderr
        assert server.state.requests == 3
        assert mellea(*command(server, "--confidence", "--yes")).returncode == 0
        assert server.state.requests == 3 + 1 + 3
        assert all(row["confidence"] for row in read_rows(tmp_path / "out.jsonl"))
        # Nothing more is to be asked, with or without it.
        for flags in (("--confidence",), ()):
            assert mellea(*command(server, *flags)).returncode == 0
        assert server.state.requests == 7
    assert read_rows(tmp_path / "out.jsonl") == plain


def test_a_field_that_is_added_is_asked_with_its_confidence_alone(mellea: Run, tmp_path: Path) -> None:
    """The rows keep the confidence of the sentiment that they have."""
    rows_of(tmp_path, 2)
    with ModelServer(logprobs=likely, record=True) as server:
        assert mellea(*command(server, "--confidence")).returncode == 0
        before = read_rows(tmp_path / "out.jsonl")
        server.state.clear()
        assert mellea(*command(server, "--confidence", *TEAM)).returncode == 0
        asked = [body["response_format"]["json_schema"]["schema"]["properties"] for body in server.state.bodies[1:]]
        assert [list(one) for one in asked] == [["team"]] * 2
    after = read_rows(tmp_path / "out.jsonl")
    assert [{name: row[name] for name in before[0]} for row in after] == before


@pytest.mark.parametrize("flags", [("--offload",), ("--engine", "ray"), ("--rows-per-call", "3")])
def test_what_gives_no_log_probabilities_is_refused(mellea: Run, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A batch queue, Ray and groups of rows are refused before anything is opened."""
    rows_of(tmp_path, 1)
    done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", "--confidence", *flags)
    assert done.returncode == 2
    assert "--confidence reads log-probabilities" in done.stderr


def test_a_pipeline_without_choices_has_no_confidence(mellea: Run, tmp_path: Path) -> None:
    """One line says why, and what to add."""
    rows_of(tmp_path, 1)
    (tmp_path / "own.toml").write_text('[fields.product]\ndescription = "the product"\n', encoding="utf-8")
    done = mellea("run", "own.toml", "in.jsonl", *SCRIPTED, "--confidence")
    assert done.returncode == 2
    assert "has no field with choices" in done.stderr
    assert "--category" in done.stderr


def test_a_column_of_the_input_is_not_replaced(mellea: Run, tmp_path: Path) -> None:
    """An input that has the column is refused with what to do."""
    write_rows(tmp_path / "in.jsonl", [{"text": "Good.", "confidence": "mine"}])
    done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", *SCRIPTED, "--confidence")
    assert done.returncode == 2
    assert "omit --confidence" in done.stderr


def test_report_and_review_read_it(mellea: Run, tmp_path: Path) -> None:
    """Number columns of the report; the least sure field makes a row doubtful, and nobody judges the columns."""
    rows_of(tmp_path, 12)
    with ModelServer(logprobs=likely) as server:
        assert mellea(*command(server, "--confidence", *TEAM)).returncode == 0
    figures = json.loads(mellea("report", "out.jsonl", "--format", "json").stdout)
    found = {one["name"]: one["type"] for one in figures["fields"]}
    assert found == {"team": "category", "confidence": "number", "team_confidence": "number"}
    least = max(row["team_confidence"] for row in read_rows(tmp_path / "out.jsonl"))
    flags = ("--random", "1", "--review-below", str(least + 0.001), "--html", "review.html")
    done = mellea("review", "out.jsonl", *flags)
    assert done.returncode == 0, done.stderr
    assert "12 rows to judge" in done.stderr
    page = (tmp_path / "review.html").read_text(encoding="utf-8")
    assert '"team"' in page
    assert '"team_confidence"' not in page


def test_evaluate_says_whether_the_surest_are_right(mellea: Run, tmp_path: Path) -> None:
    """The surest four of five rows and the rest have a share of their own, on the screen and in JSON."""
    rows = [
        {"id": number, "text": f"T{number}.", "team": "shop", "team_confidence": number / 10} for number in range(5)
    ]
    write_rows(tmp_path / "in.jsonl", [{"id": row["id"], "text": row["text"]} for row in rows])
    with ModelServer(logprobs=likely) as server:
        assert mellea(*command(server, "--confidence", "--category", "team=shop,other")).returncode == 0
    # The journal knows the fields; the values are those of this test.
    write_rows(tmp_path / "out.jsonl", rows)
    gold = [{"id": number, "team": "other" if number == 0 else "shop"} for number in range(5)]
    write_rows(tmp_path / "gold.jsonl", gold)
    done = mellea("evaluate", "out.jsonl", "--gold", "gold.jsonl")
    assert done.returncode == 0, done.stderr
    assert "surest 80 %" in done.stdout
    found = json.loads(mellea("evaluate", "out.jsonl", "--gold", "gold.jsonl", "--json").stdout)
    (team,) = (one for one in found["fields"] if one["name"] == "team")
    assert [(team[name]["number"], team[name]["of"]) for name in ("surest", "unsure")] == [(4, 4), (0, 1)]


def test_a_review_calibrates_the_confidence(mellea: Run, tmp_path: Path) -> None:
    """What reads the output shows calibrated values; doubtful rows count for nothing, and the file stays as it is."""
    rows_of(tmp_path, 60)
    with ModelServer(logprobs=likely) as server:
        assert mellea(*command(server, "--confidence", *TEAM)).returncode == 0
    # The journal knows the fields; the values are those of this test.
    before = [
        {**row, "team": "billing", "team_confidence": 0.9 + number / 1_000}
        for number, row in enumerate(read_rows(tmp_path / "out.jsonl"))
    ]
    raw = write_rows(tmp_path / "out.jsonl", before).read_bytes()

    def judge(rows: list[dict[str, Any]], sample: str) -> None:
        """Say that three of four are wrong."""
        said = ["delivery" if number % 4 else "billing" for number, _ in enumerate(rows)]
        judgements = [
            Correction(str(row["id"]), row["text"], "team", row["team"], team, "eva", sample=sample, seed=1)  # type: ignore[arg-type]
            for row, team in zip(rows, said, strict=True)
        ]
        CorrectionsFile(corrections_path(tmp_path / "out.jsonl")).add(judgements)

    def shown(*more: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(mellea("show", "out.jsonl", "--json", "all", *more).stdout)
        return rows

    judge(before[:40], "doubtful")
    assert [row["team_confidence"] for row in shown()] == [row["team_confidence"] for row in before]
    judge(before[20:], "random")
    found = shown()
    assert all(row["team_confidence"] < 0.7 for row in found)
    assert [row["confidence"] for row in found] == [row["confidence"] for row in before]
    done = mellea("review", "out.jsonl", "--random", "1", "--who", "max", "--html", "review.html")
    assert "team_confidence is calibrated by the review" in done.stderr
    assert "51 rows to judge" in done.stderr
    report = json.loads(mellea("report", "out.jsonl", "--json").stdout)
    assert "team_confidence is calibrated by the review" in report["notes"]
    assert shown("--where", "team_confidence > 0.7") == []
    # An evaluation is about what the model says.
    (team,) = json.loads(mellea("evaluate", "out.jsonl", "--corrections", "--json").stdout)["fields"]
    assert team["calibration"]["before"] > 0.4
    assert team["calibration"]["after"] < 0.3
    assert "calibration error 0." in mellea("evaluate", "out.jsonl", "--corrections").stdout
    assert (tmp_path / "out.jsonl").read_bytes() == raw
    corrections_path(tmp_path / "out.jsonl").unlink()
    assert shown() == before


def is_second(schema: Mapping[str, Any] | None) -> bool:
    """Whether labels are asked a second time, which is without a summary."""
    return schema is not None and "summary" not in schema["properties"]


def test_labels_are_read_twice_where_there_are_no_log_probabilities(mellea: Run, tmp_path: Path) -> None:
    """A share of the rows gets one more call; where the readings differ the row is doubtful, and the rest has none."""
    rows_of(tmp_path, 60)

    def answer(prompt: str, schema: Mapping[str, Any] | None) -> str:
        if not is_second(schema):
            return default_reply(prompt, schema)
        odd = int(find_mark(prompt).removeprefix("MARK-").removesuffix("x")) % 2
        return json.dumps({"sentiment": "mixed", "team": "delivery" if odd else "billing"})

    with ModelServer(reply=answer, record=True) as server:
        twice = ("--second-reading", "0.3", *TEAM)
        asked = mellea(*command(server, *twice, "--dry-run"))
        assert "fields     built-in fields, team, confidence, team_confidence" in asked.stdout
        done = mellea(*command(server, *twice))
        assert done.returncode == 0, done.stderr
        assert "the labels of 30% of the rows are asked twice, about 18 more calls for 60" in done.stderr
        again = [body for body in server.state.bodies if "Somebody wrote the text" in json.dumps(body)]
        assert 10 < len(again) < 30
        assert server.state.requests == 60 + len(again)
        assert f"{60 + len(again)} in all" in asked.stdout
        schema = again[0]["response_format"]["json_schema"]["schema"]["properties"]
        assert {name: part["enum"] for name, part in schema.items()} == {
            "sentiment": ["mixed", "negative", "positive"],
            "team": ["delivery", "billing"],
        }
        assert not any("logprobs" in body for body in server.state.bodies)
        rows = read_rows(tmp_path / "out.jsonl")
        known = [row for row in rows if row["confidence"] is not None]
        assert len(known) == len(again)
        agree = [row["team"] == ("delivery" if row["id"] % 2 else "billing") for row in known]
        assert [row["team_confidence"] for row in known] == [1.0 if same else 0.5 for same in agree]
        same = sum(agree)
        assert 0 < same < len(known)
        assert f"{same} of {len(known)} rows" in done.stderr
        # The same command finds everything again, and so does a run without the flag.
        before = server.state.requests
        for flags in (twice, TEAM):
            assert mellea(*command(server, *flags)).returncode == 0
        assert server.state.requests == before
        assert mellea(*command(server, *twice)).returncode == 0
    doubtful = [row for row in known if row["team_confidence"] == 0.5 or row["confidence"] == 0.5]
    page = mellea("review", "out.jsonl", "--random", "0", "--html", "review.html")
    assert f"{len(doubtful)} rows to judge" in page.stderr


def test_a_bad_second_reading_fails_no_row(mellea: Run, tmp_path: Path) -> None:
    """The row has its answers and no confidence."""
    rows_of(tmp_path, 2)
    with ModelServer(reply=lambda *asked: "no JSON" if is_second(asked[1]) else default_reply(*asked)) as server:
        done = mellea(*command(server, "--second-reading", "1"))
        assert done.returncode == 0, done.stderr
    assert [(row["sentiment"] is not None, row["confidence"]) for row in read_rows(tmp_path / "out.jsonl")] == [
        (True, None),
        (True, None),
    ]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--rows-per-call", "3"), "works with single rows in this process only"),
        (("--engine", "ray"), "works with single rows in this process only"),
        (("-p", "fast"), "has a confidence without --second-reading"),
    ],
)
def test_a_second_reading_that_cannot_be_is_refused(
    mellea: Run, tmp_path: Path, flags: tuple[str, ...], why: str
) -> None:
    """Before anything is opened."""
    rows_of(tmp_path, 1)
    done = mellea("summarise", "in.jsonl", "-o", "out.jsonl", "--second-reading", "0.5", *flags)
    assert done.returncode == 2
    assert why in done.stderr


def test_another_share_is_another_question(mellea: Run, tmp_path: Path) -> None:
    """The rows are asked again after a question."""
    rows_of(tmp_path, 4)
    with ModelServer() as server:
        assert mellea(*command(server, "--second-reading", "1")).returncode == 0
        refused = mellea(*command(server, "--second-reading", "0.5"))
        assert refused.returncode == 2
        assert "second-reading 0.5 instead of 1.0: 4 rows are asked again" in refused.stderr
