"""Whether the figures add up: what was labelled while the run went on, against what stands in the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mellea_cli.errors import OutputError
from mellea_cli.items import Failure, Item, Outcome
from mellea_cli.pipelines.themes import NONE, OTHER

_HINT = "type the same command with --fresh; if that does not help, please report it"


class Unreconciled(OutputError):
    """The figures of a run and the rows of its output do not agree: neither can be trusted."""

    kind = "unreconciled"


@dataclass
class Figures:
    """What became of the rows.

    Args:
        names: the themes, in their order.
        themes: rows by theme; a row with several counts for each of them.
        labelled: rows with at least one theme.
        other: rows that say something for which there is no theme.
        none: rows that praise nothing and complain about nothing.
        failed: rows without an answer.
        quotes: quotes that were checked against their rows' texts.
    """

    names: tuple[str, ...]
    themes: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    other: int = 0
    none: int = 0
    failed: int = 0
    quotes: int = 0

    @property
    def rows(self) -> int:
        """Rows that are accounted for."""
        return self.labelled + self.other + self.none + self.failed

    def enter(self, item: Item, outcome: Outcome) -> None:
        """Count the row of `item`, with its labels in the words of the themes file; raises as `count` does."""
        if isinstance(outcome, Failure):
            self.count(None, {}, item.text, f"row {item.id}")
        else:
            values = outcome.values
            self.count(values["themes"], values["theme_quotes"] or {}, item.text, f"row {item.id}")

    def count(self, labels: Sequence[str] | None, quotes: Mapping[str, str], text: str, where: str) -> None:
        """Count one row in.

        Args:
            labels: its themes, or `other` or `none`; `None` when it failed.
            quotes: its quotes by theme.
            text: the text that they are taken from.
            where: which row it is, for messages.

        Raises:
            Unreconciled: a label is no theme, stands twice, has no quote, or a quote does not stand in the text.
        """
        if labels is None:
            self.failed += 1
            return
        if list(labels) in ([OTHER], [NONE]):
            self.other += labels[0] == OTHER
            self.none += labels[0] == NONE
            labels = ()
        elif labels:
            self.labelled += 1
        else:
            raise Unreconciled(f"{where}: has no label at all", hint=_HINT)
        if list(labels) != [name for name in self.names if name in set(labels)]:
            raise Unreconciled(
                f"{where}: is labelled {', '.join(labels)}, which are not themes in their order", hint=_HINT
            )
        if set(quotes) != set(labels):
            raise Unreconciled(f"{where}: has quotes for {len(quotes)} of {len(labels)} themes", hint=_HINT)
        for name, quote in quotes.items():
            if not quote or quote not in text:
                raise Unreconciled(f"{where}: the quote for {name!r} does not stand in its text", hint=_HINT)
        self.themes.update(labels)
        self.quotes += len(quotes)


def audit(ledger: Figures, read: Iterable[tuple[Item, Sequence[str] | None, Mapping[str, str]]]) -> None:
    """Count the rows of a finished output again, from the file, and compare.

    Args:
        ledger: what was counted while the run went on.
        read: each row of the output: its item, its labels (`None` for a failed one) and its quotes.

    Raises:
        Unreconciled: something does not hold; the first thing that does not is named.
    """
    found = Figures(ledger.names)
    for item, labels, quotes in read:
        found.count(labels, quotes, item.text, f"row {item.id} of the output")
    for name in ledger.names:
        if found.themes[name] != ledger.themes[name]:
            raise Unreconciled(
                f"{name!r} counts {ledger.themes[name]:,} rows, but {found.themes[name]:,} rows are labelled with it",
                hint=_HINT,
            )
    for what in ("labelled", "other", "none", "failed", "quotes"):
        counted, stands = getattr(ledger, what), getattr(found, what)
        if counted != stands:
            raise Unreconciled(f"{what}: {counted:,} were counted, the output has {stands:,}", hint=_HINT)
