"""`mellea watch`: compares two outputs and says so when a condition holds beyond chance. For cron."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from mellea_cli.cli.flags import (
    OUTPUT,
    AllowHttpFlag,
    IdFieldFlag,
    LocalOnlyFlag,
    TextFieldFlag,
    WhereFlag,
    flag,
    options_command,
    source_options,
    write_json,
)
from mellea_cli.cli.report import REPORT, ScoreFlag, parse_score, read_comparison
from mellea_cli.errors import BackendUnavailable, ExitCode, UsageError, name_some, nearest

if TYPE_CHECKING:
    from mellea_cli.backends.security import NetworkPolicy
    from mellea_cli.report.comparison import Change, Comparison

_EXAMPLE = "write it as 'negative +5pp', 'theme:Billing x2' or 'nps -5'"
_NOTIFY_S = 30.0


@dataclass(frozen=True, slots=True)
class WatchFlags:
    """The flags of `mellea watch`."""

    baseline: Annotated[
        str, typer.Argument(metavar="BASELINE", help="Output of an earlier mellea summarise or themes.")
    ]
    new: Annotated[str, typer.Argument(metavar="NEW", help="Output of a later one.")]
    when: Annotated[
        list[str],
        flag(REPORT, "Condition, such as 'negative +5pp' or 'theme:Billing x2'. Repeatable.", metavar="CONDITION"),
    ]
    notify: Annotated[
        str | None, flag(OUTPUT, "Post the message to this address, as JSON that Slack reads.", metavar="URL")
    ] = None
    where: WhereFlag = None
    score: ScoreFlag = None
    themes_file: Annotated[
        str | None, flag(REPORT, "TOML file with the themes' kinds and headings (default: that of mellea themes).")
    ] = None
    text_field: TextFieldFlag = None
    id_field: IdFieldFlag = None
    json: Annotated[bool, flag(OUTPUT, "JSON on stdout, also when no condition holds.")] = False
    local_only: LocalOnlyFlag = False
    allow_http: AllowHttpFlag = False


@options_command(WatchFlags)
def watch(flags: WatchFlags) -> ExitCode:
    """Compare two finished runs, and exit with 10 when a condition holds beyond chance.

    Then stdout has one message in Markdown; otherwise it stays empty. A condition is a share and how it moves: +5pp or
    -5pp by percentage points, x2 to twice the share. Shares are sentiments, urgencies, theme:NAME of a theme or
    heading, theme:* and COLUMN=VALUE of an own field; nps, csat and stars are scores.
    """
    from mellea_cli.backends.security import NetworkPolicy

    conditions = [parse_condition(text) for text in flags.when]
    policy = NetworkPolicy(local_only=flags.local_only, allow_http=flags.allow_http)
    if flags.notify is not None:
        _check_address(flags.notify, policy)
    outputs = [flags.baseline, flags.new]
    comparison = read_comparison(
        outputs, source_options(flags), themes_file=flags.themes_file, score=parse_score(flags.score)
    )
    alerts = find_alerts(conditions, comparison)
    if flags.json:
        write_json(
            {
                "old": comparison.old.name,
                "new": comparison.new.name,
                "checked": [condition.text for condition in conditions],
                "alerts": [{"condition": one.condition.text, "what": one.what, "how": one.how} for one in alerts],
            }
        )
    if not alerts:
        if not flags.json and sys.stderr.isatty():
            typer.echo(f"no condition holds beyond chance ({len(conditions)} checked)", err=True)
        return ExitCode.OK
    if not flags.json:
        typer.echo(message(alerts, comparison))
    if flags.notify is not None:
        sys.stdout.flush()
        _post(flags.notify, message(alerts, comparison, slack=True))
    return ExitCode.ALERT


@dataclass(frozen=True, slots=True)
class Condition:
    """One `--when`: a subject, and the least move of it."""

    text: str
    subject: str
    kind: str  # `judgement`, `theme`, `field`, `score`, or `label`: one of the run's own
    points: float = 0.0  # The least move in points, with its sign
    factor: float = 0.0  # The least factor, or the largest below 1; 0 where points count

    def met(self, old: float, new: float) -> bool:
        """Whether a share or a score has moved far enough, chance aside."""
        if self.factor:
            return new >= self.factor * old and new > old if self.factor > 1 else new <= self.factor * old and new < old
        # A share that moves by five points may be computed as 4.999999.
        return (new - old - self.points) * (1 if self.points > 0 else -1) >= -1e-9


_TEST = re.compile(r"([+-])(\d+(?:[.,]\d+)?)(pp|points?|%)?|[x×](\d+(?:[.,]\d+)?)")  # noqa: RUF001 - people type it


def parse_condition(text: str) -> Condition:
    """Read a condition."""
    from mellea_cli.report.results import SENTIMENTS, URGENCIES
    from mellea_cli.report.score import SCORE_KINDS

    def refused(at: int, problem: str, hint: str = _EXAMPLE) -> UsageError:
        return UsageError(f"--when {text!r}, character {at + 1}: {problem}", hint=hint)

    subject, _, test = text.rstrip().rpartition(" ")
    subject, at = subject.strip(), len(text.rstrip()) - len(test)
    if not subject:
        raise refused(len(text.rstrip()), "a condition has a share, a space and how it moves")
    found = _TEST.fullmatch(test)
    if found is None:
        raise refused(at, f"{test!r} is no change")
    sign, amount, unit, factor = found.groups()
    value = float((amount or factor).replace(",", "."))
    judgements = (*SENTIMENTS, *URGENCIES)
    start = len(text) - len(text.lstrip())
    name = subject.lower()
    if name in judgements:
        kind, subject = "judgement", name
    elif name in SCORE_KINDS:
        kind, subject = "score", name
    elif name.startswith("theme:") and subject[6:].strip():
        kind, subject = "theme", subject[6:].strip()
    elif "=" in subject.strip("="):
        kind = "field"
    elif (close := nearest(name, [*judgements, *SCORE_KINDS])) or name.endswith(":"):
        raise refused(
            start, f"{subject!r} is no share", f"did you mean {close!r}? Or {_EXAMPLE}" if close else _EXAMPLE
        )
    else:
        kind = "label"
    if unit == "%":
        raise refused(at, f"{test!r} can mean points or a factor", f"points are {test[:-1]}pp, a factor is x2")
    if factor and kind == "score":
        raise refused(at, "a score moves by points", f"write it as '{subject} -5'")
    if not value or (factor and value == 1):
        raise refused(at, f"{test!r} is no change")
    if factor:
        return Condition(text, subject, kind, factor=value)
    return Condition(text, subject, kind, points=-value if sign == "-" else value)


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that holds: what moved, in words."""

    condition: Condition
    what: str
    how: str


