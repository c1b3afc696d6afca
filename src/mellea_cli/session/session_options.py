"""From a caller's `model_options` to what goes on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mellea_cli.backends.model_option import ModelOption
from mellea_cli.errors import UsageError
from mellea_cli.messages import Options

ModelOptions = Mapping[str, Any]
"""Options by `ModelOption` key or by the server's own name."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The options of one call, read and checked."""

    options: Options = Options()
    system: str = ""
    """The system message; empty for none."""
    stream: bool = False
    stream_timeout_s: float | None = None
    """Seconds until the first and between any two pieces; counts only when `timeout_set`."""
    timeout_set: bool = False


# Our key → the field it sets.
_OURS: Mapping[str, str] = {
    ModelOption.TEMPERATURE: "temperature",
    ModelOption.MAX_NEW_TOKENS: "max_tokens",
    ModelOption.SYSTEM_PROMPT: "system",
    ModelOption.CONTEXT_WINDOW: "context_window",
    ModelOption.THINKING: "thinking",
    ModelOption.SEED: "seed",
    ModelOption.STREAM: "stream",
    ModelOption.STREAM_TIMEOUT: "stream_timeout",
    ModelOption.STOP_SEQUENCES: "stop",
}
# A server's own name → the field it means.
_NATIVE: Mapping[str, str] = {
    "num_predict": "max_tokens",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "num_ctx": "context_window",
    "seed": "seed",
    "stop": "stop",
    "system": "system",
    "stream": "stream",
    "think": "thinking",
    "top_p": "top_p",
}
_NOT_OFFERED = frozenset(
    {ModelOption.TOOLS, ModelOption.TOOL_CHOICE, ModelOption.LOGITS, ModelOption.RAW_LOGITS, "tools"}
)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_stop(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(one, str) for one in value))


# Field → what its value must be, as a test and in words.
_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "temperature": (_is_number, "a number"),
    "top_p": (_is_number, "a number"),
    "max_tokens": (lambda value: isinstance(value, int) and _is_int(value) and value > 0, "an int above 0"),
    "context_window": (lambda value: isinstance(value, int) and _is_int(value) and value > 0, "an int above 0"),
    "seed": (_is_int, "an int"),
    "stop": (_is_stop, "a list of str"),
    "system": (lambda value: isinstance(value, str), "a str"),
    "stream": (lambda value: isinstance(value, bool), "a bool"),
    "thinking": (lambda value: isinstance(value, bool | str), "a bool or a str"),
    "stream_timeout": (_is_number, "a number of seconds"),
}


def read_options(session: ModelOptions | None, call: ModelOptions | None = None) -> CallOptions:
    """Merge a session's options with a call's and check them; neither mapping is changed.

    Each is brought to one set of names first, so a call's `num_predict` beats a session's `MAX_NEW_TOKENS`.

    Raises:
        UsageError: an option is not offered, or its value is of the wrong kind.
    """
    merged = {**_one_set_of_names(session or {}), **_one_set_of_names(call or {})}
    native = {name: value for (known, name), value in merged.items() if not known and value is not None}
    fields = {name: value for (known, name), value in merged.items() if known}
    timeout_set = "stream_timeout" in fields
    timeout_s, system, stream = (fields.pop(name, None) for name in ("stream_timeout", "system", "stream"))
    stop = fields.pop("stop", None) or ()
    options = Options(**fields, stop=(stop,) if isinstance(stop, str) else tuple(stop), native=native)
    return CallOptions(options, system or "", bool(stream), timeout_s, timeout_set)


def _one_set_of_names(given: ModelOptions) -> dict[tuple[bool, str], Any]:
    """The options by (whether it is a field, its name)."""
    named: dict[tuple[bool, str], Any] = {}
    for key, value in _spread(given).items():
        if key in _NOT_OFFERED:
            if value:
                raise UsageError(
                    f"the model option {_shown(key)} is not offered: there are no tools and no logits here"
                )
            continue
        if field := _OURS.get(key):
            named[True, field] = _checked(key, field, value)
        elif field := _NATIVE.get(key):
            # Our own key counts, wherever the two stand in the dict.
            named.setdefault((True, field), _checked(key, field, value))
        else:
            named[False, _native(key)] = value
    return named


def _spread(given: ModelOptions) -> dict[str, Any]:
    """The options with those inside `extra_body` beside the others."""
    options = dict(given)
    extra = options.pop("extra_body", None)
    if extra is None:
        return options
    if not isinstance(extra, Mapping):
        raise UsageError(f"the model option 'extra_body' must be a dict, not {type(extra).__name__}")
    return {**options, **extra}


def _checked(key: str, field: str, value: Any) -> Any:
    holds, kind = _KINDS[field]
    if value is None or holds(value):
        return value
    raise UsageError(f"the model option {_shown(key)} must be {kind}, not {value!r}")


def _native(key: Any) -> str:
    if not isinstance(key, str):
        raise UsageError(f"a model option's name must be a str, not {key!r}")
    if key == "model":
        raise UsageError("the model cannot be set as an option", hint="name it in start_session(model_id=...)")
    if key.startswith("@@@"):
        raise UsageError(f"there is no model option {key!r}", hint="the names are those of ModelOption")
    return key


def _shown(key: str) -> str:
    """The key as the caller wrote it."""
    names = {value: f"ModelOption.{name}" for name, value in vars(ModelOption).items() if name.isupper()}
    return names.get(key, repr(key)) if key.startswith("@@@") else repr(key)
