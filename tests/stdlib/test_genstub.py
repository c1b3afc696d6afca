"""Functions whose body is the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from loopback import ModelServer, faults
from loopback.replies import default_reply
from mellea_cli import (
    ChatContext,
    MelleaSession,
    PreconditionException,
    RejectionSamplingStrategy,
    ValidationResult,
    check,
    generative,
    req,
    simple_validate,
)
from mellea_cli.errors import ParseError
from mellea_cli.stdlib.context import Context

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]


class Place(BaseModel):
    """A pydantic model."""

    name: str
    size: int | None = None


def answering(value: Any) -> Callable[..., str]:
    """A server's reply with this result."""
    return lambda prompt, schema: json.dumps({"result": value})


CASES: list[tuple[Any, Any, Any]] = [
    (str, "", ""),
    (int, 0, 0),
    (float, 0.5, 0.5),
    (bool, False, False),
    (None, None, None),
    (str | None, None, None),
    (Literal["positive", "negative", "mixed"], "mixed", "mixed"),
    (list[int], [], []),
    (list[Place], [{"name": "a", "size": 1}], [Place(name="a", size=1)]),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (Place, {"name": "a", "size": None}, Place(name="a")),
    (tuple[int, str], [1, "a"], (1, "a")),
    (Any, {"free": [1]}, {"free": [1]}),
]


@pytest.mark.parametrize(("returned", "sent", "expected"), CASES, ids=[str(case[0]) for case in CASES])
def test_any_type_that_pydantic_can_describe(
    serve: Serve, open_session: Open, returned: Any, sent: Any, expected: Any
) -> None:
    """The answer comes back as the annotation says, falsy values included, after one request."""

    def work(text: str) -> Any:
        """Work it out."""

    work.__annotations__["return"] = returned
    server = serve(reply=answering(sent))
    value = generative(work)(open_session(server), "x")
    assert value == expected
    assert type(value) is type(expected)
    assert server.state.requests == 1


def test_an_unknown_annotation_takes_any_value(serve: Serve, open_session: Open) -> None:
    """A name that cannot be resolved, or no annotation at all, is no error."""

    def unknown(text: str) -> Nowhere:  # noqa: F821 - what is tested
        """Work it out."""

    def bare(text):
        """Work it out."""

    m = open_session(serve(reply=answering([1, "a"])))
    assert generative(unknown)(m, "x") == [1, "a"]
    assert generative(bare)(m, "x") == [1, "a"]


def test_the_prompt_shows_signature_docstring_defaults_and_arguments(m: MelleaSession, server: ModelServer) -> None:
    """The model is shown the function as Python, its conditions, and every argument, filled-in defaults included."""

    @generative
    def sort_out(text: str, place: Place, *, deep: bool = True) -> str:
        """Sort the text out.

        Take care.
        """

    sort_out(
        m,
        'say "hi" {{x}}',
        Place(name="Köln"),
        requirements=[req("It is short.", simple_validate(lambda text: True)), check("hid", lambda _: True)],
    )
    prompt = server.state.bodies[0]["messages"][0]["content"]
    assert "def sort_out(text: str, place: Place, *, deep: bool = True) -> str:\n" in prompt
    assert '    """Sort the text out.\n\n    Take care.\n\n    Postconditions:\n    - It is short."""\n' in prompt
    assert "hid" not in prompt
    assert '- text: "say \\"hi\\" {{x}}"  (type: str)' in prompt
    assert '"name": "Köln"' in prompt
    assert "- deep: true  (type: bool)" in prompt


def test_the_name_the_docstring_and_the_original_are_kept() -> None:
    """A stub looks like the function it was made of."""

    @generative
    def count(text: str) -> int:
        """Count."""

    assert (count.__name__, count.__doc__) == ("count", "Count.")
    assert count.__wrapped__("x") is None


@pytest.mark.parametrize("name", ["m", "context", "backend", "model_options", "strategy", "requirements", "f_args"])
def test_names_that_are_taken_are_refused(name: str) -> None:
    """A parameter with a reserved name is refused where the function is decorated."""
    space: dict[str, Any] = {}
    exec(f"def work({name}): ...", space)  # noqa: S102 - eight functions that differ in a name
    with pytest.raises(ValueError, match="disallowed parameter names"):
        generative(space["work"])


def test_wrong_calls_say_what_is_wrong(m: MelleaSession) -> None:
    """No session, a missing and an unknown argument are each a TypeError that names the function."""

    @generative
    def count(text: str) -> int:
        """Count."""

    with pytest.raises(TypeError, match=r"count\(\) takes a session first"):
        count("x")
    with pytest.raises(TypeError, match=r"count\(\): missing a required argument: 'text'"):
        count(m)
    with pytest.raises(TypeError, match=r"count\(\): got an unexpected keyword argument 'more'"):
        count(m, "x", more=1)
    assert count(m=m, text="x") == 1


async def test_async_stubs_run_side_by_side(serve: Serve, open_session: Open) -> None:
    """An `async def` gives a coroutine function; many can be gathered."""

    @generative
    async def mood(text: str) -> str:
        """Name the mood."""

    server = serve(latency_s=0.2)
    m = open_session(server)
    assert len(await asyncio.gather(*(mood(m, text=f"MARK-{number}") for number in range(4)))) == 4
    assert server.state.max_in_flight == 4


