"""Contexts: immutable nodes, what the model is shown, and what is kept."""

from __future__ import annotations

import pytest

from mellea_cli import ChatContext, Message, ModelOutputThunk, SimpleContext
from mellea_cli.stdlib.context import Context, ContextTurn


def turns(context: Context, count: int) -> Context:
    """The context after so many turns of ten characters each."""
    for number in range(count):
        context = context.add(Message("user", f"question {number}")).add(ModelOutputThunk(f"answered {number}"))
    return context


def shown(context: Context) -> list[str]:
    """What the model is shown, as texts."""
    return [data.content if isinstance(data, Message) else data.value for data in context.view_for_generation()]


def test_adding_leaves_the_node_before_as_it_was() -> None:
    """Two contexts that part from one node do not see each other."""
    root = ChatContext()
    first = root.add(Message("user", "a"))
    left, right = first.add(ModelOutputThunk("b")), first.add(ModelOutputThunk("c"))
    assert (len(root.as_list()), len(first.as_list())) == (0, 1)
    assert left.last_output() is not right.last_output()
    assert left.previous_node is first
    assert root.is_root_node
    assert first.node_data == Message("user", "a")
    assert type(left) is ChatContext


def test_a_simple_context_keeps_the_last_turn_only() -> None:
    """However many calls there were, one turn is kept, and the model is shown nothing."""
    context = turns(SimpleContext(), 50)
    assert len(context.as_list()) == 2
    assert context.view_for_generation() == []
    turn = context.last_turn()
    assert turn is not None
    assert (turn.model_input, turn.output and turn.output.value) == (Message("user", "question 49"), "answered 49")


def test_a_simple_context_keeps_all_when_asked() -> None:
    """`keep_history` keeps every turn, still without showing it."""
    context = turns(SimpleContext(keep_history=True), 3)
    assert len(context.as_list()) == 6
    assert context.view_for_generation() == []
    fresh = context.reset_to_new()
    assert isinstance(fresh, SimpleContext)
    assert fresh.keep_history


def test_a_chat_context_shows_what_was_said() -> None:
    """Without limits all turns are shown, oldest first."""
    assert shown(turns(ChatContext(), 2)) == ["question 0", "answered 0", "question 1", "answered 1"]


@pytest.mark.parametrize(("window", "expected"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (99, 6)])
def test_a_window_counts_nodes_and_never_begins_with_an_answer(window: int, expected: int) -> None:
    """The last nodes are shown; an answer whose question is outside is left out too."""
    context = turns(ChatContext(window_size=window), 3)
    assert len(shown(context)) == expected
    assert all(text.startswith("question") for text in shown(context)[:1])
    assert len(context.as_list()) == 6


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (4, 0), (5, 2), (9, 2), (10, 4), (15, 6)])
def test_a_token_limit_counts_four_characters_a_token(limit: int, expected: int) -> None:
    """Ten characters a node: 5 tokens show one turn, 10 show two."""
    assert len(shown(turns(ChatContext(token_limit=limit), 3))) == expected


def test_settings_survive_a_reset() -> None:
    """A new context has the limits of the old."""
    fresh = turns(ChatContext(window_size=3, token_limit=7), 2).reset_to_new()
    assert isinstance(fresh, ChatContext)
    assert (fresh.window_size, fresh.token_limit, fresh.is_root_node) == (3, 7, True)


def test_a_negative_limit_is_refused() -> None:
    """Limits below 0 mean nothing."""
    with pytest.raises(ValueError, match="negative"):
        ChatContext(window_size=-1)


def test_looking_back_is_bounded() -> None:
    """`last_output` looks at the last nodes only, and an unfinished turn has no output."""
    context = turns(ChatContext(), 1)
    for _ in range(3):
        context = context.add(Message("user", "again"))
    assert context.last_output() is None
    assert context.last_output(4) is not None
    turn = context.last_turn()
    assert turn is not None
    assert turn.output is None
    assert ChatContext().last_turn() is None
    assert [data.content for data in context.as_list(2)] == ["again", "again"]


def test_a_conversation_that_a_caller_wrote_has_its_last_turn() -> None:
    """An assistant's message counts as an answer: in `last_turn`, `last_output` and for what is shown."""
    question, answer = Message("user", "Where?"), Message("assistant", "Bergen.")
    context = ChatContext().add(question).add(answer)
    turn = context.last_turn()
    assert turn is not None
    assert turn.model_input is question
    assert turn.output is not None
    assert (turn.output.value, turn.output.parsed_repr) == ("Bergen.", answer)
    assert context.last_output().value == "Bergen."  # type: ignore[union-attr]  # there is one
    assert context.view_for_generation() == [question, answer]
    later = context.add(Message("user", "When?")).last_turn()
    assert later == ContextTurn(Message("user", "When?"), None)


def test_a_leading_answer_is_shown_unless_a_limit_cut_the_question_off() -> None:
    """A greeting that begins the conversation is a part of it; half a turn is not."""
    greeting = Message("assistant", "Hello, I am the desk.")
    whole = ChatContext(window_size=3).add(greeting).add(Message("user", "Hi."))
    assert whole.view_for_generation()[0] is greeting
    cut = whole.add(ModelOutputThunk("Yes?")).add(Message("user", "Where?"))
    assert [str(one) for one in cut.view_for_generation()] == ["Hi.", "Yes?", "Where?"]
    assert [str(one) for one in cut.add(ModelOutputThunk("Bergen.")).view_for_generation()] == ["Where?", "Bergen."]


def test_keywords_are_the_reference_s() -> None:
    """Programs that name them run unchanged."""
    context = ChatContext(token_context_length_limit=100).add(c=Message("user", "x"))
    assert context.token_limit == 100
    assert len(context.as_list(last_n_components=1)) == 1
    assert context.last_output(check_last_n_components=2) is None
