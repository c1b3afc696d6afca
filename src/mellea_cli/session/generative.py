"""Functions whose body is the model: the signature says what goes in and what comes out, the docstring what to do."""

from __future__ import annotations

import functools
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from mellea_cli.errors import RequirementFailed
from mellea_cli.messages import Completion, GenerateRequest
from mellea_cli.pipelines.pipeline import OutputType, compact_json
from mellea_cli.requirements.requirement import Answered, Requirement, ValidationResult, reqify
from mellea_cli.session.calls import DEFAULT_STRATEGY, Call, Requirements
from mellea_cli.session.components import as_text
from mellea_cli.session.sampling import SamplingStrategy
from mellea_cli.session.session import MelleaSession, resolved
from mellea_cli.session.session_options import ModelOptions
from mellea_cli.session.thunk import ModelOutputThunk

R_co = TypeVar("R_co", covariant=True)

_TAKEN = frozenset(
    {
        "m",
        "context",
        "backend",
        "model_options",
        "strategy",
        "precondition_requirements",
        "requirements",
        "f_args",
        "f_kwargs",
    }
)


class PreconditionException(RequirementFailed):
    """The arguments of a generative function do not meet its preconditions; the model was not asked.

    Attributes:
        validation: the verdict on every precondition, in their order.
    """

    kind = "precondition"

    def __init__(self, message: str, validation_results: Sequence[ValidationResult]) -> None:
        super().__init__(message)
        self.validation = list(validation_results)


class Generative(Protocol[R_co]):
    """What `generative` makes of a function that returns `R_co` (of an `async def`: its coroutine)."""

    __name__: str

    def __call__(
        self,
        m: MelleaSession,
        /,
        *args: Any,
        requirements: Requirements | None = None,
        precondition_requirements: Requirements | None = None,
        strategy: SamplingStrategy | None = DEFAULT_STRATEGY,
        model_options: ModelOptions | None = None,
        **kwargs: Any,
    ) -> R_co:
        """Ask the model for the function's value."""


def generative(function: Callable[..., R_co]) -> Generative[R_co]:
    """Make a function of which the model is the body.

    Calling it takes a session first, then the function's own arguments, by place or by name: `f(m, "text")`. A `def`
    gives a function that waits for the answer, an `async def` one that is awaited. What comes back is of the return
    annotation's type: anything that pydantic can describe, `None` included; without an annotation, any JSON value.

    Four names are taken beside the function's own: `requirements` (what must hold for the answer),
    `precondition_requirements` (what must hold for the arguments), `strategy` (rejection sampling with a budget of 2
    by default; `None` asks once and checks nothing but the type) and `model_options`.

    The new function raises `PreconditionException` when a precondition fails, `ParseError` with the raw text when no
    answer is of the type, `BackendError` when the server fails, and `TypeError` for arguments that do not fit.

    Raises:
        ValueError: a parameter has one of the names that are taken.
    """
    signature = inspect.signature(function)
    if taken := sorted(_TAKEN & signature.parameters.keys()):
        raise ValueError(f"{function.__name__} uses disallowed parameter names: {', '.join(taken)}")
    stub = Stub(function, signature)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            return await stub.bind(args, kwargs).aresult()

        return cast("Generative[R_co]", asynchronous)

    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        return stub.bind(args, kwargs).result()

    return cast("Generative[R_co]", synchronous)


@dataclass(frozen=True)
class Stub:
    """A function that has no body but the model.

    Args:
        function: what was decorated.
        signature: its signature.
    """

    function: Callable[..., Any]
    signature: inspect.Signature

    @functools.cached_property
    def output(self) -> OutputType:
        """The answer's type: a JSON object with the one field `result`."""
        from pydantic import Field, create_model

        name = self.function.__name__
        result = Field(description=f"what the function {name} returns")
        title = "".join(part.capitalize() for part in name.split("_")) + "Response"
        return OutputType(create_model(title, result=(self._returned(), result)))

    def _returned(self) -> Any:
        """The return annotation; any value when there is none, or when its names are not known."""
        try:
            returned = inspect.signature(self.function, eval_str=True).return_annotation
        except (NameError, TypeError, SyntaxError):
            returned = self.signature.return_annotation
        return Any if returned is inspect.Signature.empty or isinstance(returned, str) else returned

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StubCall:
        """Read one call's arguments. Raises `TypeError` when they do not fit."""
        name, given = self.function.__name__, dict(kwargs)
        session = given.pop("m", None) or (args[0] if args else None)
        if not isinstance(session, MelleaSession):
            raise TypeError(f"{name}() takes a session first: {name}(m, ...)")
        own = args if "m" in kwargs else args[1:]
        requirements, preconditions = given.pop("requirements", None), given.pop("precondition_requirements", None)
        strategy, options = given.pop("strategy", DEFAULT_STRATEGY), given.pop("model_options", None)
        try:
            bound = self.signature.bind(*own, **given)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        bound.apply_defaults()
        said = StubText(self.function, self.signature, bound.arguments, _reqified(requirements))
        return StubCall(self, session, said, _reqified(preconditions), strategy, options)


