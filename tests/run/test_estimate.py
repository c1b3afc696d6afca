"""Estimates: intervals that hold, samples that are kept, and prices."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_io import items, plan

from mellea_cli.errors import UsageError
from mellea_cli.events import ItemFinished, ItemStarted
from mellea_cli.io.journal import MemoryAnswers
from mellea_cli.items import Item
from mellea_cli.messages import Usage, estimate_tokens, estimate_tokens_of
from mellea_cli.report.results import SAMPLE
from mellea_cli.run.answer_cache import Forecast, forecast
from mellea_cli.run.estimate import (
    Candidates,
    Interval,
    Sample,
    SampledRow,
    Sampler,
    from_sample,
    kept_sample,
    known_speed,
    listed_prices,
    price_of_run,
    remember_speed,
    sample_facts,
    shared_prompts,
    without_sample,
)
from mellea_cli.run.plan import Prices

PLAN = plan(concurrency=4)
PRICES = Prices(0.15, 0.6, currency="$")
Serves = Callable[[random.Random, int], float]


def even(draw: random.Random, _: int) -> float:
    """A second, and up to half of one more or less."""
    return draw.uniform(0.5, 1.5)


def by_length(draw: random.Random, length: int) -> float:
    """Long texts take longer."""
    return length / 200 * draw.uniform(0.8, 1.2)


def row(draw: random.Random, serves: Serves) -> SampledRow:
    length = draw.randint(20, 600)
    return SampledRow(length, 600 + length // 4, 0, draw.randint(40, 60), serves(draw, length))


def took_s(rows: list[SampledRow], places: int) -> float:
    """How long these rows take when so many are worked on at once, each place taking its own next one."""
    free = [0.0] * places
    for one in rows:
        heapq.heapreplace(free, free[0] + one.latency_s)
    return max(free)


@pytest.mark.parametrize("serves", [even, by_length])
def test_the_true_time_and_cost_lie_in_the_interval(serves: Serves) -> None:
    """In 200 simulated runs of 300 rows, estimated by 20 others each: 9 of 10 times; the cost is within 5 %."""
    draw, within, cost_within = random.Random(5), 0, 0  # noqa: S311 - no secret
    for _ in range(200):
        sample = Sample(tuple(row(draw, serves) for _ in range(20)), 4)
        rest = [row(draw, serves) for _ in range(300)]
        found = Forecast(asked=300, characters=sum(one.characters for one in rest))
        estimate = from_sample(sample, found, PLAN, PRICES)
        true_cost = sum(PRICES.of(Usage(one.prompt, one.completion)) for one in rest)
        assert estimate.seconds is not None
        assert estimate.cost is not None
        within += estimate.seconds.low <= took_s(rest, 4) <= estimate.seconds.high
        cost_within += estimate.cost.low <= true_cost <= estimate.cost.high
        assert abs(true_cost / estimate.cost.likely - 1) < 0.05
    assert within >= 180
    assert cost_within >= 180


def test_a_slope_takes_a_degree_of_freedom() -> None:
    """Five rows with a line through them leave three: 3.18 standard deviations on each side, not 2.78."""
    answers = (12, 19, 33, 38, 53)
    rows = tuple(SampledRow(10 * n, 0, 0, answer, 1.0) for n, answer in enumerate(answers, 1))
    found = from_sample(Sample(rows, 1), Forecast(asked=100, characters=3_000), PLAN, None).completion_tokens
    assert found is not None
    left = [answer - (31 + 10.1 * (n - 3)) for n, answer in enumerate(answers, 1)]
    spread = math.sqrt(sum(one * one for one in left) / 3)
    half = 3.18 * 100 * spread * math.sqrt(1 / 5 + 1 / 100)
    assert found.high - found.likely == pytest.approx(half, rel=0.05)


def test_limits_per_minute_take_their_time() -> None:
    """60 requests a minute for 300 rows last five minutes, however fast the server is."""
    draw = random.Random(1)  # noqa: S311 - no secret
    sample = Sample(tuple(row(draw, even) for _ in range(20)), 4)
    found = Forecast(asked=300, characters=90_000)
    slow = from_sample(sample, found, replace(PLAN, rpm=60), None).seconds
    by_tokens = from_sample(sample, found, replace(PLAN, tpm=1000), None)
    assert slow is not None
    assert slow.low == slow.likely == 300
    assert by_tokens.seconds is not None
    assert by_tokens.completion_tokens is not None
    tokens = by_tokens.prompt_tokens.likely + by_tokens.completion_tokens.likely
    assert by_tokens.seconds.likely == pytest.approx(60 * tokens / 1000)
    assert by_tokens.cost is None


def test_a_search_for_the_best_number_has_wide_bounds() -> None:
    """Between the speed of the sample and that of the highest number."""
    draw = random.Random(1)  # noqa: S311 - no secret
    sample = Sample(tuple(row(draw, even) for _ in range(20)), 4)
    found = Forecast(asked=800, characters=200_000)
    fixed = from_sample(sample, found, PLAN, None)
    searching = from_sample(sample, found, replace(PLAN, concurrency=64, start=4), None)
    assert searching.searches
    assert not fixed.searches
    assert fixed.seconds is not None
    assert searching.seconds is not None
    assert searching.seconds.low < fixed.seconds.low / 8
    assert searching.seconds.high == pytest.approx(fixed.seconds.high)


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.just(0.0) | st.floats(1e-9, 100)), min_size=1, max_size=20),
    st.integers(1, 10**6),
)
def test_any_sample_has_an_interval(pairs: list[tuple[int, float]], rows: int) -> None:
    """One row, rows without text, rows that took no time: bounds around the likely value, and nothing below zero."""
    sample = Sample(tuple(SampledRow(length, length, 0, 10, took) for length, took in pairs), 4)
    estimate = from_sample(sample, Forecast(asked=rows, characters=100 * rows), PLAN, PRICES)
    for one in (estimate.prompt_tokens, estimate.completion_tokens, estimate.seconds, estimate.cost):
        assert one is not None
        assert 0 <= one.low <= one.likely <= one.high


def timed(sampler: Sampler, rows: int, *, first_s: float = 1.0, ok: bool = True) -> None:
    for place in range(rows):
        sampler(ItemStarted(place, str(place), "x" * place))
        took = first_s if place == 0 else 1.0
        sampler(ItemFinished(place, str(place), ok, "", "", Usage(10, 5), took, False))


def test_the_load_of_a_model_is_no_part_of_a_row() -> None:
    """The first row of an embedded model counts as its start alone."""
    sampler = Sampler(10, 4, first_alone=True)
    timed(sampler, 10, first_s=31.0)
    sample = sampler.sample("p")
    assert sample is not None
    assert (len(sample.rows), sample.startup_s, sample.concurrency) == (6, 31.0, 4)
    estimate = from_sample(sample, Forecast(asked=400, characters=400), replace(PLAN, backend="local"), None)
    assert estimate.seconds is not None
    assert 125 < estimate.seconds.likely < 135


def test_a_row_is_timed_in_the_company_of_others() -> None:
    """The last rows are answered faster, because fewer and fewer others are worked on."""
    sampler = Sampler(12, 4, first_alone=True)
    for place in range(12):
        sampler(ItemStarted(place, str(place), "text"))
        took = 30.0 if place == 0 else 2.0 if place < 9 else 1.0
        sampler(ItemFinished(place, str(place), True, "", "", Usage(10, 5), took, False))
    sample = sampler.sample("p")
    assert sample is not None
    assert [row.latency_s for row in sample.rows] == [2.0] * 8


def test_a_long_run_keeps_few_rows() -> None:
    """Evenly spread over it."""
    sampler = Sampler(None, 4, first_alone=False)
    timed(sampler, 1000)
    sample = sampler.sample("p")
    assert sample is not None
    assert 20 <= len(sample.rows) < 40
    assert max(one.characters for one in sample.rows) > 900


def test_failures_alone_are_no_sample() -> None:
    """Nothing follows from a server that answers nothing; a reused answer took no time."""
    sampler = Sampler(10, 4, first_alone=False)
    timed(sampler, 10, ok=False)
    assert sampler.sample("p") is None
    sampler = Sampler(10, 4, first_alone=False)
    sampler(ItemStarted(0, "0", "text"))
    sampler(ItemFinished(0, "0", True, "", "", Usage(), 0.0, True))
    assert sampler.sample("p") is None


@pytest.mark.parametrize(("rows", "number"), [(3, 3), (5, 5), (20, 5), (60, 12), (100, 20), (5000, 20)])
def test_the_size_of_a_sample(rows: int, number: int) -> None:
    """Five to twenty, all of fewer; short and long texts are in it."""
    candidates = Candidates()
    for place in range(rows):
        candidates.offer(Item(place, place, "x" * (place + 1)))
    chosen = candidates.choose()
    assert len({item.position for item in chosen}) == len(chosen) == number
    if rows >= 100:
        lengths = sorted(len(item.text) for item in chosen)
        assert lengths[0] < rows / 10
        assert lengths[-1] > 9 * rows / 10


def test_only_rows_that_would_be_asked_are_candidates() -> None:
    """Blank and identical texts are not asked."""
    candidates = Candidates()
    found = forecast(items(["a", "bb", "a", " "]), PLAN, MemoryAnswers(), asked=candidates.offer)
    assert (found.asked, found.characters) == (2, 3)
    assert {item.text for item in candidates.choose()} == {"a", "bb"}


def test_a_kept_sample_is_of_the_same_question() -> None:
    """Another model has another speed; what is no sample is none."""
    sample = Sample((SampledRow(1, 2, 3, 4, 5.0),), 4, 0.5, "p", 12.0)
    facts = sample_facts(sample, PLAN)
    assert kept_sample(facts, PLAN) == sample
    assert kept_sample(facts, replace(PLAN, identity="other")) is None
    assert kept_sample({}, PLAN) is None
    assert kept_sample(dict.fromkeys(facts, '{"plan": 1}'), PLAN) is None
    assert SAMPLE not in facts, "the journal keeps the size of a random sample under that name"


def test_the_speed_of_an_embedded_model_is_kept(tmp_path: Path) -> None:
    """The latest for each model and pipeline, and a bounded number of them."""
    samples = [Sample((SampledRow(1, 2, 3, 4, float(number)),), 4, 0.0, "p") for number in range(3)]
    remember_speed(tmp_path, "m", samples[0])
    remember_speed(tmp_path, "m", samples[1])
    remember_speed(tmp_path, "other", samples[2])
    assert known_speed(tmp_path, "m", "p") == samples[1]
    assert known_speed(tmp_path, "m", "q") is None
    for number in range(20):
        remember_speed(tmp_path, f"m{number}", samples[0])
    assert known_speed(tmp_path, "m", "p") is None
    assert known_speed(tmp_path, "m19", "p") == samples[0]
    (tmp_path / "speeds.json").write_text("[1]")
    assert known_speed(tmp_path, "m19", "p") is None


def test_prompts_are_counted_where_nothing_was_timed() -> None:
    """The instructions count for each row; a tokenizer's counts have narrow bounds."""
    found = Forecast(asked=10, characters=1000)
    texts = [*shared_prompts(PLAN), "x" * 50, "x" * 150]
    counts = [500, 10, 30]
    counted = without_sample(found, PLAN, texts, counts)
    assert counted.prompt_tokens.likely == 10 * 500 + 1000 * 40 / 200
    assert (counted.completion_tokens, counted.seconds, counted.counted) == (None, None, True)
    guessed = without_sample(found, PLAN, texts, None)
    assert guessed.prompt_tokens.likely == pytest.approx(10 * estimate_tokens_of(texts[0]) + 250, rel=0.01)
    assert _width(guessed.prompt_tokens) > _width(counted.prompt_tokens)


