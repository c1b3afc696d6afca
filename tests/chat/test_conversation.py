"""How many turns fit, and how tokens are estimated."""

from __future__ import annotations

from mellea_cli.chat.conversation import TokenEstimator, Turn, answer_room, turns_to_hide
from mellea_cli.messages import Usage


def test_the_oldest_turns_leave_first() -> None:
    """As many of the latest turns stay as there is room for."""
    turns = [Turn("a" * 36, "b", usage=Usage(0, 100)) for _ in range(5)]
    one = TokenEstimator().turn(turns[0])
    assert turns_to_hide(turns, 5 * one, TokenEstimator()) == 0
    assert turns_to_hide(turns, 3 * one, TokenEstimator()) == 2
    assert turns_to_hide(turns, 0, TokenEstimator()) == 5
    assert turns_to_hide([], -10, TokenEstimator()) == 0


def test_the_server_s_count_teaches_the_guess() -> None:
    """After the server has counted a long text, a text like it is guessed well."""
    meter, text = TokenEstimator(), "Wörter für Wörter, zählt der Server. " * 30
    meter.learn([text], 500)
    assert abs(meter.tokens(text) - 500) < 25
    before = meter.tokens(text)
    meter.learn(["hi"], 9)
    assert meter.tokens(text) == before


def test_characters_outside_of_ascii_count_more() -> None:
    """Chinese is estimated at about a token per character, not at a fourth."""
    assert TokenEstimator().tokens("你好世界" * 100) > 2 * TokenEstimator().tokens("abcd" * 100)


def test_room_is_kept_for_the_answer() -> None:
    """What the user allows, up to half of the window; else a fourth, at most 1,024."""
    assert answer_room(4096, 200) == 200
    assert answer_room(4096, 9000) == 2048
    assert answer_room(2048, None) == 512
    assert answer_room(100_000, None) == 1024
