"""Everything that is decided before the first request."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from mellea_cli.engine.generate import Deadlines
from mellea_cli.engine.retry import RetryPolicy
from mellea_cli.messages import Message, Options
from mellea_cli.pipelines.base import Pipeline
from mellea_cli.run.budget import Caps

_KEY_BYTES = 16


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
        first_alone_s: the first request has the server for itself until it is answered, or for so many seconds.
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
    first_alone_s: float = 0.0

    @cached_property
    def fingerprint(self) -> bytes:
        """A hash of exactly what changes answers: prompts, types, model and sampling, but neither speed nor patience.

        Where the server stands is left out: the same model behind another address gives the same answers.
        """
        options = self.options
        facts = {
            **self.pipeline.definition(),
            "backend": self.backend,
            "model": self.identity,
            "options": [options.temperature, options.top_p, options.seed, options.stop, options.thinking],
            "native": dict(options.native),
            **({"redacted": True} if self.redacted else {}),
        }
        canonical = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.blake2b(canonical.encode(), digest_size=_KEY_BYTES).digest()

    def key(self, text: str, item_id: object = None) -> bytes:
        """The key of the answer for a text under this plan: 16 bytes.

        The answer hangs on the text alone, so a reordered or longer input finds its answers again, an edited text does
        not, and identical texts share one; without `dedupe` only those with the same id do.
        """
        hashed = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES, key=self.fingerprint)
        if not self.dedupe:
            hashed.update(b"\0" + str(item_id).encode("utf-8", "surrogatepass"))
        return hashed.digest()

    @property
    def prefixes(self) -> tuple[tuple[Message, ...], ...]:
        """The beginnings that the prompts of each step share, in the order in which they are needed."""
        return tuple(step.prompt.prefix for step in self.pipeline.steps)

    def calls(self, items: int) -> int:
        """Model calls for that many items when nothing has to be asked again."""
        return items * len(self.pipeline.steps)
