"""Generative functions: the signature says what goes in and what comes out, the docstring what the model does."""

from __future__ import annotations

import functools
import inspect
import json
import textwrap
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from mellea_cli.errors import RequirementFailed
from mellea_cli.pipelines.pipeline import OutputType, compact_json
from mellea_cli.requirements.requirement import Requirement, ValidationResult, reqify_all
from mellea_cli.session.session import MelleaSession, ModelOptions
from mellea_cli.session.thunk import ModelOutputThunk
from mellea_cli.stdlib.components import Requirements, as_text, known_text, pending_thunks
from mellea_cli.stdlib.sampling import DEFAULT_STRATEGY, SamplingStrategy

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

# The last four are those of the reference library.
_CALL_ARGUMENTS = {"m", "requirements", "precondition_requirements", "strategy", "model_options"}
_RESERVED = _CALL_ARGUMENTS | {"context", "backend", "f_args", "f_kwargs"}


class PreconditionException(RequirementFailed):
    """The arguments of a generative function do not meet its preconditions; the model was not asked.

    Attributes:
        validation: the verdict on every precondition, in their order.
    """

    kind = "precondition"

    def __init__(self, message: str, validation_results: Sequence[ValidationResult]) -> None:
        super().__init__(message)
        self.validation = list(validation_results)


