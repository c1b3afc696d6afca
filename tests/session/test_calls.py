"""Calls: their options on the way to the wire, their turns, and the context they leave behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

import pytest

from loopback import ModelServer
from loopback.replies import default_reply
from mellea_cli import ChatContext, MelleaSession, ModelOption, ModelOutputThunk, wait_for_all_mots
from mellea_cli.errors import UsageError
from mellea_cli.messages import Options
from mellea_cli.session.calls import CallOptions, read_options

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]

EVERY = {
    ModelOption.TEMPERATURE: 0.5,
    ModelOption.MAX_NEW_TOKENS: 7,
    ModelOption.SEED: 3,
    ModelOption.STOP_SEQUENCES: ["END"],
    ModelOption.THINKING: False,
    ModelOption.SYSTEM_PROMPT: "Be brief.",
    "top_p": 0.9,
    "repeat_penalty": 1.1,
}


def shown(server: ModelServer, request: int) -> list[str]:
    """What the model was shown with a request."""
    return [message["content"] for message in server.state.bodies[request]["messages"]]


async def test_a_cancelled_waiter_does_not_let_the_next_one_pass(serve: Serve, open_session: Open) -> None:
    """A runs, B waits and is cancelled: C still waits for A, and is shown A's turn."""
    server = serve(latency_s=0.3)
    m = open_session(server, ctx=ChatContext())
    first = await m.ainstruct("Say MARK-1.", strategy=None)
    waiting = await m.ainstruct("Say MARK-2.", strategy=None)
    await server.until(lambda state: state.in_flight == 1)
    await waiting.cancel_generation()
    assert waiting.cancelled
    assert not first.is_computed()
    last = await m.ainstruct("Say MARK-3.", strategy=None)
    await wait_for_all_mots([first, last])
    assert server.state.max_in_flight == 1
    assert shown(server, 1) == ["Say MARK-1.", default_reply("MARK-1", None), "Say MARK-3."]
    assert len(m.ctx.as_list()) == 4


async def test_a_row_of_cancelled_waiters_keeps_the_order(serve: Serve, open_session: Open) -> None:
    """However many give up, before or after the others were made, those that stay go one by one and in order."""
    server = serve(latency_s=0.2)
    m = open_session(server, ctx=ChatContext())
    thunks = [await m.ainstruct(f"Say MARK-{number}.", strategy=None) for number in range(8)]
    await server.until(lambda state: state.in_flight == 1)
    for number in (5, 2, 1, 7):
        await thunks[number].cancel_generation()
    stayed = [thunks[number] for number in (0, 3, 4, 6)]
    stayed.append(await m.ainstruct("Say MARK-8.", strategy=None))
    await wait_for_all_mots(stayed)
    assert server.state.max_in_flight == 1
    assert [shown(server, request)[-1] for request in range(5)] == [f"Say MARK-{number}." for number in (0, 3, 4, 6, 8)]
    assert [len(shown(server, request)) for request in range(5)] == [1, 3, 5, 7, 9]


async def test_cancelling_the_call_that_runs_gives_its_turn_to_the_next(serve: Serve, open_session: Open) -> None:
    """The next call starts at once, and is shown nothing of the cancelled one."""
    server = serve(latency_s=0.2)
    m = open_session(server, ctx=ChatContext())
    first = await m.ainstruct("Say MARK-1.", strategy=None)
    second = await m.ainstruct("Say MARK-2.", strategy=None)
    await server.until(lambda state: state.in_flight == 1)
    await first.cancel_generation()
    await second
    assert shown(server, 1) == ["Say MARK-2."]
    assert len(m.ctx.as_list()) == 2


def test_a_reset_in_the_middle_of_remembering_wins(serve: Serve, open_session: Open) -> None:
    """A turn that is just being added when another thread resets the session does not come back."""
    growing, reset = threading.Event(), threading.Event()

    class Slow(ChatContext):
        """Grows only when the session has been reset."""

        def add(self, data: Any) -> Self:
            if isinstance(data, ModelOutputThunk) and not reset.is_set():
                growing.set()
                assert reset.wait(10)
            return super().add(data)

    server = serve()
    m = open_session(server, ctx=Slow())
    answers: list[ModelOutputThunk] = []
    caller = threading.Thread(target=lambda: answers.append(m.instruct("Say MARK-1.", strategy=None)))
    caller.start()
    assert growing.wait(10)
    m.reset()
    reset.set()
    caller.join(10)
    assert [answer.value for answer in answers] == [default_reply("MARK-1", None)]
    assert m.ctx.is_root_node
    m.instruct("Say MARK-2.", strategy=None)
    assert shown(server, 1) == ["Say MARK-2."]


def test_every_name_finds_its_field() -> None:
    """Our names, a server's names and unknown names all arrive, and nothing sentinel is left."""
    read = read_options({**EVERY, ModelOption.STREAM: True, ModelOption.CONTEXT_WINDOW: 512}, {})
    expected = Options(0.5, 0.9, 7, 3, ("END",), 512, thinking=False, native={"repeat_penalty": 1.1})
    assert read == CallOptions(expected, "Be brief.", stream=True)


@pytest.mark.parametrize("native", ["num_predict", "max_tokens", "max_completion_tokens"])
def test_a_call_beats_the_session_whatever_name_it_uses(native: str) -> None:
    """Options are brought to one set of names first, then merged."""
    assert read_options({ModelOption.MAX_NEW_TOKENS: 100}, {native: 50}).options.max_tokens == 50
    assert read_options({native: 50}, {ModelOption.MAX_NEW_TOKENS: 100}).options.max_tokens == 100