async def test_cancelling_an_async_stub_closes_its_connection(serve: Serve, open_session: Open) -> None:
    """No one else can want the answer."""

    @generative
    async def mood(text: str) -> str:
        """Name the mood."""

    server = serve(fault=faults.always(faults.stall(1)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(mood(open_session(server), text="x"), 0.3)
    await server.until(lambda state: state.disconnects == 1)


async def test_a_thunk_may_be_an_argument(serve: Serve, open_session: Open) -> None:
    """A thunk that is not complete is awaited, and the model is shown its text."""

    @generative
    async def mood(text: str) -> str:
        """Name the mood."""

    server = serve(latency_s=0.1)
    m = open_session(server)
    thunk = await m.ainstruct("Say MARK-7.")
    await mood(m, thunk)
    assert "The customer writes MARK-7 and waits." in server.state.bodies[1]["messages"][0]["content"]


def test_parse_failures_end_in_an_error_with_the_raw_text(serve: Serve, open_session: Open) -> None:
    """After the budget the parse error carries what the model said; `strategy=None` asks once only."""

    @generative
    def count(text: str) -> int:
        """Count."""

    server = serve(fault=faults.always(faults.says('{"result": "many"}')))
    m = open_session(server)
    with pytest.raises(ParseError, match="result") as bad:
        count(m, "x", strategy=RejectionSamplingStrategy(loop_budget=3))
    assert (bad.value.text, bad.value.attempts, server.state.requests) == ('{"result": "many"}', 3, 3)
    with pytest.raises(ParseError):
        count(m, "x", strategy=None)
    assert server.state.requests == 4


def test_requirements_see_the_value(serve: Serve, open_session: Open) -> None:
    """Validators are given a str as it is and anything else as JSON; a bad value is asked for again."""
    seen: list[str] = []

    def note(text: str) -> bool:
        seen.append(text)
        return len(seen) > 1

    @generative
    def mood(text: str) -> Literal["good", "bad"]:
        """Name the mood."""

    @generative
    def places(text: str) -> list[Place]:
        """Name the places."""

    wanted = [req("Noted.", simple_validate(note))]
    m = open_session(serve(reply=answering("good")))
    assert mood(m, "x", requirements=wanted) == "good"
    assert seen == ["good", "good"]
    m = open_session(serve(reply=answering([{"name": "a", "size": 1}])))
    assert places(m, "x", requirements=wanted) == [Place(name="a", size=1)]
    assert seen[2:] == ['[{"name":"a","size":1}]']


def test_preconditions_come_before_the_model(m: MelleaSession, server: ModelServer) -> None:
    """Arguments that break a precondition are an error with all verdicts, and nothing is asked."""

    @generative
    def mood(text: str) -> str:
        """Name the mood."""

    conditions = [
        check("any", simple_validate(lambda text: True)),
        check("short", simple_validate(lambda text: (len(text) < 50, "it is too long"))),
    ]
    with pytest.raises(PreconditionException, match="too long") as broken:
        mood(m, "x" * 60, precondition_requirements=conditions)
    assert [bool(verdict) for verdict in broken.value.validation] == [True, False]
    assert server.state.requests == 0
    mood(m, "x", precondition_requirements=conditions)
    assert server.state.requests == 1


async def test_a_stub_s_turn_is_part_of_a_chat(serve: Serve, open_session: Open) -> None:
    """On a ChatContext the call and its answer are remembered as a turn."""

    @generative
    async def mood(text: str) -> str:
        """Name the mood."""

    server = serve()
    m = open_session(server, ctx=ChatContext())
    await mood(m, "x")
    await m.achat("And now?")
    assert [message["role"] for message in server.state.bodies[1]["messages"]] == ["user", "assistant", "user"]


def test_a_return_annotation_that_json_cannot_hold_is_refused_where_it_stands() -> None:
    """At decoration, in one line that names the function."""
    for annotation in (ModelServer, 5, "dict["):

        def load(text: str) -> None:
            """Load it."""

        load.__annotations__["return"] = annotation
        with pytest.raises(TypeError, match=r"load\(\) cannot return") as refused:
            generative(load)
        assert "\n" not in str(refused.value)
    with pytest.raises(TypeError, match="takes a function"):
        generative(5)  # type: ignore[arg-type]


@generative
def classify(text: str) -> Literal["good", "bad"]:
    """Classify the text."""
    raise NotImplementedError


def test_a_stub_s_validator_gets_the_context(m: MelleaSession) -> None:
    """The same as for `instruct`: the question is before the answer, whose text is the value."""
    seen: list[Any] = []

    def look(context: Context) -> ValidationResult:
        seen.append((context.last_turn(), context.last_output(), len(context.as_list())))
        return ValidationResult(True)

    answer = classify(m, "Fine.", requirements=req("x", look))
    [(turn, output, nodes)] = seen
    assert (output.value, output.parsed_repr, nodes) == (answer, answer, 2)
    assert turn.output is output
    assert output.messages[-1].role == "user"


def test_a_requirement_may_be_one_sentence(serve: Serve, open_session: Open) -> None:
    """It stands in the docstring once, and is judged once."""
    server = serve(reply=lambda prompt, schema: default_reply(prompt, schema) if schema else "yes")
    classify(open_session(server), "Fine.", requirements="It is short.")
    assert server.state.requests == 2
