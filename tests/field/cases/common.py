"""What the tables share: the usual command line, and the sources that are named often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from field.model import Case, Expect, Run
from field.wire import Rule

THREE = "three.jsonl"
"""Three rows."""
TWELVE = "twelve.jsonl"
"""Twelve rows: enough to see whether a run that cannot succeed goes on asking."""
MANY = "many.jsonl"
"""Three hundred rows."""
FLAGGED = "flagged.jsonl"
"""Four rows; the second one has the word FLAGGED."""
LONG = "long.jsonl"
"""Three rows; the second one has about 30,000 characters."""
IS_LONG: Mapping[str, Any] = {"longer": 20_000}
IS_FLAGGED: Mapping[str, Any] = {"prompt": ["FLAGGED"]}

PI_OVERFLOW = "earendil-works/pi packages/ai/src/utils/overflow.ts"
HARMONY = "openai/harmony, the response format of gpt-oss"


def openai(rows: str = THREE, *more: str, model: str = "m", base: str = "{url}/v1") -> tuple[str, ...]:
    """The command line for a server that speaks OpenAI's protocol."""
    return (
        *("summarise", rows, "-o", "out.jsonl", "-b", "openai", "-m", model, "--base-url", base),
        *("-c", "1", "--max-wait", "3s", "--max-retries", "3", *more),
    )


def ollama(rows: str = THREE, *more: str, model: str = "m") -> tuple[str, ...]:
    """The command line for an Ollama."""
    return (
        *("summarise", rows, "-o", "out.jsonl", "-b", "ollama", "-m", model, "--base-url", "{url}"),
        *("-c", "1", "--max-wait", "3s", "--max-retries", "3", *more),
    )


def scripted(rows: str, *more: str, output: str = "out.jsonl") -> tuple[str, ...]:
    """The command line for files: no server, and a summary that repeats the text's first sentence."""
    return ("summarise", rows, "-o", output, "-b", "scripted", *more)


def asked(
    case: str,
    kind: str,
    source: str,
    about: str,
    rules: tuple[Rule, ...],
    args: tuple[str, ...] = (),
    *,
    models: tuple[str, ...] = ("m",),
    env: Mapping[str, str | None] | None = None,
    **expect: Any,
) -> Case:
    """A case with one run against a server; without `args` three rows over OpenAI's protocol."""
    args = args or openai()
    run = Run(args=args, expect=Expect(**expect), env=env or {})
    return Case(
        id=case, kind=kind, source=source, about=about, steps=(run,), files=(args[1],), rules=rules, models=models
    )


def answers_all(case: str, kind: str, source: str, about: str, rules: tuple[Rule, ...], **more: Any) -> Case:
    """A case whose three rows are answered, with a request for each of them unless `requests` says otherwise."""
    return asked(case, kind, source, about, rules, **({"answered": 3, "failed": 0, "requests": 3} | more))


def ends_at_once(
    case: str, kind: str, source: str, about: str, rules: tuple[Rule, ...], *says: Any, **more: Any
) -> Case:
    """A case that no row can survive: it ends after a few requests, with one clear line and the server's words."""
    usual: dict[str, Any] = {"args": openai(TWELVE), "exit": 4, "answered": 0, "requests": 4, "talk": 8}
    return asked(case, kind, source, about, rules, says=says, **(usual | more))
