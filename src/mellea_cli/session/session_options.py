"""Model options as a caller writes them: `ModelOption` keys, a server's own names, and unknown names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from mellea_cli.backends.model_option import ModelOption
from mellea_cli.errors import UsageError
from mellea_cli.messages import Options
from mellea_cli.session.calls import CallOptions


def _names(*names: str) -> Any:
    # The first name that is given counts: ours before a server's.
    return Field(default=None, validation_alias=AliasChoices(*names))


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class _KnownOptions(BaseModel):
    model_config = ConfigDict(strict=True)

    temperature: float | None = _names(ModelOption.TEMPERATURE)
    top_p: float | None = _names("top_p")
    max_tokens: PositiveInt | None = _names(
        ModelOption.MAX_NEW_TOKENS, "num_predict", "max_tokens", "max_completion_tokens"
    )
    context_window: PositiveInt | None = _names(ModelOption.CONTEXT_WINDOW, "num_ctx")
    seed: int | None = _names(ModelOption.SEED, "seed")
    stop: Annotated[list[str] | None, Field(strict=False), BeforeValidator(_as_list)] = _names(
        ModelOption.STOP_SEQUENCES, "stop"
    )
    thinking: bool | str | None = _names(ModelOption.THINKING, "think")
    system: str | None = _names(ModelOption.SYSTEM_PROMPT, "system")
    stream: bool | None = _names(ModelOption.STREAM, "stream")
    stream_timeout: float | None = _names(ModelOption.STREAM_TIMEOUT)


_KNOWN = {
    str(name)
    for field in _KnownOptions.model_fields.values()
    if isinstance(field.validation_alias, AliasChoices)
    for name in field.validation_alias.choices
}
_NOT_OFFERED = {ModelOption.TOOLS, ModelOption.TOOL_CHOICE, ModelOption.LOGITS, ModelOption.RAW_LOGITS, "tools"}


def read_options(session: Mapping[str, Any], call: Mapping[str, Any]) -> CallOptions:
    """Merge a session's options with a call's and check them; neither mapping is changed.

    Each is brought to one set of names first, so a call's `num_predict` overrides a session's `MAX_NEW_TOKENS`.

    Raises:
        UsageError: an option is not offered, or its value has the wrong type.
    """
    session_fields, session_native = _read(session)
    call_fields, call_native = _read(call)
    fields = session_fields | call_fields
    native = {name: value for name, value in (session_native | call_native).items() if value is not None}
    timeout_set = "stream_timeout" in fields
    timeout_s, system, stream = (fields.pop(name, None) for name in ("stream_timeout", "system", "stream"))
    fields["stop"] = tuple(fields.get("stop") or ())
    return CallOptions(Options(**fields, native=native), system or "", bool(stream), timeout_s, timeout_set)


def _read(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that are set, and the options that only the server knows."""
    options = dict(given)
    extra = options.pop("extra_body", None)
    if not isinstance(extra, Mapping | None):
        raise UsageError(f"the model option 'extra_body' must be a dict, not {type(extra).__name__}")
    options |= extra or {}
    known = {name: value for name, value in options.items() if name in _KNOWN}
    native = {name: value for name, value in options.items() if name not in _KNOWN and _is_native(name, value)}
    try:
        return _KnownOptions.model_validate(known).model_dump(exclude_unset=True), native
    except ValidationError as error:
        problems = error.errors(include_url=False)
        name, *inside = problems[0]["loc"]
        place = "".join(f"[{index}]" for index in inside if isinstance(index, int))
        wanted = " or ".join(dict.fromkeys(one["msg"].removeprefix("Input should be ") for one in problems))
        got = problems[0]["input"]
        raise UsageError(f"the model option {_shown(str(name))}{place} must be {wanted}, not {got!r}") from None


def _is_native(name: Any, value: Any) -> bool:
    if not isinstance(name, str):
        raise UsageError(f"a model option's name must be a str, not {name!r}")
    if name in _NOT_OFFERED:
        if value:
            raise UsageError(f"the model option {_shown(name)} is not offered: sessions have neither tools nor logits")
        return False
    if name == "model":
        raise UsageError("the model cannot be set as an option", hint="name it in start_session(model_id=...)")
    if name.startswith("@@@"):
        raise UsageError(f"there is no model option {name!r}", hint="the names are those of ModelOption")
    return True


def _shown(name: str) -> str:
    """The name as the caller wrote it."""
    names = {value: f"ModelOption.{key}" for key, value in vars(ModelOption).items() if key.isupper()}
    return names[name] if name.startswith("@@@") else repr(name)
