"""What the attempt loop needs to know of the way to a model: it leads to one server, or to several."""

from __future__ import annotations

from typing import Protocol

from mellea_cli.engine.retry import Spent
from mellea_cli.engine.watch import UNWATCHED, Watch
from mellea_cli.messages import Completion, GenerateRequest


class Way(Protocol):
    """The way from a question to a model.

    `mellea_cli.engine.sender.Sender` leads to one server, `mellea_cli.engine.poolsender.PoolSender` to several.
    """

    async def send(self, request: GenerateRequest, watch: Watch = UNWATCHED, spent: Spent | None = None) -> Completion:
        """Send `request` until it goes through.

        Args:
            request: what to send.
            watch: told what happens.
            spent: what the question behind it has used up; `None` for a question of its own. It is counted on.

        Raises:
            BackendError: it cannot be mended by sending the request again, or the budget of retries is spent.
            RunawayAnswer: the answer had to be stopped.
        """