@pytest.mark.parametrize("order", [1, -1])
def test_within_one_dict_our_name_counts(order: int) -> None:
    """Our name overrides a server's own name, in either order."""
    pairs = [(ModelOption.MAX_NEW_TOKENS, 100), ("num_predict", 50)][::order]
    assert read_options(dict(pairs), {}).options.max_tokens == 100


def test_none_with_a_call_leaves_the_choice_to_the_server() -> None:
    """`None` takes a session's option away, native ones included."""
    session = {**EVERY, ModelOption.STREAM_TIMEOUT: 1.0}
    read = read_options(session, {**dict.fromkeys(EVERY), ModelOption.STREAM_TIMEOUT: None})
    assert read == CallOptions(timeout_set=True)


def test_nothing_handed_in_is_changed() -> None:
    """The caller's dicts and lists stay as they were."""
    session, call = {"extra_body": {"min_p": 0.1}}, dict(EVERY)
    read_options(session, call)
    assert session == {"extra_body": {"min_p": 0.1}}
    assert call == EVERY


def test_an_extra_body_s_entries_are_native_options() -> None:
    """`extra_body` is how the reference passes on what it does not know."""
    assert read_options({"extra_body": {"min_p": 0.1}}, {}).options.native == {"min_p": 0.1}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({ModelOption.TOOLS: [print]}, "ModelOption.TOOLS is not offered"),
        ({"tool_choice": "auto"}, "'tool_choice' is not offered"),
        ({ModelOption.LOGITS: True}, "ModelOption.LOGITS is not offered"),
        ({"model": "other"}, "cannot be set as an option"),
        ({"@@@made_up@@@": 1}, "there is no model option"),
        ({7: 1}, "must be a str"),
        ({ModelOption.MAX_NEW_TOKENS: 0}, "ModelOption.MAX_NEW_TOKENS must be greater than 0, not 0"),
        ({"num_predict": "many"}, "'num_predict' must be a valid integer, not 'many'"),
        ({ModelOption.TEMPERATURE: True}, "'temperature' must be a valid number, not True"),
        ({ModelOption.SEED: 1.5}, "ModelOption.SEED must be a valid integer, not 1.5"),
        ({ModelOption.STOP_SEQUENCES: 1}, "ModelOption.STOP_SEQUENCES must be a valid list, not 1"),
        ({"stop": [1]}, r"'stop'\[0\] must be a valid string, not 1"),
        ({ModelOption.STREAM: "yes"}, "ModelOption.STREAM must be a valid boolean, not 'yes'"),
        ({"extra_body": []}, "must be a dict"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(option: dict[Any, Any], message: str) -> None:
    """The error names the option as the caller wrote it."""
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        read_options({}, option)


def test_tools_that_are_switched_off_are_no_error() -> None:
    """An empty list of tools asks for nothing."""
    assert read_options({ModelOption.TOOLS: [], "tool_choice": None}, {}) == CallOptions()


def test_the_wire_has_every_option_in_its_own_words(m: MelleaSession, server: ModelServer, protocol: str) -> None:
    """Each protocol's body has the options under its own names, and none of the program's."""
    m.instruct("Say something.", model_options=EVERY)
    body = server.state.bodies[0]
    assert "@@@" not in str(body)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    place = body["options"] if protocol == "ollama" else body
    limit = "num_predict" if protocol == "ollama" else "max_tokens"
    assert {name: place[name] for name in (limit, "temperature", "seed", "stop", "top_p", "repeat_penalty")} == {
        limit: 7,
        "temperature": 0.5,
        "seed": 3,
        "stop": ["END"],
        "top_p": 0.9,
        "repeat_penalty": 1.1,
    }
    assert body["think"] is False if protocol == "ollama" else body["reasoning_effort"] == "none"


def test_a_window_goes_where_the_wire_has_a_place_for_it(m: MelleaSession, server: ModelServer, protocol: str) -> None:
    """Ollama takes a context window with the request; the OpenAI protocol has none, and the error says so."""
    if protocol == "ollama":
        m.instruct("Say something.", model_options={ModelOption.CONTEXT_WINDOW: 512})
        assert server.state.bodies[0]["options"] == {"num_ctx": 512}
    else:
        with pytest.raises(UsageError, match="context window"):
            m.instruct("Say something.", model_options={ModelOption.CONTEXT_WINDOW: 512})


def test_a_bad_option_is_refused_where_the_session_starts(open_session: Open, server: ModelServer) -> None:
    """Session options are checked before the first call."""
    with pytest.raises(UsageError):
        open_session(server, model_options={ModelOption.SEED: "x"})


def test_judges_keep_their_own_limits(m: MelleaSession, server: ModelServer, protocol: str) -> None:
    """A judge's question carries neither the caller's length limit and stop words nor its system message."""
    m.instruct("Say something.", requirements=["It is polite."], model_options=EVERY)
    judged = server.state.bodies[1]
    place = judged["options"] if protocol == "ollama" else judged
    assert place.get("num_predict", place.get("max_tokens")) == 16
    assert place["temperature"] == 0.0
    assert "stop" not in place
    assert place["seed"] == 3
    assert [message["role"] for message in judged["messages"]] == ["user"]
