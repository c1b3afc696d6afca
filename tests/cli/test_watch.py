"""`mellea watch`: exit 10 and one message when a condition holds beyond chance, also to an address."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mellea_cli.cli.watch import Condition, parse_condition
from mellea_cli.errors import UsageError
from rowfiles import Run, write_rows


def rows(negative: int, billing: int, count: int = 400) -> list[dict[str, Any]]:
    """Rows of which so many are negative, and so many are about billing."""
    return [
        {
            "id": f"{negative}-{number}",
            "text": f"text {number} of {negative}",
            "nps": 2 if number < negative else 9,
            "sentiment": "negative" if number < negative else "positive",
            "issues": {"main_complaint": "*the bill*", "positive_aspect": None, "urgency": "low"},
            "themes": ["Billing & fees"] if number < billing else ["Staff"] if number < 300 else ["none"],
        }
        for number in range(count)
    ]


@pytest.fixture
def weeks(tmp_path: Path) -> None:
    """Two weeks: negative rows went from 25 % to 38 %, billing from 5 % to 13 %."""
    write_rows(tmp_path / "old.jsonl", rows(100, 20))
    write_rows(tmp_path / "new.jsonl", rows(152, 52))


WATCH = ("watch", "old.jsonl", "new.jsonl")


@pytest.mark.usefixtures("weeks")
def test_a_condition_that_holds_is_said_once(mellea: Run) -> None:
    """With both shares, their intervals, the condition, and exit code 10."""
    done = mellea(*WATCH, "--when", "negative +5pp", "--when", "theme:Billing & fees x2")
    assert (done.returncode, done.stderr) == (10, "")
    assert done.stdout.startswith("**Feedback alert: new.jsonl compared with old.jsonl**\n")
    assert "- **negative**: 25 % (21 to 29) → 38 % (33 to 43), +13.0 points (" in done.stdout
    assert "- **Billing \\& fees (complaint)**: 5 % (3 to 8) → 13 % (10 to 17)" in done.stdout
    assert "the bill" not in done.stdout


@pytest.mark.usefixtures("weeks")
def test_a_condition_on_rows_counts_in_both_outputs(mellea: Run) -> None:
    """`watch` and `compare` look at the selected rows of either file only."""
    where = ("--where", "nps > 5")
    assert mellea(*WATCH, "--when", "negative +5pp", *where).returncode == 0
    told = json.loads(mellea("compare", *WATCH[1:], "--json", *where).stdout)
    assert (told["old"]["rows"], told["new"]["rows"]) == (300, 248)
    assert mellea(*WATCH, "--when", "negative +5pp", "--where", "nsp > 5").returncode == 2


@pytest.mark.usefixtures("weeks")
@pytest.mark.parametrize(
    "condition",
    ["negative +15pp", "positive +5pp", "theme:Billing & fees x3", "theme:Staff x2", "mixed +1pp", "nps +5"],
)
def test_what_does_not_hold_says_nothing(mellea: Run, condition: str) -> None:
    """Cron mails what is printed, so nothing is."""
    done = mellea(*WATCH, "--when", condition)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("weeks")
@pytest.mark.parametrize("condition", ["negative +13pp", "positive -5pp", "positive x0.9", "theme:* x2", "nps -10"])
def test_shares_and_scores_move_up_and_down(mellea: Run, condition: str) -> None:
    """Points, factors, all themes, and a score that its name tells."""
    assert mellea(*WATCH, "--when", condition).returncode == 10


@pytest.mark.usefixtures("weeks")
def test_a_heading_is_watched_as_a_theme_is(mellea: Run, tmp_path: Path) -> None:
    """Its rows count once; it is known also where no row has a theme of it."""
    theme = '[[theme]]\nname = "{}"\ndefinition = "{}."\nkind = "complaint"\nparent = "{}"\n'
    made = theme.format("Billing & fees", "Costs", "Money") + theme.format("Parking", "Cars", "Place")
    (tmp_path / "new.jsonl.toml").write_text(made)
    done = mellea(*WATCH, "--when", "theme:Money x2")
    assert done.returncode == 10
    assert "- **Money (complaint)**: 5 % (3 to 8) → 13 % (10 to 17)" in done.stdout
    assert mellea(*WATCH, "--when", "theme:Place x2").returncode == 0
    assert "did you mean 'theme:Money'?" in mellea(*WATCH, "--when", "theme:Mony x2").stderr


def test_own_labels_and_values_are_watched(mellea: Run, tmp_path: Path) -> None:
    """By name and as sentiment=NAME; a name that no row has is refused with the nearest one."""
    for name, bad in (("old.jsonl", 100), ("new.jsonl", 152)):
        labelled = [
            {**row, "sentiment": "schlecht" if row["sentiment"] == "negative" else "gut"} for row in rows(bad, 0)
        ]
        write_rows(tmp_path / name, labelled)
    for condition in ("schlecht +5pp", "sentiment=schlecht +5pp"):
        assert mellea(*WATCH, "--when", condition).returncode == 10
    refused = mellea(*WATCH, "--when", "schlect +5pp")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "did you mean 'schlecht'?" in refused.stderr


def test_a_move_within_chance_does_not_hold(mellea: Run, tmp_path: Path) -> None:
    """Twice the share of very few rows is nothing yet."""
    write_rows(tmp_path / "old.jsonl", rows(5, 2, count=40))
    write_rows(tmp_path / "new.jsonl", rows(10, 6, count=40))
    done = mellea(*WATCH, "--when", "negative +5pp", "--when", "theme:Billing & fees x2")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("negative", 9, "negative +5pp"),
        ("negative 5pp", 10, "negative +5pp"),
        ("negative +5%", 10, "+5pp"),
        ("  negativ +5pp", 3, "'negative'"),
        ("theme: +5pp", 1, "theme:Billing x2"),
        ("nps x2", 5, "nps -5"),
        ("high +0pp", 6, "negative +5pp"),
        ("theme:Late delivery x1", 21, "theme:Billing x2"),
    ],
)
def test_a_wrong_condition_is_refused_with_its_place(text: str, place: int, hint: str) -> None:
    """The character where it goes wrong, and an example."""
    with pytest.raises(UsageError, match=f"character {place}: ") as error:
        parse_condition(text)
    assert hint in error.value.hint


def test_conditions_are_read() -> None:
    """Names with spaces, decimal commas and both signs."""
    assert parse_condition("theme:App crashes x1,5") == Condition(
        "theme:App crashes x1,5", "App crashes", "theme", factor=1.5
    )
    assert parse_condition("Negative -2.5pp").points == -2.5
    assert parse_condition("team=billing desk +5 ".strip()).subject == "team=billing desk"


@pytest.mark.usefixtures("weeks")
def test_a_name_that_no_output_has_is_refused(mellea: Run) -> None:
    """With the nearest one, before anything is sent."""
    done = mellea(*WATCH, "--when", "theme:Biling & fees x2")
    assert done.returncode == 2
    assert "character 7: no theme 'Biling & fees'" in done.stderr
    assert "did you mean 'theme:Billing & fees'?" in done.stderr
    for wrong in ("Billing & fees x2", "theme=Billing & fees x2"):
        assert "did you mean 'theme:Billing & fees'?" in mellea(*WATCH, "--when", wrong).stderr
    refused = mellea(*WATCH, "--when", "team=x +5pp")
    assert refused.returncode == 2
    assert (
        "they have: negative, mixed, positive, high, medium, low, theme:Billing & fees, theme:Staff" in refused.stderr
    )
    assert "--score csat COLUMN" in mellea(*WATCH, "--when", "csat -5").stderr


@contextmanager
def hook(status: int = 200) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server on this machine that takes messages: its address, and what it got."""
    taken: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/services/SECRET", taken
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("weeks")
def test_the_message_is_posted_as_slack_reads_it(mellea: Run) -> None:
    """JSON with one text in Slack's own markup; nothing is posted when nothing holds."""
    with hook() as (url, taken):
        assert mellea(*WATCH, "--when", "negative +50pp", "--notify", url).returncode == 0
        assert taken == []
        assert mellea(*WATCH, "--when", "theme:Billing & fees x2", "--notify", url, "--local-only").returncode == 10
    ((kind, body),) = taken
    text = json.loads(body)["text"]
    assert kind == "application/json"
    assert text.startswith("*Feedback alert: new.jsonl compared with old.jsonl*\n")
    assert "*Billing &amp; fees (complaint)*: 5 % (3 to 8)" in text