def _reqified(given: Requirements | None) -> tuple[Requirement, ...]:
    return tuple(reqify(one) for one in given or ())


@dataclass(frozen=True, eq=False)
class StubText:
    """A generative function's call as the model reads it."""

    function: Callable[..., Any]
    signature: inspect.Signature
    arguments: Mapping[str, Any]
    requirements: tuple[Requirement, ...] = ()
    _said: dict[str, str] = field(default_factory=dict)

    def pending(self) -> list[ModelOutputThunk]:
        """The arguments that are thunks whose answers do not stand yet."""
        return [one for one in self.arguments.values() if isinstance(one, ModelOutputThunk) and one.text is None]

    def text(self) -> str:
        """The task, the signature with its docstring, what must hold, and the arguments."""
        docstring = inspect.cleandoc(self.function.__doc__ or "")
        conditions = [one.description for one in self.requirements if one.description and not one.check_only]
        if conditions:
            docstring += "\n\nPostconditions:\n" + "\n".join(f"- {condition}" for condition in conditions)
        body = textwrap.indent(f'"""{docstring.strip()}"""' if docstring else "...", "    ")
        return (
            "Act as the Python function below: work out what it returns for the arguments given, and answer with that"
            " alone, as JSON with the one field result.\n\n"
            f"def {self.function.__name__}{self._signature()}:\n{body}\n\n"
            f"Arguments:\n{self.argument_lines()}"
        )

    def argument_lines(self) -> str:
        """One line for each argument: its name, its value and its type."""
        lines = [f"- {name}: {_shown(value)}  (type: {self._type(name)})" for name, value in self.arguments.items()]
        return "\n".join(lines) or "(none)"

    def _signature(self) -> str:
        parameters = [one.replace(annotation=_bare(one.annotation)) for one in self.signature.parameters.values()]
        returned = _bare(self.signature.return_annotation)
        return str(self.signature.replace(parameters=parameters, return_annotation=returned))

    def _type(self, name: str) -> str:
        annotation = self.signature.parameters[name].annotation
        if annotation is inspect.Parameter.empty:
            return type(self.arguments[name]).__name__
        return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


class _Bare(str):
    """An annotation that is a str, shown without quotes: postponed annotations are nothing else."""

    __slots__ = ()

    __repr__ = str.__str__


def _bare(annotation: Any) -> Any:
    return _Bare(annotation) if isinstance(annotation, str) else annotation


def _shown(value: Any) -> str:
    if isinstance(value, ModelOutputThunk):
        value = value.text or ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else as_text(value)


@dataclass(frozen=True, slots=True)
class StubCall:
    """One call of a generative function."""

    stub: Stub
    session: MelleaSession
    said: StubText
    preconditions: tuple[Requirement, ...]
    strategy: SamplingStrategy | None
    model_options: ModelOptions | None

    def result(self) -> Any:
        """Wait for the value in this thread."""
        for thunk in self.said.pending():
            thunk.wait()
        if self.preconditions:
            self._accept(self.session.validate(self.preconditions, output=self.said.argument_lines()))
        thunk = self._fired()
        thunk.wait()
        return thunk.parsed_repr.result

    async def aresult(self) -> Any:
        """Wait for the value; cancelling this gives the generation up."""
        self.session.warn_of_stale_context()
        for thunk in self.said.pending():
            await thunk
        if self.preconditions:
            self._accept(await self.session.avalidate(self.preconditions, output=self.said.argument_lines()))
        thunk = await resolved(self._fired())
        return thunk.parsed_repr.result

    def _fired(self) -> ModelOutputThunk:
        options = self.session.options(self.model_options)
        return self.session.calls.fire(
            Call(self.said, options, self.stub.output, self.strategy, self.said.requirements, _result_subject)
        )

    def _accept(self, verdicts: Sequence[ValidationResult]) -> None:
        failed = [
            verdict.reason or requirement.description or "a precondition does not hold"
            for requirement, verdict in zip(self.preconditions, verdicts, strict=True)
            if not verdict
        ]
        if failed:
            name = self.stub.function.__name__
            raise PreconditionException(f"the preconditions of {name}() do not hold: {'; '.join(failed)}", verdicts)


def _result_subject(request: GenerateRequest, completion: Completion, value: Any) -> Answered:  # noqa: ARG001 - SubjectOf's signature
    """What validators are given: the value itself, a str as it is and anything else as JSON."""
    result = value.result
    if isinstance(result, str):
        return Answered(result, result, request.messages)
    plain = value.model_dump(mode="json")["result"]
    return Answered(compact_json(plain), result, request.messages)
