"""The beginning that all prompts of a run share, evaluated once for all slots of the embedded server.

Each slot of llama.cpp's server keeps the prompt it saw last, but evaluates a prompt's beginning for itself: on a small
machine that is many seconds a slot before the first token. So one slot evaluates it, its state is saved to a file, and
the others take the file in. The file stays beside the models, so the next run does not evaluate anything.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mellea_cli.errors import BackendError
from mellea_cli.messages import GenerateRequest, Message, Options

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.http import WireClient

_LOG = logging.getLogger("mellea")

# Each file holds tens of megabytes, and a new prompt or model makes the old ones useless.
_KEPT = 6
# Something has to follow the prefix; what it is does not matter, a real request writes over it.
_AFTER = Message("user", ".")

Prefix = tuple[Message, ...]


class Prefixes:
    """Puts prompt beginnings into the slots of one running server.

    Args:
        wire: speaks to the server itself, not to its `/v1`.
        chat: speaks to its chat completions.
        folder: where states are kept; the server was started with it.
        identity: tells apart everything but the messages that a state depends on: model file, context, engine version.
        slots: how many slots the server has.
    """

    def __init__(self, wire: WireClient, chat: Backend, folder: Path, identity: str, slots: int) -> None:
        self._wire = wire
        self._chat = chat
        self._folder = folder
        self._identity = identity
        self._slots = slots

    async def warm(self, model: str, prefixes: Sequence[Prefix], tell: Callable[[str], None]) -> None:
        """Put each prefix into its share of the slots. What goes wrong costs time later, and nothing else.

        Args:
            model: the model's name on the server.
            prefixes: the beginnings, in the order in which they will be needed.
            tell: told once that this takes a moment, when nothing is kept from an earlier run.
        """
        told = False
        for place, prefix in enumerate(prefixes[: self._slots]):
            share = range(place, self._slots, min(len(prefixes), self._slots))
            name = self._name(prefix)
            try:
                if await self._restored(name, share):
                    continue
                if not told:
                    tell("the model reads its instructions, once: later runs start without that")
                    told = True
                await self._evaluate(model, prefix, share[0])
                await self._slot(share[0], "save", name)
                await self._restored(name, share[1:])
            except BackendError as error:
                _LOG.info("the prompt's beginning is evaluated slot by slot: %s", error.message)
        self._prune()

    def _name(self, prefix: Prefix) -> str:
        parts = [self._identity, *(f"{message.role}\n{message.content}" for message in prefix)]
        return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() + ".slot"

    async def _restored(self, name: str, share: Sequence[int]) -> bool:
        path = self._folder / name
        if not path.is_file():
            return False
        try:
            for slot in share:
                await self._slot(slot, "restore", name)
        except BackendError:
            # Cut short by a crash, or from an engine that only seemed the same: it is made anew.
            path.unlink(missing_ok=True)
            return False
        with suppress(OSError):  # so that the oldest is the one that was not used for longest
            os.utime(path)
        return True

    async def _evaluate(self, model: str, prefix: Prefix, slot: int) -> None:
        options = Options(temperature=0.0, max_tokens=1, native={"id_slot": slot})
        request = GenerateRequest(model, (*prefix, _AFTER), options)
        async with aclosing(self._chat.stream(request)) as chunks:
            async for _ in chunks:
                pass

    async def _slot(self, slot: int, action: str, name: str) -> None:
        await self._wire.post_json(f"/slots/{slot}?action={action}", {"filename": name})

    def _prune(self) -> None:
        with suppress(OSError):
            kept = sorted(self._folder.glob("*.slot"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in kept[_KEPT:]:
                path.unlink(missing_ok=True)
