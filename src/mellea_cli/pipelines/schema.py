"""From a Python type to the JSON schema that a server constrains an answer with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mellea_cli.pipelines.parse import from_answer

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# Words for people: they cost tokens in prompts that embed the schema and mean nothing to a grammar.
_ANNOTATIONS = frozenset({"title", "description", "default", "examples"})


@dataclass(frozen=True)
class OutputType:
    """The type of a step's answer: any type that pydantic can describe.

    Args:
        type_: the type, such as a pydantic model, a `Literal` or `list[str]`.
    """

    type_: Any

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Pydantic's validator for the type."""
        from pydantic import TypeAdapter

        return TypeAdapter(self.type_)

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The type's JSON schema, in the strict form that servers ask for."""
        return strict(self.adapter.json_schema())

    def parse(self, text: str) -> Any:
        """Read an answer.

        Raises:
            ParseError: the answer is not JSON, or not of this type; the reason names the field.
        """
        return from_answer(self.adapter, text)


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with every property required, no others allowed, and the words for people left out.

    Servers that constrain their output ask for this form. Properties keep their order, which is the order in which
    the model writes them.
    """
    return {key: _strict_value(key, value) for key, value in _closed(schema).items() if key not in _ANNOTATIONS}


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    closed = dict(schema)
    if isinstance(closed.get("properties"), dict):
        closed["required"] = list(closed["properties"])
        closed["additionalProperties"] = False
    return closed


def _strict_value(key: str, value: Any) -> Any:
    # Below these keys the names are a user's own fields, where "title" is a field and not an annotation.
    if key in {"properties", "$defs"} and isinstance(value, dict):
        return {name: strict(inner) for name, inner in value.items()}
    if isinstance(value, dict):
        return strict(value)
    if isinstance(value, list):
        return [strict(inner) if isinstance(inner, dict) else inner for inner in value]
    return value
