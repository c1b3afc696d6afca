"""A session's methods, sync and async alike."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from pydantic import BaseModel

from loopback import ModelServer, faults
from loopback.replies import default_reply
from mellea_cli import (
    ChatContext,
    Instruction,
    MelleaSession,
    Message,
    ModelOption,
    RejectionSamplingStrategy,
    SimpleContext,
    ValidationResult,
    req,
    simple_validate,
)
from mellea_cli.errors import TemplateError, UsageError

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]

REPLY = default_reply("", None)
TWINS = ("instruct", "act", "chat", "query", "transform", "validate")


@dataclass
class Order:
    """Something to ask about."""

    number: int


class Mood(BaseModel):
    """Something to ask for."""

    mood: str


@pytest.mark.parametrize("name", TWINS)
def test_twins_take_the_same(name: str) -> None:
    """A method and its async twin have the same parameters, but for `await_result`."""
    sync = inspect.signature(getattr(MelleaSession, name)).parameters
    other = dict(inspect.signature(getattr(MelleaSession, f"a{name}")).parameters)
    other.pop("await_result", None)
    assert [(one.name, one.default, one.kind) for one in sync.values()] == [
        (one.name, one.default, one.kind) for one in other.values()
    ]


async def test_twins_give_the_same(m: MelleaSession) -> None:
    """Each method and its twin give the same answer, on a thread and in a loop."""
    sync = await asyncio.to_thread(
        lambda: (
            m.instruct("Hi.").value,
            m.act("Hi.").value,
            m.chat("Hi."),
            m.query(Order(1), "Which?").value,
            m.transform({"a": 1}, "Double it.").value,
        )
    )
    thunks = [await m.ainstruct("Hi."), await m.aact("Hi.")]
    last = [await m.aquery(Order(1), "Which?"), await m.atransform({"a": 1}, "Double it.")]
    texts = [await thunk.avalue() for thunk in (*thunks, *last)]
    assert sync == (texts[0], texts[1], await m.achat("Hi."), texts[2], texts[3])
    assert sync[2] == Message("assistant", REPLY)
    assert str(sync[2]) == REPLY


def test_objects_reach_the_model_as_text(m: MelleaSession, server: ModelServer) -> None:
    """`query` and `transform` show the object and the question in one message."""
    m.query(Order(17), "Which number?")
    m.transform(Mood(mood="glad"), "Cheer up.")
    asked, changed = (body["messages"][0]["content"] for body in server.state.bodies)
    assert '"number": 17' in asked
    assert "Which number?" in asked
    assert '"mood": "glad"' in changed


def test_act_says_what_it_is_given(m: MelleaSession, server: ModelServer) -> None:
    """Instructions with their requirements, messages with their role, thunks with their text."""
    never = req("Never.", simple_validate(lambda text: False))
    strategy = RejectionSamplingStrategy(loop_budget=2)
    assert m.act(Instruction("Say it.", requirements=[never]), strategy=strategy).attempts == 2
    m.act(Message("tool", "42"))
    m.act(m.instruct("Say MARK-1."))
    contents = [(body["messages"][0]["role"], body["messages"][0]["content"]) for body in server.state.bodies]
    assert contents[2] == ("tool", "42")
    assert contents[4] == ("user", default_reply("MARK-1", None))


async def test_misuse_is_an_error_at_the_call(m: MelleaSession, server: ModelServer) -> None:
    """What can be seen to be wrong is raised where the call is, and nothing is sent."""
    with pytest.raises(ValueError, match="needs a strategy"):
        await m.ainstruct("Hi.", strategy=None, return_sampling_results=True)
    with pytest.raises(ValueError, match="checked by a strategy"):
        await m.aact("Hi.", requirements=["Short."])
    with pytest.raises(TemplateError, match="missing"):
        await m.ainstruct("{{missing}}", user_variables={})
    with pytest.raises(UsageError):
        await m.ainstruct("Hi.", model_options={ModelOption.TOOLS: [print]})
    with pytest.raises(TypeError):
        m.chat(7)
    assert server.state.requests == 0


async def test_grounding_thunks_are_awaited_first_and_side_by_side(serve: Serve, open_session: Open) -> None:
    """Thunks in the grounding context and in the variables are resolved before the call that needs them."""
    server = serve(latency_s=0.2)
    m = open_session(server)
    first, second = await m.ainstruct("Say MARK-1."), await m.ainstruct("Say MARK-2.")
    both = await m.ainstruct("Join {{other}}.", grounding_context={"one": first}, user_variables={"other": second})
    assert not first.is_computed()
    await both
    prompt = server.state.bodies[2]["messages"][0]["content"]
    assert f"[one] = {first.value}" in prompt
    assert f"Join {second.value}." in prompt
    assert server.state.max_in_flight == 2


async def test_a_failed_thunk_fails_what_was_built_on_it(serve: Serve, open_session: Open) -> None:
    """The dependent call raises the first one's error and sends nothing."""
    server = serve(fault=faults.always(faults.status(400)))
    m = open_session(server)
    first = await m.ainstruct("Say MARK-1.")
    second = await m.ainstruct("Go on.", grounding_context={"one": first})
    with pytest.raises(Exception, match="400") as failed:
        await second.avalue()
    assert failed.value is first.error
    assert server.state.requests == 1