def find_alerts(conditions: Sequence[Condition], comparison: "Comparison") -> list[Alert]:
    """The conditions that hold beyond chance, over everything that they look at (Benjamini-Hochberg)."""
    from mellea_cli.report.comparison import points
    from mellea_cli.report.intervals import benjamini_hochberg

    looked_at: list[tuple[Condition, float, bool, Alert]] = []
    for condition in conditions:
        if condition.kind == "score":
            score = comparison.score
            if score is None or score.kind != condition.subject:
                raise UsageError(
                    f"--when {condition.text!r}: the two outputs have no {condition.subject}",
                    hint=f"name its column: --score {condition.subject} COLUMN",
                )
            alert = Alert(condition, condition.subject.upper(), score.sentence().partition(" ")[2])
            looked_at.append((condition, score.p, condition.met(score.old, score.new), alert))
            continue
        for change in _changes(condition, comparison):
            what = f"{change.name} ({change.tone})" if change.tone else change.name
            how = f"{change.side('old')} → {change.side('new')}, {points(change)}; {change.new:,} rows"
            shares = (change.old_share, change.new_share) if condition.factor else (0.0, change.points)
            looked_at.append((condition, change.p, condition.met(*shares), Alert(condition, what, how)))
    holding = benjamini_hochberg([p for _, p, _, _ in looked_at])
    return [alert for (_, _, met, alert), holds in zip(looked_at, holding, strict=True) if met and holds]


