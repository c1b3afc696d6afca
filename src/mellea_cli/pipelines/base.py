"""A pipeline: a named DAG of steps, each one question to the model about an item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mellea_cli.messages import GenerateRequest, Options
from mellea_cli.pipelines.schema import OutputType
from mellea_cli.pipelines.template import Prompt
from mellea_cli.requirements.base import Requirement


@dataclass(frozen=True)
class Step:
    """One question about an item.

    Args:
        name: how events, errors and other steps call it.
        prompt: what is said. Its template sees `text` (the feedback) and the answers of the steps in `needs`.
        output: the answer's type.
        max_tokens: the longest answer in tokens; one that reaches it has failed.
        needs: names of the steps whose answers the template uses; steps that do not need each other run side by side.
        requirements: what must hold for the answer beyond its type.
        last_resort: takes an answer and the item's text, and puts the answer right in code once asking again has not
            helped; what it gives must hold as well.
    """

    name: str
    prompt: Prompt
    output: OutputType
    max_tokens: int
    needs: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    last_resort: Callable[[Any, str], Any] | None = None

    def request(self, model: str, options: Options, variables: Mapping[str, Any]) -> GenerateRequest:
        """The step's first request for one item; `options` come with this step's `max_tokens` already set."""
        return GenerateRequest(model, self.prompt.messages(variables), options, self.output.schema)


@dataclass(frozen=True)
class Column:
    """A column that a pipeline adds to each row; `parts` are the keys of a nested one, in order."""

    name: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """A named DAG of steps and how their answers become columns.

    Args:
        name: what `--pipeline` takes.
        about: one line for the help.
        steps: the steps, each after those it needs.
        columns: the columns it adds, in order.
        assemble: takes the answers by step name, with the item's text under `text`, and gives the columns' values by
            column name.
        empty: the columns' values for an item that has no text; nulls by default.
    """

    name: str
    about: str
    steps: tuple[Step, ...]
    columns: tuple[Column, ...]
    assemble: Callable[[Mapping[str, Any]], dict[str, Any]]
    empty: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a pipeline whose steps need what does not come before them.

        Raises:
            ValueError: a step's name is used twice, or a step needs one that does not come before it.
        """
        before: set[str] = set()
        for step in self.steps:
            if step.name in before:
                raise ValueError(f"pipeline {self.name!r} has two steps named {step.name!r}")
            if missing := set(step.needs) - before:
                raise ValueError(f"step {step.name!r} needs {sorted(missing)}, which do not come before it")
            before.add(step.name)

    @property
    def step_names(self) -> tuple[str, ...]:
        """The steps' names in order."""
        return tuple(step.name for step in self.steps)

    def blank(self) -> dict[str, Any]:
        """The columns of an item that has no text: nothing to ask, so nothing is known."""
        return dict.fromkeys(column.name for column in self.columns) if self.empty is None else dict(self.empty)

    def definition(self) -> dict[str, Any]:
        """Everything about the pipeline that changes its answers, as plain data: what a plan's fingerprint covers."""
        return {
            "pipeline": self.name,
            "steps": [
                {
                    "name": step.name,
                    "system": step.prompt.system,
                    "template": step.prompt.template,
                    "examples": [[list(example.variables), example.answer] for example in step.prompt.examples],
                    "schema": step.output.schema,
                    "max_tokens": step.max_tokens,
                    "needs": list(step.needs),
                    "requirements": [requirement.description for requirement in step.requirements],
                }
                for step in self.steps
            ],
        }