def test_a_chat_remembers_and_a_window_forgets(serve: Serve, open_session: Open) -> None:
    """A ChatContext shows the turns before, up to its window."""
    server = serve()
    m = open_session(server, ctx=ChatContext(window_size=2))
    for number in range(3):
        m.chat("Say {{n}}.", user_variables={"n": f"MARK-{number}"})
    assert [len(body["messages"]) for body in server.state.bodies] == [1, 3, 3]
    assert server.state.bodies[2]["messages"][0]["content"] == "Say MARK-1."


def test_sync_calls_on_a_chat_context_do_not_warn(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning is about async calls."""
    with caplog.at_level(logging.WARNING, "mellea_cli"):
        open_session(serve(), context_type="chat").chat("Hi.")
    assert not caplog.records


def test_a_failed_call_leaves_the_context_as_it_was(serve: Serve, open_session: Open) -> None:
    """Only turns that succeeded are remembered, and the next call still gets its turn."""
    server = serve(fault=lambda call: faults.status(400) if "MARK-1" in call.prompt else None)
    m = open_session(server, ctx=ChatContext())
    m.chat("Say MARK-0.")
    with pytest.raises(Exception, match="400"):
        m.chat("Say MARK-1.")
    assert len(m.ctx.as_list()) == 2
    m.chat("Say MARK-2.")
    assert len(m.ctx.as_list()) == 4


async def test_a_call_of_the_old_context_leaves_no_trace_in_the_new(serve: Serve, open_session: Open) -> None:
    """`reset` while a call runs: its turn belongs to what was forgotten."""
    server = serve(latency_s=0.2)
    m = open_session(server, ctx=ChatContext(window_size=9))
    thunk = await m.ainstruct("Say something.")
    await server.until(lambda state: state.in_flight == 1)
    m.reset()
    await thunk
    assert m.ctx.is_root_node
    assert isinstance(m.ctx, ChatContext)
    assert m.ctx.window_size == 9


async def test_a_turn_whose_thunk_was_dropped_is_still_taken(serve: Serve, open_session: Open) -> None:
    """On a ChatContext the session itself needs every answer, also one whose thunk was dropped."""
    server = serve(latency_s=0.05)
    m = open_session(server, ctx=ChatContext())
    await m.ainstruct("Remember MARK-1.")
    await m.achat("What was it?")
    assert server.state.completed == 2
    assert len(m.ctx.as_list()) == 4


async def test_a_validator_may_call_its_own_session(serve: Serve, open_session: Open) -> None:
    """An async validator that asks through the session it judges for does not wait for itself."""
    server = serve()
    m = open_session(server, ctx=ChatContext())

    async def ask(text: str) -> bool:
        return "waits" in str(await m.achat("Is it good?"))

    thunk = await m.ainstruct("Say something.", requirements=[req("Good.", simple_validate(ask))])
    assert await asyncio.wait_for(thunk.avalue(), 20) == REPLY
    assert server.state.requests == 2


def test_a_sync_call_in_a_validator_is_refused(m: MelleaSession, server: ModelServer) -> None:
    """It would wait for its own thread; the verdict carries the error, which says what to do."""
    result = m.instruct(
        "Say something.",
        requirements=[req("Good.", simple_validate(lambda text: m.instruct("Good?").value == "yes"))],
        return_sampling_results=True,
    )
    verdict = result.result_validations[0][1]
    assert isinstance(verdict.error, RuntimeError)
    assert "await the a-method" in str(verdict.error)
    assert server.state.requests == 2  # the two attempts at the answer; nothing was sent by the validator


async def test_validate_checks_without_changing_anything(serve: Serve, open_session: Open) -> None:
    """Verdicts come in order, on a text, a thunk or the last answer; plain sentences go to the judge."""
    server = serve(reply=lambda prompt, schema: "yes" if "polite" in prompt else "no")
    m = open_session(server)
    thunk = await m.ainstruct("Say something.")
    await thunk
    before = m.ctx
    long = req("Long.", simple_validate(lambda text: (len(text) > 10, "too short")))
    verdicts = await m.avalidate(["It is polite.", long, "It rhymes."])
    assert [bool(one) for one in verdicts] == [True, False, False]
    assert verdicts[1].reason == "too short"
    assert [bool(one) for one in await m.avalidate(long, output="A longer text.")] == [True]
    assert [bool(one) for one in m.validate(long, output=thunk)] == [False]
    assert m.ctx is before


def test_last_prompt_is_what_was_sent(serve: Serve, open_session: Open) -> None:
    """The conversation of the last answer, system message included; nothing before the first."""
    server = serve()
    m = open_session(server, model_options={ModelOption.SYSTEM_PROMPT: "Be brief."})
    assert m.last_prompt() is None
    m.instruct("Hi.")
    assert m.last_prompt() == server.state.bodies[0]["messages"]
    m.reset()
    assert m.last_prompt() is None


def test_clones_part_and_close_for_themselves(serve: Serve, open_session: Open) -> None:
    """A clone starts from the same context; closing one of the two leaves the other usable."""
    m = open_session(serve(), ctx=ChatContext())
    m.chat("First.")
    with m.clone() as twin:
        assert twin.id != m.id
        assert twin.ctx is m.ctx
        twin.chat("Second.")
    assert (len(m.ctx.as_list()), len(twin.ctx.as_list())) == (2, 4)
    assert m.chat("Third.") == Message("assistant", REPLY)


def test_the_thunk_tells_what_its_answer_cost(m: MelleaSession) -> None:
    """Model, usage, finish reason, times and attempts are there when the answer is complete."""
    thunk = m.instruct("Say something please.")
    assert (thunk.model, thunk.finish_reason, thunk.attempts, thunk.cancelled) == ("test-model", "stop", 1, False)
    assert thunk.usage is not None
    assert thunk.usage.prompt_tokens == 3
    assert thunk.usage.completion_tokens > 0
    assert thunk.first_token_s is not None
    assert thunk.total_s is not None
    assert 0 < thunk.first_token_s <= thunk.total_s


async def test_a_stream_timeout_ends_a_stall(serve: Serve, open_session: Open) -> None:
    """`STREAM_TIMEOUT` bounds the wait for a piece of one call; the text so far is kept."""
    server = serve(fault=faults.always(faults.stall(2)))
    m = open_session(server, max_retries=0)
    thunk = await m.ainstruct("Say something.", model_options={ModelOption.STREAM_TIMEOUT: 0.2})
    with pytest.raises(Exception, match="stalled") as stalled:
        await thunk.avalue()
    assert REPLY.startswith(stalled.value.partial)
    assert stalled.value.partial


def test_verdicts_of_a_validator_that_raises(m: MelleaSession) -> None:
    """An exception in a validator is a failed verdict with the error, not the end of the call."""

    def broken(ctx: SimpleContext) -> ValidationResult:
        raise KeyError("oops")

    result = m.instruct("Hi.", requirements=[req("Fine.", broken)], return_sampling_results=True)
    assert not result.success
    assert isinstance(result.result_validations[0][1].error, KeyError)
