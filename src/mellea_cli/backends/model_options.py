"""Keys of the session API's `model_options`."""

from __future__ import annotations


class ModelOption:
    """Keys of `model_options`, the same for every backend.

    A server's own names (`num_predict`, `max_tokens`, `stop`, ...) are allowed too; where one dict has both, the key of
    this class wins. An option of a call overrides the session's, and `None` leaves the choice to the server.
    """

    TEMPERATURE = "temperature"  # Sampling temperature, a float; 0 chooses the most likely token
    MAX_NEW_TOKENS = "@@@max_new_tokens@@@"  # Maximum number of generated tokens, an int
    SYSTEM_PROMPT = "@@@system_prompt@@@"  # Text of the system message; `None` or empty for none
    # Tokens of prompt and answer together, an int; an error for servers that set it themselves
    CONTEXT_WINDOW = "@@@context_window@@@"
    THINKING = "@@@thinking@@@"  # Whether a reasoning model reasons first: a bool, or a level such as `"low"`
    SEED = "@@@seed@@@"  # Seed of the sampling, an int; makes answers repeatable where the server supports it
    STREAM = "@@@stream@@@"  # Whether `astream()` yields chunks as they arrive; needs `strategy=None`
    # Maximum seconds before the first and between two chunks, a float; `None` for no limit. By default 300 and 60.
    STREAM_TIMEOUT = "@@@stream_timeout@@@"
    STOP_SEQUENCES = "@@@stop_sequences@@@"  # Texts that end the answer, a list of str

    # Not supported: each of these raises an error.
    TOOLS = "@@@tools@@@"
    TOOL_CHOICE = "tool_choice"
    LOGITS = "@@@logits@@@"
    RAW_LOGITS = "@@@raw_logits@@@"