@pytest.mark.usefixtures("weeks")
def test_a_refused_message_is_an_error_without_the_address(mellea: Run) -> None:
    """The message is on stdout, and the address, which is a secret, is nowhere."""
    with hook(500) as (url, _):
        done = mellea(*WATCH, "--when", "negative +5pp", "--notify", url)
    assert done.returncode == 4
    assert done.stdout.startswith("**Feedback alert")
    assert "127.0.0.1 refused the message: status 500" in done.stderr
    assert "SECRET" not in done.stderr
    done = mellea(*WATCH, "--when", "negative +5pp", "--notify", url)
    assert (done.returncode, "cannot connect" in done.stderr) == (4, True)


@pytest.mark.usefixtures("weeks")
def test_nothing_leaves_the_machine_with_local_only(mellea: Run) -> None:
    """Another host is refused before the files are read, and so is what is no address."""
    done = mellea(*WATCH, "--when", "negative +5pp", "--notify", "https://hooks.example.com/x", "--local-only")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--local-only allows nothing else" in done.stderr
    assert "is no address" in mellea(*WATCH, "--when", "negative +5pp", "--notify", "team-channel").stderr


@pytest.mark.usefixtures("weeks")
def test_json_tells_what_was_checked_and_what_holds(mellea: Run) -> None:
    """One object, also when nothing holds; the exit code is the same."""
    done = mellea("watch", "old.jsonl", "new.jsonl", "--when", "negative +5pp", "--when", "high +5pp", "--json")
    assert done.returncode == 10
    told = json.loads(done.stdout)
    assert told["checked"] == ["negative +5pp", "high +5pp"]
    assert [(one["condition"], one["what"]) for one in told["alerts"]] == [("negative +5pp", "negative")]
    done = mellea("watch", "old.jsonl", "old.jsonl", "--when", "negative +5pp", "--json")
    assert (done.returncode, json.loads(done.stdout)["alerts"], done.stderr) == (0, [], "")


def test_the_help_shows_every_flag(mellea: Run) -> None:
    """Conditions and the address among them."""
    shown = mellea("watch", "--help").stdout
    assert all(flag in shown for flag in ("--when", "--notify", "--score", "--themes-file", "--json", "--local-only"))
