"""What `/set` can set."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mellea_cli.backends.options import ModelOption
from mellea_cli.errors import UsageError

_UNSET = frozenset({"", "default", "none", "off"})


@dataclass(frozen=True, slots=True)
class Settable:
    """One option."""

    key: str
    """The session's name for it; empty for what is not sent with a request."""
    read: Callable[[str], Any]
    kind: str
    """What a value must be, in words."""


def _switch(text: str) -> bool | str:
    return {"true": True, "yes": True, "on": True, "false": False, "no": False}.get(text.lower(), text)


def _between(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _positive(text: str) -> int:
    value = int(text.replace(",", "").replace("_", ""))
    if value < 1:
        raise ValueError(text)
    return value


SETTABLE: Mapping[str, Settable] = {
    "temperature": Settable(ModelOption.TEMPERATURE, _between(0, 2), "a number from 0 to 2"),
    "top_p": Settable("top_p", _between(0, 1), "a number from 0 to 1"),
    "max_tokens": Settable(ModelOption.MAX_NEW_TOKENS, _positive, "a whole number above 0"),
    "seed": Settable(ModelOption.SEED, int, "a whole number"),
    "stop": Settable(ModelOption.STOP_SEQUENCES, lambda text: [text], "a text that ends the answer"),
    "thinking": Settable(ModelOption.THINKING, _switch, "on, no, or a level such as low"),
    "context": Settable("", _positive, "the window's size in tokens"),
}


def read_setting(name: str, text: str) -> Any:
    """Read a value for an option; `None` for `default`, which leaves the choice to the server.

    Raises:
        UsageError: there is no such option, or the value is not one for it.
    """
    known = SETTABLE.get(name)
    if known is None:
        near = difflib.get_close_matches(name, SETTABLE, n=1)
        hint = f"did you mean /set {near[0]}?" if near else f"there are {', '.join(SETTABLE)}"
        raise UsageError(f"there is no option {name!r}", hint=hint)
    if text.strip().lower() in _UNSET:
        return None
    try:
        return known.read(text.strip())
    except ValueError as error:
        raise UsageError(f"{name} is {known.kind}, not {text!r}", hint=f"/set {name} VALUE, or default") from error
