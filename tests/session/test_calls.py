"""Calls that take turns, and the context they leave behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

from loopback import ModelServer
from loopback.replies import default_reply
from mellea_cli import ChatContext, MelleaSession, ModelOutputThunk, wait_for_all_mots

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]


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