def _changes(condition: Condition, comparison: "Comparison") -> "Iterable[Change]":
    if condition.kind == "theme":
        if condition.subject == "*":
            return comparison.of("theme")
        found = [one for group in ("theme", "parent") for one in comparison.of(group) if one.name == condition.subject]
        # A theme that the themes file defines may be in no row of either output.
        known = {theme.name for figures in comparison.files for theme in (*figures.themes, *figures.parents)}
        if condition.subject not in known:
            raise _unknown(condition, "theme", comparison)
        return found
    column, _, value = map(str.strip, condition.subject.rpartition("="))
    if condition.kind in ("judgement", "label") or column in ("sentiment", "urgency"):
        groups = (column,) if column else ("sentiment", "urgency")
        labels = [one for one in comparison.changes if one.group in groups]
        found = [one for one in labels if one.name == value]
        if not found and condition.kind != "judgement":
            raise _unknown(condition, "share", comparison)
        return found
    fields = {field.name for figures in comparison.files for field in figures.fields if field.is_categorical}
    if column not in fields:
        raise _unknown(condition, "own field with choices", comparison)
    values = comparison.of(f"field {column}")
    found = [one for one in values if one.name == value]
    # A value in no row of either output is no mistake, unless it looks like one.
    if not found and (near := nearest(value, [one.name for one in values])):
        raise UsageError(
            f"--when {condition.text!r}: no row of the two outputs has {column}={value}",
            hint=f"did you mean '{column}={near}'?",
        )
    return found


def _unknown(condition: Condition, what: str, comparison: "Comparison") -> UsageError:
    names: dict[str, str] = {}
    for change in comparison.changes:
        kind = {"sentiment": "", "urgency": "", "theme": "theme:", "parent": "theme:"}.get(change.group)
        names[change.name] = (f"{change.group.removeprefix('field ')}=" if kind is None else kind) + change.name
    name, _, value = condition.subject.partition("=")
    close = names.get(nearest(value or name, names))
    hint = f"did you mean '{close}'?" if close else f"they have: {name_some(names.values(), 12) or 'none'}"
    at = condition.text.find(condition.subject)
    return UsageError(
        f"--when {condition.text!r}, character {at + 1}: no {what} {name!r} in the two outputs", hint=hint
    )


def message(alerts: Sequence[Alert], comparison: "Comparison", *, slack: bool = False) -> str:
    """The message in Markdown, or in the markup of Slack. It has figures only, and no customer's words."""
    from mellea_cli.report.markdown import plain

    write: Callable[[str], str] = _slack if slack else plain
    bold = "*" if slack else "**"
    old, new = map(write, comparison.labels)
    lines = [f"{bold}Feedback alert: {new} compared with {old}{bold}", ""]
    lines += [f"- {bold}{write(one.what)}{bold}: {write(one.how)} [{write(one.condition.text)}]" for one in alerts]
    lines += [
        "",
        f"{old}: {write(comparison.old.reconciliation())}",
        "",
        f"{new}: {write(comparison.new.reconciliation())}",
    ]
    return "\n".join(lines)


def _slack(text: str) -> str:
    text = " ".join(text.split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("*", "\u2217")


def _check_address(url: str, policy: "NetworkPolicy") -> None:
    if not url.lower().startswith(("https://", "http://")) or not urlsplit(url).hostname:
        raise UsageError("--notify: is no address", hint="write it as --notify https://HOST/PATH")
    policy.check_url(url)


def _post(url: str, text: str) -> None:
    from mellea_cli.backends.http import post_json

    try:
        post_json(url, {"text": text}, _NOTIFY_S)
    except BackendUnavailable as error:
        hint = "the message is on stdout; correct --notify, or run the same command again"
        raise BackendUnavailable(f"--notify: {error.message}", hint=hint) from error
