"""The names under which a caller of the session API sets a model's options."""

from __future__ import annotations


class ModelOption:
    """Keys of `model_options`, the same for every backend.

    A server's own names (`num_predict`, `max_tokens`, `stop`, `top_p`, ...) may be used beside them; where both are
    given in one dict, the key from here counts. An option given with a call beats the session's, and `None` there
    leaves the choice to the server.
    """

    TEMPERATURE = "temperature"
    """How freely to choose among tokens, a float; 0 takes the likeliest."""
    MAX_NEW_TOKENS = "@@@max_new_tokens@@@"
    """At most this many tokens are generated, an int."""
    SYSTEM_PROMPT = "@@@system_prompt@@@"
    """Text of the system message; `None` or empty for no system message."""
    CONTEXT_WINDOW = "@@@context_window@@@"
    """Tokens of prompt and answer together, an int; refused by servers that set it themselves."""
    THINKING = "@@@thinking@@@"
    """Whether a reasoning model reasons first: a bool, or a level such as `"low"`."""
    SEED = "@@@seed@@@"
    """Makes sampling repeatable where the server can, an int."""
    STREAM = "@@@stream@@@"
    """Whether `astream()` hands over pieces as they come; needs `strategy=None`."""
    STREAM_TIMEOUT = "@@@stream_timeout@@@"
    """Seconds until the first and between any two pieces, a float; `None` for no limit. By default 300 and 60."""
    STOP_SEQUENCES = "@@@stop_sequences@@@"
    """Texts that end the answer, a list of str."""

    TOOLS = "@@@tools@@@"
    """Not offered: refused with an error."""
    TOOL_CHOICE = "tool_choice"
    """Not offered: refused with an error."""
    LOGITS = "@@@logits@@@"
    """Not offered: refused with an error."""
    RAW_LOGITS = "@@@raw_logits@@@"
    """Not offered: refused with an error."""
