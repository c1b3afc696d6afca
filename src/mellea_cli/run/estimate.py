"""Estimates before a run: tokens, time and cost with an interval, from a timed sample of rows, and listed prices."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mellea_cli.errors import UsageError
from mellea_cli.events import Event, ItemFinished, ItemStarted
from mellea_cli.items import Item
from mellea_cli.messages import Usage, estimate_tokens_of
from mellea_cli.run.plan import Prices, RunPlan

if TYPE_CHECKING:
    from mellea_cli.run.answer_cache import Forecast

FEWEST, MOST = 5, 20
"""Rows of a sample."""
# A sample takes no further rows after this time, once it has the fewest.
SAMPLE_S = 60.0
_CANDIDATES = 2_000
_SAMPLE_FACT = "timed rows"  # `sample` has the size of a random sample
# A server is not as fast in the next hour as it was in a minute: one standard deviation of its mean speed. Programs
# next to an embedded model take its cores.
_DRIFT = {"local": 0.12}
_USUAL_DRIFT = 0.04
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, and the bounds that the true one lies within in 95 of 100 cases."""

    low: float
    likely: float
    high: float

    @classmethod
    def around(cls, likely: float, half: float) -> Interval:
        return cls(max(0.0, likely - half), likely, likely + half)

    def times(self, factor: float) -> Interval:
        return Interval(self.low * factor, self.likely * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class SampledRow:
    """What one row took."""

    characters: int
    prompt: int
    cached: int
    completion: int
    latency_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Timed rows of a run."""

    rows: tuple[SampledRow, ...]
    concurrency: int
    """Rows at once."""
    startup_s: float = 0.0
    """What the first row took, if it was alone: an embedded model is loaded for it."""
    pipeline: str = ""
    at: float = 0.0
    """When it was taken, in seconds since 1970."""

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        record["rows"] = [list(asdict(row).values()) for row in self.rows]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Sample:
        """Raises `ValueError`, `TypeError` or `KeyError` when it is no sample."""
        return cls(**{**record, "rows": tuple(SampledRow(*row) for row in record["rows"])})


class Sampler:
    """An observer that times the rows of a run.

    The last rows are not timed: they are answered faster, because fewer and fewer others are worked on.

    Args:
        rows: rows that are expected; `None` when unknown.
        concurrency: rows at once.
        first_alone: whether the first row is alone, because it loads the model.
        most: rows that are kept, evenly spread over the run.
    """

    def __init__(self, rows: int | None, concurrency: int, *, first_alone: bool, most: int = MOST) -> None:
        self._timed = math.inf if rows is None else max(rows - (concurrency - 1), min(rows, FEWEST + first_alone))
        self._concurrency = concurrency
        self._first_alone = first_alone
        self._most = most
        self.answered = 0
        """Timed rows with an answer. Failed ones are timed, too: the run will have such rows as well."""
        self._characters: dict[int, int] = {}
        self._first_s: float | None = None
        self._rows: list[SampledRow] = []
        self._every = 1
        self._seen = 0
        self._started = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, ItemStarted):
            self._started += 1
            if self._started <= self._timed:
                self._characters[event.position] = len(event.text)
        elif isinstance(event, ItemFinished):
            length = self._characters.pop(event.position, None)
            if length is not None and not event.reused:
                self.answered += event.ok
                self._take(event, length)

    def _take(self, event: ItemFinished, length: int) -> None:
        usage, latency = event.usage, event.latency_s
        if self._first_alone and self._first_s is None:
            self._first_s = latency
            return
        self._seen += 1
        if self._seen % self._every:
            return
        self._rows.append(
            SampledRow(length, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, latency)
        )
        if len(self._rows) >= 2 * self._most:
            self._rows = self._rows[::2]
            self._every *= 2

    def sample(self, pipeline: str) -> Sample | None:
        """The rows; `None` when none was answered."""
        if not (self._rows and self.answered):
            return None
        return Sample(tuple(self._rows), self._concurrency, self._first_s or 0.0, pipeline, time.time())


class Candidates:
    """Rows to choose a sample from: a bounded number of those that would be asked, at random."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._rows: list[Item] = []
        self._seen = 0

    def offer(self, item: Item) -> None:
        """Take a row into account (reservoir sampling, algorithm R of J. Vitter, 1985)."""
        self._seen += 1
        if len(self._rows) < _CANDIDATES:
            self._rows.append(item)
        elif (place := self._random.randrange(self._seen)) < _CANDIDATES:
            self._rows[place] = item

    def choose(self, others: int = 0) -> list[Item]:
        """5 to 20 rows and `others`: one of each part of the rows ordered by length, in an order by chance."""
        number = min(len(self._rows), max(FEWEST, min(MOST, self._seen // 5)) + others)
        ordered = sorted(self._rows, key=lambda item: len(item.text))
        chosen = [
            ordered[self._random.randrange(part * len(ordered) // number, (part + 1) * len(ordered) // number)]
            for part in range(number)
        ]
        self._random.shuffle(chosen)
        return chosen

    @property
    def texts(self) -> list[str]:
        """Some of the texts, at random."""
        return [item.text for item in self._rows[:100]]


# Where samples are kept: those of a run in its journal, those of an embedded model with the store's files.


def sample_facts(sample: Sample, plan: RunPlan) -> dict[str, str]:
    """The facts of a journal that keep a sample."""
    return {_SAMPLE_FACT: json.dumps({"plan": _question(plan), "sample": sample.to_json()})}


def kept_sample(facts: Mapping[str, str], plan: RunPlan) -> Sample | None:
    """The sample of a journal, if it is of the same question."""
    try:
        record = json.loads(facts[_SAMPLE_FACT])
        return Sample.from_json(record["sample"]) if record["plan"] == _question(plan) else None
    except (KeyError, ValueError, TypeError):
        return None


def _question(plan: RunPlan) -> str:
    return plan.fingerprint.hex()


_SPEEDS_FILE = "speeds.json"
_SPEEDS_KEPT = 12


def remember_speed(folder: Path, model: str, sample: Sample) -> None:
    """Keep how fast this machine ran an embedded model; a folder that cannot be written costs nothing."""
    found = [one for one in _speeds(folder) if (one[0], one[1].pipeline) != (model, sample.pipeline)]
    records = [*((name, kept.to_json()) for name, kept in found), (model, sample.to_json())][-_SPEEDS_KEPT:]
    path = folder / _SPEEDS_FILE
    scratch = path.with_suffix(f".{os.getpid()}.new")
    with suppress(OSError):
        scratch.write_text(json.dumps(records), encoding="utf-8")
        scratch.replace(path)


def known_speed(folder: Path, model: str, pipeline: str) -> Sample | None:
    """The latest speed of an embedded model on this machine with the same pipeline."""
    found = [sample for name, sample in _speeds(folder) if name == model and sample.pipeline == pipeline]
    return found[-1] if found else None


def _speeds(folder: Path) -> list[tuple[str, Sample]]:
    try:
        records = json.loads((folder / _SPEEDS_FILE).read_text(encoding="utf-8"))
        return [(str(name), Sample.from_json(record)) for name, record in records]
    except (OSError, ValueError, TypeError, KeyError):
        return []


# The estimate.


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to take."""

    rows: int
    prompt_tokens: Interval
    completion_tokens: Interval | None
    """`None` where no sample says how long answers are."""
    seconds: Interval | None = None
    cost: Interval | None = None
    sampled: int = 0
    """Rows of the sample; 0 without one."""
    counted: bool = False
    """Whether a tokenizer counted the tokens of prompts; a sample's were counted by its server."""
    searches: bool = False
    """Whether the run looks for the best number of requests in flight, so that its time has wide bounds."""

    def to_json(self) -> dict[str, Any]:
        """The figures by name; an interval as its three values, and null for what is unknown."""
        return asdict(self)


def from_sample(sample: Sample, found: Forecast, plan: RunPlan, prices: Prices | None) -> Estimate:
    """Expect of the rows that would be asked what the sample's took, by their length."""
    rows = found.asked
    mean_length = found.characters / rows if rows else 0.0
    prompt = _total(sample, [row.prompt for row in sample.rows], mean_length, rows)
    completion = _total(sample, [row.completion for row in sample.rows], mean_length, rows)
    costs: Interval | None = None
    if prices is not None:
        each = [prices.of(Usage(row.prompt, row.completion, cached_tokens=row.cached)) for row in sample.rows]
        costs = _total(sample, each, mean_length, rows)
    return Estimate(
        rows,
        prompt,
        completion,
        _seconds(sample, mean_length, rows, plan, prompt.likely + completion.likely),
        costs,
        len(sample.rows),
        searches=plan.start is not None and plan.start < plan.concurrency,
    )


def without_sample(found: Forecast, plan: RunPlan, texts: Sequence[str], counts: Sequence[int] | None) -> Estimate:
    """Expect tokens of prompts alone.

    Args:
        found: the rows.
        plan: the run.
        texts: the prompts' common parts, then some of the texts.
        counts: the tokens of these by the model's tokenizer; `None` for an estimate.
    """
    shared = len(shared_prompts(plan))
    numbers = list(counts) if counts is not None else [estimate_tokens_of(text) for text in texts]
    characters = sum(map(len, texts[shared:]))
    per_character = sum(numbers[shared:]) / characters if characters else 0.25
    steps = len(plan.pipeline.steps)
    total = found.asked * sum(numbers[:shared]) + found.characters * per_character * steps
    # Characters per token differ between models; a tokenizer's count lacks only the marks of the chat template.
    off = 0.03 if counts is not None else 0.25
    return Estimate(found.asked, Interval.around(total, off * total), None, counted=counts is not None)


def shared_prompts(plan: RunPlan) -> list[str]:
    """What the prompts of all rows have in common, a text for each step."""
    return [
        "\n".join([*(message.content for message in step.prompt.prefix), step.prompt.template])
        for step in plan.pipeline.steps
    ]


def _total(sample: Sample, values: Sequence[float], mean_length: float, rows: int) -> Interval:
    """The sum over `rows` rows of this mean length."""
    mean, spread, freedom = _mean_at(sample.rows, values, mean_length)
    return Interval.around(rows * mean, _student(freedom) * rows * spread * _uncertain(len(values), rows))


def _uncertain(count: int, rows: int) -> float:
    """The error of the mean of `rows` new values that is predicted by the mean of `count` others, in their spread."""
    return math.sqrt(1 / count + 1 / rows) if rows else 0.0


def _mean_at(rows: Sequence[SampledRow], values: Sequence[float], mean_length: float) -> tuple[float, float, int]:
    """The mean of values for rows of this mean length by linear regression, the spread around it, and its freedom."""
    count, mean = len(values), fmean(values)
    lengths = [float(row.characters) for row in rows]
    middle = fmean(lengths)
    across = sum((length - middle) ** 2 for length in lengths)
    slope = 0.0
    if count >= FEWEST and across > 0:
        slope = sum((x - middle) * (y - mean) for x, y in zip(lengths, values, strict=True)) / across
    left = [y - mean - slope * (x - middle) for x, y in zip(lengths, values, strict=True)]
    freedom = max(1, count - (2 if slope else 1))
    spread = math.sqrt(sum(one * one for one in left) / freedom) if count > 1 else mean / 2
    return max(0.0, mean + slope * (mean_length - middle)), spread, freedom


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with so many degrees of freedom, by Cornish and Fisher's expansion."""
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)


def _seconds(sample: Sample, mean_length: float, rows: int, plan: RunPlan, tokens: float) -> Interval:
    """The time of rows that are asked `plan.concurrency` at a time."""
    mean, spread, freedom = _mean_at(sample.rows, [row.latency_s for row in sample.rows], mean_length)
    drift = _DRIFT.get(plan.backend, _USUAL_DRIFT)
    least = max(60.0 * plan.calls(rows) / plan.rpm if plan.rpm else 0.0, 60.0 * tokens / plan.tpm if plan.tpm else 0.0)

    def at(concurrency: int) -> Interval:
        places = max(1, min(concurrency, rows))
        together = rows - (sample.startup_s > 0)
        # At the end the places become free one after the other: on average each waits for half of a row.
        likely = sample.startup_s + together * mean / places + (mean / 2 if places > 1 else 0.0)
        half = _student(freedom) * together / places * spread * _uncertain(len(sample.rows), together)
        # In logarithms: a time is half as likely as twice as long, and never below zero.
        off = math.exp(math.hypot(half / likely, _Z * drift)) if likely else 1.0
        return Interval(likely / off, likely, likely * off)

    # Where the run may have more at once than the sample had, the server may answer each as fast, or share its speed.
    best, worst = at(plan.concurrency), at(min(sample.concurrency, plan.concurrency))
    likely = math.sqrt(best.likely * worst.likely)
    return Interval(max(best.low, least), max(likely, least), max(worst.high, least * (1 + _Z * drift)))


# Prices.


def listed_prices(backend: str, model: str, url: str | None) -> Prices | None:
    """The listed prices of a provider's model; `None` where there are none, or the list is not installed.

    The list is the data of genai-prices as installed: nothing is sent. A server on this machine has no price.
    """
    from mellea_cli.backends.openai import server_url
    from mellea_cli.backends.security import is_loopback

    if backend != "openai":
        return None
    address = server_url(url)
    if is_loopback(address):
        return None
    try:
        from genai_prices import Usage as PricedUsage
        from genai_prices import calc_price
    except ImportError:
        return None

    def price(**tokens: int) -> float:
        return float(calc_price(PricedUsage(**tokens), model, provider_api_url=address).total_price)

    try:
        million = 1_000_000
        prompt, completion = price(input_tokens=million), price(output_tokens=million)
        cached = price(input_tokens=million, cache_read_tokens=million)
    except (LookupError, ValueError):
        return None
    return Prices(prompt, completion, cached, "$")


def price_of_run(
    own: Prices | None, backend: str, model: str, url: str | None, max_cost: float | None
) -> Prices | None:
    """The prices of a run: the user's own, else the listed ones.

    Raises:
        UsageError: a limit on cost has no prices.
    """
    prices = own or listed_prices(backend, model, url)
    if prices is None and max_cost is not None:
        raise UsageError(
            f"--max-cost needs the price of tokens: there is no listed one of {model} here",
            hint="add --price IN,OUT per million tokens, or install the price list: pip install 'mellea-cli[prices]'",
        )
    return prices
