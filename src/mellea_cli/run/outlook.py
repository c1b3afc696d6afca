"""What a run would find: which answers are there already, and what is left to ask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mellea_cli.items import Item, Success
from mellea_cli.run.plan import RunPlan
from mellea_cli.run.reuse import Answers


@dataclass(slots=True)
class Outlook:
    """Items of an input by what a run would do with them; together they are all of it."""

    new: int = 0
    """Nobody has asked about them, or not in these words."""
    known: int = 0
    """Answered by an earlier run."""
    failed: int = 0
    """Failed in an earlier run."""
    blank: int = 0
    """Without any text: nothing is asked."""
    identical: int = 0
    """Their text stands further up as well: it is asked about once."""

    def asks(self, *, retry_failed: bool) -> int:
        """Items that a run would ask about."""
        return self.new + (self.failed if retry_failed else 0)


def look_ahead(items: Iterable[Item], plan: RunPlan, answers: Answers) -> Outlook:
    """Go through the items of an input without asking anything; holds 16 bytes for each different text."""
    outlook = Outlook()
    seen: set[bytes] = set()
    for item in items:
        if not item.text.strip():
            outlook.blank += 1
            continue
        key = plan.key(item.text)
        if key in seen:
            outlook.identical += 1
            continue
        seen.add(key)
        match answers.lookup(key):
            case None:
                outlook.new += 1
            case Success():
                outlook.known += 1
            case _:
                outlook.failed += 1
    return outlook
