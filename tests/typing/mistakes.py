"""Checked by mypy and pyright, never run: each line with an ignore is a mistake that a type checker must find.

Where one is not found, the ignore is unused, and that is the checker's error.
"""

from __future__ import annotations

from mellea_cli import Instruction, MelleaSession, ModelOutputThunk, RejectionSamplingStrategy, generative, req


@generative
def classify(summary: str, *, strict: bool = False) -> bool:
    """Classify the summary."""
    raise NotImplementedError


@generative
async def count(text: str) -> int:
    """Count the words."""
    raise NotImplementedError


def sync(m: MelleaSession, thunk: ModelOutputThunk[str]) -> None:
    """Wrong, missing and unknown arguments, wrong types of values."""
    classify(m)  # type: ignore[call-overload]
    classify(m, 5)  # type: ignore[call-overload]
    classify(m, "x", strct=True)  # type: ignore[call-overload]
    classify("x")  # type: ignore[call-overload]
    wrong: str = classify(m, "x")  # type: ignore[assignment]
    m.instruct("x", strategy=None, return_sampling_results=True)  # type: ignore[call-overload]
    m.act(Instruction("x"), return_sampling_results=True)  # type: ignore[call-overload]
    m.instruct("x", requirements=[5])  # type: ignore[list-item]
    m.instruct("x", strategy="rejection")  # type: ignore[call-overload]
    RejectionSamplingStrategy(loop_budget="3")  # type: ignore[arg-type]
    req("x", 5)  # type: ignore[arg-type]
    number: int = thunk.parsed_repr  # type: ignore[assignment]
    del wrong, number


async def asynchronous(m: MelleaSession) -> None:
    """The same of the async forms."""
    await count(m, words="x")  # type: ignore[call-overload]
    await m.ainstruct("x", strategy=None, return_sampling_results=True)  # type: ignore[call-overload]
    text: str = await m.ainstruct("x")  # type: ignore[assignment]
    del text