class Generative(Protocol[P, R_co]):
    """What `generative` makes of a function that returns `R_co` (of an `async def`: its coroutine).

    A type checker knows the function's own parameters. It does not check them in a call with one of the four further
    arguments: no type can say both.
    """

    __name__: str

    @overload
    def __call__(self, m: MelleaSession, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __call__(
        self,
        m: MelleaSession,
        *args: Any,
        requirements: Requirements | None,
        precondition_requirements: Requirements | None = ...,
        strategy: SamplingStrategy | None = ...,
        model_options: ModelOptions | None = ...,
        **kwargs: Any,
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        m: MelleaSession,
        *args: Any,
        precondition_requirements: Requirements | None,
        strategy: SamplingStrategy | None = ...,
        model_options: ModelOptions | None = ...,
        **kwargs: Any,
    ) -> R_co: ...

    @overload
    def __call__(
        self,
        m: MelleaSession,
        *args: Any,
        strategy: SamplingStrategy | None,
        model_options: ModelOptions | None = ...,
        **kwargs: Any,
    ) -> R_co: ...

    @overload
    def __call__(self, m: MelleaSession, *args: Any, model_options: ModelOptions | None, **kwargs: Any) -> R_co: ...


def generative(function: Callable[P, R_co]) -> Generative[P, R_co]:
    """Make a function whose body is the model.

    A call takes a session first, then the function's own arguments, by position or by name: `f(m, "text")`. A `def`
    makes a function that waits for the answer, an `async def` one that is awaited. The value is of the type of the
    return annotation: anything that pydantic can describe, `None` included; without an annotation, any JSON value.

    A call takes four more arguments: `requirements` (what must hold for the answer), `precondition_requirements` (what
    must hold for the arguments), `strategy` (by default rejection sampling with a budget of 2; `None` asks once and
    checks nothing but the type) and `model_options`.

    The new function raises `PreconditionException` when a precondition fails, `ParseError` with the raw text when no
    answer is of the type, `BackendError` when the request fails, and `TypeError` for wrong arguments.

    Raises:
        ValueError: a parameter has a reserved name.
        TypeError: it is no function, or no JSON can stand for its return type.
    """
    if not inspect.isroutine(function):
        raise TypeError(f"generative takes a function, not {function!r}")
    signature = inspect.signature(function)
    if reserved := sorted(_RESERVED & signature.parameters.keys()):
        raise ValueError(f"{function.__name__} uses disallowed parameter names: {', '.join(reserved)}")
    stub = _Stub(function, signature)
    if not isinstance(stub.returned, str):
        # Built now, so that a wrong annotation is an error where it stands.
        _ = stub.output

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            _, value = stub.bind(args, kwargs)
            return await value()

        return cast("Generative[P, R_co]", asynchronous)

    @functools.wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        session, value = stub.bind(args, kwargs)
        return session.run(value)

    return cast("Generative[P, R_co]", synchronous)


@dataclass(frozen=True)
class _Stub:
    function: Callable[..., Any]
    signature: inspect.Signature

    @property
    def returned(self) -> Any:
        """The return annotation; a str while its names cannot be resolved."""
        try:
            return inspect.signature(self.function, eval_str=True).return_annotation
        except (NameError, AttributeError):
            # A name that is defined later, or only for type checkers.
            return self.signature.return_annotation
        except (TypeError, SyntaxError) as error:
            raise self._bad_annotation(self.signature.return_annotation, error) from None

    @functools.cached_property
    def output(self) -> OutputType:
        """The answer's type: a JSON object with the one field `result`.

        Raises:
            TypeError: no JSON can stand for the return type.
        """
        from pydantic import Field, PydanticUserError, create_model

        returned = self.returned
        # Any value, when there is no annotation or its names cannot be resolved.
        kind = Any if returned is inspect.Signature.empty or isinstance(returned, str) else returned
        name = self.function.__name__
        title = "".join(part.capitalize() for part in name.split("_")) + "Response"
        try:
            output = OutputType(
                create_model(title, result=(kind, Field(description=f"what the function {name} returns")))
            )
            _ = output.schema
        except (PydanticUserError, TypeError) as error:
            raise self._bad_annotation(returned, error) from None
        return output

    def _bad_annotation(self, annotation: Any, error: Exception) -> TypeError:
        shown = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        why = str(error).splitlines()[0].split(". ")[0]
        return TypeError(f"{self.function.__name__}() cannot return {shown}: a model answers in JSON ({why})")

    def bind(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[MelleaSession, Callable[[], Coroutine[Any, Any, Any]]]:
        """Read the arguments of a call: the session, and a function that asks the model for the value.

        Raises:
            TypeError: they do not fit the signature.
        """
        name, given = self.function.__name__, dict(kwargs)
        session = given.pop("m", None) or (args[0] if args else None)
        if not isinstance(session, MelleaSession):
            raise TypeError(f"{name}() takes a session first: {name}(m, ...)")
        own = args if "m" in kwargs else args[1:]
        requirements = reqify_all(given.pop("requirements", None))
        preconditions = reqify_all(given.pop("precondition_requirements", None))
        strategy, options = given.pop("strategy", DEFAULT_STRATEGY), given.pop("model_options", None)
        try:
            bound = self.signature.bind(*own, **given)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        bound.apply_defaults()
        prompt = _StubPrompt(self, bound.arguments, requirements)

        async def value() -> Any:
            for thunk in prompt.pending():
                await thunk
            if preconditions:
                verdicts = await session.avalidate(preconditions, output=prompt.argument_lines())
                _check_preconditions(name, preconditions, verdicts)
            answer = session.start(prompt, requirements, strategy, self.output, options, shown=_shown)
            await answer.resolve_or_cancel()
            return answer.parsed_repr.result

        return session, value


@dataclass(frozen=True, eq=False)
class _StubPrompt:
    """The component of a call: the function as Python code, its postconditions and its arguments."""

    stub: _Stub
    arguments: Mapping[str, Any]
    requirements: Sequence[Requirement]

    def pending(self) -> list[ModelOutputThunk]:
        return pending_thunks(*self.arguments.values())

    def text(self) -> str:
        function, signature = self.stub.function, self.stub.signature
        docstring = inspect.cleandoc(function.__doc__ or "")
        conditions = [one.description for one in self.requirements if one.description and not one.check_only]
        if conditions:
            docstring += "\n\nPostconditions:\n" + "\n".join(f"- {condition}" for condition in conditions)
        body = textwrap.indent(f'"""{docstring.strip()}"""' if docstring else "...", "    ")
        parameters = [one.replace(annotation=_unquoted(one.annotation)) for one in signature.parameters.values()]
        returned = _unquoted(signature.return_annotation)
        return (
            "Act as the Python function below: work out what it returns for the arguments given, and answer with that"
            " alone, as JSON with the one field result.\n\n"
            f"def {function.__name__}{signature.replace(parameters=parameters, return_annotation=returned)}:\n"
            f"{body}\n\nArguments:\n{self.argument_lines()}"
        )

    def argument_lines(self) -> str:
        """One line for each argument: its name, its value and its type."""
        lines = []
        for name, given in self.arguments.items():
            value = known_text(given)
            shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else as_text(value)
            annotation = self.stub.signature.parameters[name].annotation
            if annotation is inspect.Parameter.empty:
                annotation = type(given).__name__
            kind = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
            lines.append(f"- {name}: {shown}  (type: {kind})")
        return "\n".join(lines) or "(none)"


class _Unquoted(str):
    __slots__ = ()

    __repr__ = str.__str__


def _unquoted(annotation: Any) -> Any:
    # Postponed annotations are str; a signature shows them in quotes.
    return _Unquoted(annotation) if isinstance(annotation, str) else annotation


def _check_preconditions(name: str, preconditions: Sequence[Requirement], verdicts: Sequence[ValidationResult]) -> None:
    failed = [
        verdict.reason or requirement.description or "a precondition does not hold"
        for requirement, verdict in zip(preconditions, verdicts, strict=True)
        if not verdict
    ]
    if failed:
        raise PreconditionException(f"the preconditions of {name}() do not hold: {'; '.join(failed)}", verdicts)


def _shown(value: Any) -> tuple[str, Any]:
    # Validators are given the value itself: a str as it is, anything else as JSON.
    result = value.result
    return result if isinstance(result, str) else compact_json(value.model_dump(mode="json")["result"]), result
