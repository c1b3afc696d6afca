"""Everything that is decided before the first request."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.items import Failure, Item, Outcome
from mellea_cli.messages import Message, Options, Usage
from mellea_cli.pipelines.confidence import CONFIDENCE, SECOND_READING
from mellea_cli.pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from mellea_cli.run.answer_cache import NearDuplicates

# What the user allows a whole run to take: time, failed items, tokens, money.

_MILLION = 1_000_000
# A share means little among the first few items.
_SHARE_FROM = 50


@dataclass(frozen=True, slots=True)
class ErrorLimit:
    """How many items may fail.

    Args:
        count: the run stops when so many have failed; `None` for no such limit.
        share: or when this share of the items that were asked about has, from 0 to 1, once there are 50 of them.
    """

    count: int | None = None
    share: float | None = None

    def reached(self, failed: int, asked: int) -> bool:
        """Whether so many failures are too many."""
        if self.count is not None and failed >= self.count:
            return True
        return self.share is not None and asked >= _SHARE_FROM and failed > 0 and failed >= self.share * asked


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in whatever currency."""

    prompt: float
    completion: float
    cached: float | None = None
    """Of prompt tokens that the server had in its cache; `None` when they cost as much as others."""
    currency: str = ""  # Sign before an amount; empty for the user's own prices

    def of(self, usage: Usage) -> float:
        """What these tokens cost."""
        cached = 0 if self.cached is None else min(usage.cached_tokens, usage.prompt_tokens)
        prompt = (usage.prompt_tokens - cached) * self.prompt + cached * (self.cached or 0.0)
        return (prompt + usage.completion_tokens * self.completion) / _MILLION


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits on a whole run; `None` sets none."""

    deadline_s: float | None = None  # Seconds from the start of the run after which no new item is taken
    errors: ErrorLimit = ErrorLimit()
    tokens: int | None = None  # Tokens, prompts and answers together
    cost: float | None = None  # Money, by `prices`
    prices: Prices | None = None
    likely: Usage = Usage()  # What an item is expected to take as long as none of the run's has shown it

    @property
    def bind_items(self) -> bool:
        """Whether any of them has to be checked for each item."""
        limits = (self.errors.count, self.errors.share, self.tokens, self.cost)
        return any(limit is not None for limit in limits)

    def left(self, usage: Usage, elapsed_s: float, likely: Usage) -> Caps:
        """What is left of them once that much has been used: for the next of several runs that share them.

        A limit that has been reached is left at next to nothing, so that the next run stops before its first item.

        Args:
            usage: what has been used.
            elapsed_s: how long that took, in seconds.
            likely: what the next run's first item is expected to take.
        """
        return replace(
            self,
            deadline_s=None if self.deadline_s is None else max(self.deadline_s - elapsed_s, 0.0),
            tokens=None if self.tokens is None else max(self.tokens - usage.total_tokens, 0),
            cost=None if self.cost is None or self.prices is None else max(self.cost - self.prices.of(usage), 0.0),
            likely=likely,
        )


class Budget:
    """Keeps a run within its caps. Items in flight are expected to cost as much as those before them did."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._asked = 0
        self._failed = 0
        self._usage = Usage()
        self._in_flight = 0
        self._counted = caps.tokens is not None or caps.cost is not None
        self._first = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold this around one item: where tokens count, one goes alone until it is known what an item takes."""
        if not self._unknown():
            yield
            return
        async with self._first:
            if self._unknown():
                yield
                return
        yield

    def _unknown(self) -> bool:
        return self._counted and self._usage.total_tokens == 0

    def before_one(self) -> str:
        """Count an item in that is about to be asked about.

        Returns:
            Why it must not be; empty when it may.
        """
        caps, tokens = self._caps, self._usage.total_tokens
        seen, items = (self._usage, self._asked) if self._asked else (caps.likely, 1)
        share = (self._in_flight + 1) / items
        if caps.tokens is not None and (not caps.tokens or tokens + share * seen.total_tokens > caps.tokens):
            return f"the next answers would go beyond {caps.tokens:,} tokens; {tokens:,} are used"
        if caps.cost is not None and caps.prices is not None:
            cost = caps.prices.of(self._usage)
            if not caps.cost or cost + share * caps.prices.of(seen) > caps.cost:
                spent = f"{cost:,.2f}" if cost >= 0.995 else f"{cost:.3g}"  # as displays round it
                return f"the next answers would cost more than {caps.cost:g}; {spent} is spent"
        self._in_flight += 1
        return ""

    def after_one(self, outcome: Outcome | None) -> str:
        """Count an item out.

        Args:
            outcome: what became of it; `None` when it was given up.

        Returns:
            Why no further item may be asked about; empty when they may.
        """
        self._in_flight -= 1
        if outcome is None or outcome.attempts == 0:
            return ""
        self._asked += 1
        self._failed += isinstance(outcome, Failure)
        self._usage += outcome.usage
        if self._caps.errors.reached(self._failed, self._asked):
            return f"{self._failed:,} of {self._asked:,} items failed (--max-errors)"
        if self._counted and not isinstance(outcome, Failure) and outcome.usage.total_tokens == 0:
            return "the model server does not say how many tokens it used, so no limit on them can be kept"
        return ""


KEY_BYTES = 16  # Bytes of the key of one unit's answer
SHORT_TEXT = 80  # Characters of the longest text that shares the answer of one that is nearly identical
# A bullet before the text, and one stop, comma or semicolon after a letter or digit. No more of the ends: "great?",
# "great...", "great!" and "great :)" say something else than "great".
_UNSAID = re.compile(r"\A[-*\u2013\u2022] |(?<=\w) ?[.,;\u3001\u3002\uff0c\uff1b]\Z")


@dataclass(frozen=True)
class RunPlan:
    """What one batch run will do.

    Args:
        pipeline: what is asked about each item.
        backend: the kind of model server, such as `"ollama"`.
        model: the model's name there.
        identity: what stands for the model in the fingerprint: its name, or what tells one model file from another.
        options: how to generate; each step adds its own limit on tokens.
        concurrency: requests in flight at most, all steps counted.
        start: how many at first, where the best number up to `concurrency` is to be found by trying; `None` when
            `concurrency` is what it shall be.
        policy: how often and how soon a request is sent again.
        deadlines: how long one call may take.
        max_wait_s: how long a server that is away is waited for, in seconds.
        grace_s: how long items in flight may go on once the run was asked to stop, in seconds.
        budget: answers that are judged at most, for each step of an item.
        rpm: requests a minute at most; `None` sets no limit.
        tpm: tokens a minute at most; `None` sets no limit.
        caps: limits on the whole run.
        redacted: mask personal numbers and addresses before a text leaves.
        dedupe: ask about identical texts once.
        normalise: short texts that are nearly identical share an answer, too, see `shared_key`.
        near: groups of long texts that are nearly the same and share an answer.
        first_alone_s: the first request has the server for itself until it is answered, or for so many seconds.
        rows_per_call: rows in one request at most.
    """

    pipeline: Pipeline
    backend: str
    model: str
    identity: str
    options: Options
    concurrency: int
    policy: RetryPolicy = RetryPolicy()
    deadlines: Deadlines = Deadlines()
    max_wait_s: float = 300.0
    grace_s: float = 10.0
    budget: int = 3
    rpm: float | None = None
    tpm: float | None = None
    caps: Caps = Caps()
    redacted: bool = False
    start: int | None = None
    dedupe: bool = True
    normalise: bool = False
    near: NearDuplicates | None = None
    first_alone_s: float = 0.0
    rows_per_call: int = 1

    @cached_property
    def fingerprint(self) -> bytes:
        """A hash of exactly what changes answers: prompts, types, model and sampling, not speed or time limits.

        Where the server stands is left out: the same model behind another address gives the same answers. Where the
        pipeline has units it is their hashes, joined.
        """
        units = self.pipeline.units
        if not units:
            return self._fingerprint(self.pipeline.definition())
        return b"".join(self._fingerprint(unit.definition) for unit in units)

    def _fingerprint(self, definition: Mapping[str, Any]) -> bytes:
        options = self.options
        facts = {
            **definition,
            "backend": self.backend,
            "model": self.identity,
            "options": [options.temperature, options.top_p, options.seed, options.stop, options.thinking],
            "native": dict(options.native),
            **({"redacted": True} if self.redacted else {}),
        }
        canonical = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.blake2b(canonical.encode(), digest_size=KEY_BYTES).digest()

    @property
    def settings(self) -> dict[str, Any]:
        """What changes answers, for people: the model's name, not its identity, and a hash of the prompts.

        Own fields are left out: an edited one is meant to be asked, and is the only one that is.
        """
        options, units = self.options, self.pipeline.units
        twice = [unit.definition[SECOND_READING][0] for unit in units if SECOND_READING in unit.definition]
        settings = {
            "backend": self.backend,
            "model": self.identity,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
            "stop": list(options.stop or ()),
            "thinking": options.thinking,
            "native": dict(options.native),
            "redact": self.redacted,
            "dedupe": self.dedupe,
            **({"confidence": True} if any(CONFIDENCE in unit.definition for unit in units) else {}),
            **({"second-reading": twice[0]} if twice else {}),
        }
        definition = self.pipeline.definition() if not units else units[0].definition if units[0].is_builtin else {}
        if definition:
            prompts = hashlib.blake2b(json.dumps(definition, sort_keys=True, default=str).encode(), digest_size=8)
            settings = {"pipeline": definition["pipeline"], **settings, "prompts": prompts.hexdigest()}
        found: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        return found

    def key(
        self, text: str, item_id: object = None, fields: Mapping[str, Any] | None = None, *, fingerprint: bytes = b""
    ) -> bytes:
        """The key of the answer for a text under this plan: 16 bytes for each unit of its pipeline.

        The answer hangs on the text alone, so a reordered or longer input finds its answers again, an edited text does
        not, and identical texts share one; without `dedupe` only those with the same id do. Other columns, in `fields`,
        count where a prompt shows them. `fingerprint` replaces that of this plan by that of an earlier one.
        """
        data, fingerprint = text.encode("utf-8", "surrogatepass"), fingerprint or self.fingerprint
        key = b""
        for at in range(0, len(fingerprint), KEY_BYTES):
            unit = fingerprint[at : at + KEY_BYTES]
            hashed = hashlib.blake2b(data, digest_size=KEY_BYTES, key=unit)
            if not self.dedupe:
                hashed.update(b"\0" + str(item_id).encode("utf-8", "surrogatepass"))
            if fields and (inputs := self._inputs.get(unit)):
                shown = [fields.get(name) for name in inputs]
                hashed.update(b"\1" + json.dumps(shown, sort_keys=True, default=str).encode())
            key += hashed.digest()
        return key

    def shared_key(self, item: Item, key: bytes) -> bytes:
        """The key of the answer that nearly identical texts share; for any other text its own, `key`.

        Short texts differ only in capitals, blanks, a bullet before them, and one stop at their end.
        """
        text = item.text
        if len(text) > SHORT_TEXT:
            return key if self.near is None else self.near.first(item, key)
        if not self.normalise:
            return key
        # Not `casefold`: that would make one word of the German "Masse" and "Maße".
        same = _UNSAID.sub("", " ".join(text.split())).lower()
        return key if same == text else self.key(same, item.id, item.fields)

    @cached_property
    def _inputs(self) -> Mapping[bytes, tuple[str, ...]]:
        """The input's columns that a unit's prompts show, by the unit's fingerprint."""
        return {self._fingerprint(unit.definition): unit.inputs for unit in self.pipeline.units}

    @property
    def prefixes(self) -> tuple[tuple[Message, ...], ...]:
        """The beginnings that the prompts of each step share, in the order in which they are needed."""
        return self.prefixes_of(self.pipeline)

    def prefixes_of(self, pipeline: Pipeline) -> tuple[tuple[Message, ...], ...]:
        """The beginnings for a pipeline that asks only a part of this plan's."""
        if self.rows_per_call == 1:
            return pipeline.prefixes
        from mellea_cli.engine.row_groups import group_prefixes

        return group_prefixes(pipeline, self.rows_per_call)

    def calls(self, items: int) -> int:
        """Model calls for that many items when nothing has to be asked again."""
        return -(-items // self.rows_per_call) * len(self.pipeline.steps)
