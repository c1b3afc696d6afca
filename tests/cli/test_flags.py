"""Flags: one field each, durations, deadlines, error limits, prices, and the log level."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer

import mellea_cli
from mellea_cli.cli.app import app
from mellea_cli.cli.flags import deadline_s, error_limit, own_prices, seconds, set_log_level
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.errors import UsageError
from mellea_cli.run.plan import ErrorLimit, Prices
from rowfiles import Run

NOW = datetime(2026, 5, 4, 22, 0).astimezone()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        (600.0, 600),
        ("90s", 90),
        ("0.5", 0.5),
        ("15m", 900),
        ("6h", 21_600),
        ("1h30m", 5_400),
        ("2D", 172_800),
    ],
)
def test_durations(text: str | float, expected: float) -> None:
    """Seconds, minutes, hours, days, alone or together."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 x", "1s1h", "h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The hint shows how to write one."""
    with pytest.raises(UsageError) as caught:
        seconds(text)
    assert "6h" in caught.value.hint


@pytest.mark.parametrize(("text", "expected"), [("6h", 21_600), ("23:30", 5_400), ("06:30", 30_600), ("22:00", 86_400)])
def test_a_deadline_is_a_duration_or_the_next_such_time(text: str, expected: float) -> None:
    """A time that has passed today is tomorrow's."""
    assert deadline_s(text, NOW) == expected


@pytest.mark.parametrize("text", ["25:00", "12:60", "0", "0s", "noon"])
def test_what_is_no_deadline_is_refused(text: str) -> None:
    """No such time, or no time at all."""
    with pytest.raises(UsageError):
        deadline_s(text, NOW)


def test_error_limits() -> None:
    """A number or a share."""
    assert error_limit("20") == ErrorLimit(count=20)
    assert error_limit("5%") == ErrorLimit(share=0.05)
    for text in ("0", "-1", "x", "120%", "0%", "1.5"):
        with pytest.raises(UsageError):
            error_limit(text)


def test_prices() -> None:
    """Of prompts and answers, and of cached prompts where they differ; listed ones count only without them."""
    assert own_prices("0.15,0.60") == Prices(0.15, 0.6)
    assert own_prices("1, 2, 0.5") == Prices(1.0, 2.0, 0.5)
    for text in ("1", "1,2,3,4", "a,b", "-1,2", "nan,1", "1,inf", ""):
        with pytest.raises(UsageError, match="--price"):
            own_prices(text)
    listed = Prices(3.0, 4.0, currency="$")
    assert RunOptions(price="1,2").caps(prices=listed).prices == Prices(1.0, 2.0)
    assert RunOptions().caps(prices=listed).prices == listed


def test_nothing_set_is_no_limit() -> None:
    """By default a run goes on as long as it takes."""
    chosen = RunOptions().caps()
    assert (chosen.deadline_s, chosen.tokens, chosen.cost, chosen.errors) == (None, None, None, ErrorLimit())


def test_a_limit_that_allows_nothing_is_refused() -> None:
    """Zero and less are no budgets: it is said before anything is sent."""
    for changes in ({"max_cost": 0.0}, {"max_cost": -1.0}, {"max_cost": float("nan")}):
        with pytest.raises(UsageError, match="--max-cost"):
            RunOptions(price="1,1", **changes).caps()
    for tokens in (0, -5):
        with pytest.raises(UsageError, match="--max-tokens-total"):
            RunOptions(max_tokens_total=tokens).caps()


def flags_of(command: str) -> set[str]:
    group: Any = typer.main.get_command(app)
    return {parameter.name for parameter in group.commands[command].params} - {"help"}


def test_each_field_is_a_flag_of_the_commands_that_it_names() -> None:
    """Every flag of the batch commands is a field; the queue and Ray are for summarise, one is for a watched folder."""
    fields = {field.name for field in dataclasses.fields(RunOptions)}
    summarise, themes, watched = flags_of("summarise"), flags_of("themes"), flags_of("watch-folder")
    assert summarise | themes | watched == fields
    assert summarise - themes >= {"offload", "export_batch", "engine", "pipeline"}
    assert themes - summarise == {"themes_file", "theme_field", "max_themes", "find_only", "propose", "accept"}


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The root of the program's loggers, restored at the end."""
    logger = logging.getLogger("mellea_cli")
    before = logger.level, logger.propagate, logger.handlers[:]
    yield logger
    logger.setLevel(before[0])
    logger.propagate, logger.handlers[:] = before[1], before[2]


def test_the_log_level_puts_the_log_on_stderr(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """One tree of loggers, from the level on; every module logs below it."""
    child = logger.getChild("engine.client")
    set_log_level("info")
    child.info("shown")
    child.debug("not shown")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith(" INFO mellea_cli.engine.client: shown\n")
    modules = [path for path in Path(mellea_cli.__file__).parent.rglob("*.py") if "getLogger(" in path.read_text()]
    assert modules
    for path in modules:
        named = re.findall(r"getLogger\((.*?)\)", path.read_text())
        assert set(named) <= {"__name__", '"mellea_cli"', '"ray"'}, path


def test_the_log_level_is_one_of_four(mellea: Run, feedback: Path) -> None:
    """A run that logs draws no panels, as the lines would tear them; other words are refused."""
    assert mellea("summarise", str(feedback), "-n", "1", "-b", "scripted", "--log-level", "debug").returncode == 0
    assert mellea("summarise", str(feedback), "--log-level", "loud").returncode == 2
