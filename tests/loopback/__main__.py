"""Run the server as a process: `python -m loopback --port 0 --latency 0.2`. It prints its address and runs till killed.

`GET /counts` tells its counts, `POST /counts/clear` sets them to zero.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping
from typing import Any

from loopback.replies import default_reply
from loopback.server import ModelServer


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m loopback", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before the first piece of text")
    parser.add_argument("--token-delay", type=float, default=0.0, help="seconds between two pieces")
    parser.add_argument("--words", type=int, default=0, help="words of a plain answer (0: one sentence)")
    parser.add_argument("--models", default="granite4.1:3b,test-model", help="names, separated by commas")
    parser.add_argument("--max-parallel", type=int, default=None, help="answer 429 beyond this many at once")
    parser.add_argument("--api-key", default="", help="demand this key on the OpenAI protocol")
    args = parser.parse_args()

    def reply(prompt: str, schema: Mapping[str, Any] | None) -> str:
        if schema is None and args.words:
            return " ".join(f"word{number % 100}" for number in range(args.words))
        return default_reply(prompt, schema)

    server = ModelServer(
        port=args.port,
        reply=reply,
        latency_s=args.latency,
        token_delay_s=args.token_delay,
        models=tuple(args.models.split(",")),
        max_parallel=args.max_parallel,
        api_key=args.api_key,
        record=False,
    )
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        signal.sigwait(signals)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
