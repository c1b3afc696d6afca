"""From an item to messages: our own templates, rendered in a sandbox; what users wrote is data and never template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from mellea_cli.errors import TemplateError
from mellea_cli.messages import Message

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment


@dataclass(frozen=True, slots=True)
class Example:
    """One worked example, shown to the model as an earlier turn of the conversation."""

    variables: tuple[tuple[str, Any], ...]
    answer: str


@dataclass(frozen=True)
class Prompt:
    """What one step says to the model.

    Everything but the last user message is the same for every item, byte for byte, so that a server evaluates it once
    and keeps it.

    Args:
        system: the system text; empty for none.
        template: Jinja source of the user message.
        examples: worked examples, in the order in which they are shown.
    """

    system: str
    template: str
    examples: tuple[Example, ...] = ()

    @cached_property
    def prefix(self) -> tuple[Message, ...]:
        """The messages that are the same for every item."""
        messages = [Message("system", self.system)] if self.system else []
        for example in self.examples:
            messages.append(Message("user", render(self.template, dict(example.variables))))
            messages.append(Message("assistant", example.answer))
        return tuple(messages)

    def messages(self, variables: Mapping[str, Any]) -> tuple[Message, ...]:
        """All messages for one item.

        Raises:
            TemplateError: the template names a variable that is not there.
        """
        return (*self.prefix, Message("user", render(self.template, variables)))


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Render one template of ours.

    Values are put in as they are: they are not rendered again and not escaped.

    Raises:
        TemplateError: the source does not parse, or it names a variable that is not in `variables`.
    """
    from jinja2 import TemplateError as JinjaError
    from jinja2 import UndefinedError

    try:
        return _compiled(source).render(variables)
    except UndefinedError as error:
        known = ", ".join(sorted(variables)) or "none"
        raise TemplateError(
            f"the template names a variable that is not there: {error.message}", hint=f"variables given: {known}"
        ) from error
    except JinjaError as error:
        raise TemplateError(f"the template cannot be rendered: {error}") from error


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    template = _environment().from_string(source)
    # Each rendering copies them, and a chain of mappings takes long to copy.
    template.globals = dict(template.globals)
    return template


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Autoescape is for HTML; what is rendered here is read by a model.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters["fence"] = fence
    return environment


def fence(text: str, label: str = "feedback") -> str:
    """Put `text` between marks that it does not contain itself, so that it cannot pretend to end.

    The text stays as it is, letter by letter; the mark gives way.
    """
    mark = label
    while f"<{mark}>" in text or f"</{mark}>" in text:
        mark += "-"
    return f"<{mark}>\n{text}\n</{mark}>"