def _width(interval: Interval) -> float:
    return (interval.high - interval.low) / interval.likely


def test_tokens_by_script() -> None:
    """A Chinese sign is about a token, four Latin letters are one; no text has none."""
    assert estimate_tokens_of("word" * 25) == estimate_tokens(100) == 25
    assert estimate_tokens_of("送货太慢了而且没有人接电话") in range(11, 14)
    assert estimate_tokens_of("Доставка была медленной") in range(6, 12)
    assert estimate_tokens_of("") == 0


def test_cached_tokens_cost_less() -> None:
    """Where their price is known; never more of them than there are prompt tokens."""
    usage = Usage(1_000_000, 500_000, cached_tokens=400_000)
    assert Prices(1.0, 2.0).of(usage) == 2.0
    assert Prices(1.0, 2.0, 0.25).of(usage) == pytest.approx(1.7)
    assert Prices(1.0, 2.0, 0.25).of(Usage(100, 0, cached_tokens=1000)) == pytest.approx(100 * 0.25 / 1e6)


def test_listed_prices() -> None:
    """Of a provider by its address and the model's name; none for this machine, nor for what is not listed."""
    found = listed_prices("openai", "gpt-4o-mini", "https://api.openai.com/v1")
    assert found is not None
    assert (found.currency, found.prompt > 0, found.completion > found.prompt) == ("$", True, True)
    assert found.cached is not None
    assert found.cached < found.prompt
    for backend, model, url in (
        ("openai", "gpt-4o-mini", "http://127.0.0.1:8000/v1"),
        ("openai", "no-such-model", "https://api.openai.com/v1"),
        ("openai", "gpt-4o-mini", "https://gateway.example/v1"),
        ("ollama", "gpt-4o-mini", None),
        ("local", "gpt-4o-mini", None),
    ):
        assert listed_prices(backend, model, url) is None


def test_a_limit_on_cost_needs_a_price() -> None:
    """The user's own price beats the listed one; without any the run is refused before anything is sent."""
    own = Prices(1.0, 2.0)
    assert price_of_run(own, "openai", "gpt-4o-mini", "https://api.openai.com/v1", 5.0) == own
    assert price_of_run(None, "local", "m", None, None) is None
    with pytest.raises(UsageError, match="needs the price of tokens"):
        price_of_run(None, "local", "m", None, 5.0)
