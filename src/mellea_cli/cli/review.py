"""`mellea review` and `mellea evaluate`: what people say about a finished run, and how right it is by that."""

# No `from __future__ import annotations`, see `mellea_cli.cli.flags`.

import heapq
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mellea_cli.cli.flags import (
    INPUT,
    OUTPUT,
    IdFieldFlag,
    InputFormatFlag,
    TextFieldFlag,
    flag,
    options_command,
    source_options,
    typed_command,
    typed_flags,
)
from mellea_cli.errors import ExitCode, InputError, UsageError, name_some, nearest

if TYPE_CHECKING:
    from mellea_cli.io.corrections import Corrections
    from mellea_cli.report.agreement import Judged, ReviewField, ReviewRow
    from mellea_cli.report.results import Record, Results

REVIEW = "Review"


@dataclass(frozen=True, slots=True)
class ReviewFlags:
    """The flags of `mellea review`."""

    results: Annotated[str, typer.Argument(metavar="OUT", help="Output of mellea summarise, run or themes.")]
    random: Annotated[
        int | None, flag(REVIEW, "Rows of the random sample (default: as in the last review, else 150).", "-n", min=0)
    ] = None
    doubtful: Annotated[int, flag(REVIEW, "Most rows with a low confidence, least confident first.", min=0)] = 50
    review_below: Annotated[
        float, flag(REVIEW, "Rows with a confidence below this are doubtful.", min=0.0, max=1.0)
    ] = 0.6
    fields: Annotated[
        str | None, flag(REVIEW, "Fields to judge, separated by commas (default: all).", metavar="A,B,C")
    ] = None
    who: Annotated[str | None, flag(REVIEW, "Your name in the corrections file (default: the user's).")] = None
    seed: Annotated[int | None, flag(REVIEW, "Seed of the random sample (default: that of the last review).")] = None
    html: Annotated[
        str | None, flag(OUTPUT, "Write a page to judge the rows in a browser, offline.", metavar="FILE")
    ] = None
    import_file: Annotated[
        str | None, flag(INPUT, "Add the judgements of a file, such as that of the page.", "--import", metavar="FILE")
    ] = None
    input_format: InputFormatFlag = None
    text_field: TextFieldFlag = None
    id_field: IdFieldFlag = None


@options_command(ReviewFlags)
def review(flags: ReviewFlags) -> ExitCode:
    """Judge a random sample and the doubtful rows of a finished run.

    One row a screen; each key is saved at once in OUT.corrections.jsonl. The judgements win on every later run, and the
    random sample corrects the totals of mellea report. The same command again continues.
    """
    from mellea_cli.io.corrections import Corrections, CorrectionsFile, corrections_path, read_lines, this_person
    from mellea_cli.report.figures import many
    from mellea_cli.ui.console import say
    from mellea_cli.ui.terminal import can_draw

    if flags.results == "-":
        raise UsageError("a review reads its rows again and keeps a file next to them", hint="name the output's file")
    path = corrections_path(flags.results)
    lines = read_lines(path)
    file = CorrectionsFile(path)
    if flags.import_file is not None:
        return _import(flags, file)
    on_terminal = can_draw(sys.stdin, os.environ) and can_draw(sys.stdout, os.environ)
    if flags.html is None and not on_terminal:
        hint = f"make a page for a browser: {typed_command('--html', 'review.html')}"
        raise UsageError("mellea review needs a terminal", hint=hint)
    who = this_person() if flags.who is None else flags.who
    said = Corrections(one for one in lines if one.who == who)
    plan = _Plan(flags, Corrections(lines), said)
    file.add(plan.drawn_again(who))
    if not plan.rows:
        verb = "is" if plan.judged == 1 else "are"
        say(sys.stderr, f"nothing to judge: {many(plan.judged, 'row')} {verb} judged already; a larger -n takes more")
        return ExitCode.OK
    if flags.html is not None:
        _write_page(flags, plan, who)
        return ExitCode.OK
    from mellea_cli.ui.full_screen import Review, ReviewScreen

    for note in plan.notes():
        say(sys.stderr, note)
    judged = Review(plan.rows, plan.fields, said, file, who, (plan.judged, plan.changed))
    try:
        ReviewScreen(judged, sys.stdout, os.environ).run()
    finally:
        done = f"{judged.reviewed:,} of {many(judged.total, 'row')} judged, {judged.changed:,} changed"
        say(sys.stderr, f"{done}; saved in {path.name}")
    how = typed_flags(flags, ("input_format", "text_field", "id_field"))
    totals = shlex.join(["mellea", "report", flags.results, *how])
    more = f"continue: {typed_command()}; " if judged.reviewed < judged.total else ""
    say(sys.stderr, f"{more}corrected totals: {totals}; corrected rows: mellea show {shlex.quote(flags.results)}")
    return ExitCode.OK


def _import(flags: ReviewFlags, file: Any) -> ExitCode:
    from mellea_cli.io.corrections import read_lines
    from mellea_cli.report.figures import many
    from mellea_cli.ui.console import say

    new = read_lines(Path(flags.import_file or ""), must_exist=True)
    there = {(one.item, one.field, one.who, one.when) for one in read_lines(file.path)}
    added = [one for one in new if (one.item, one.field, one.who, one.when) not in there]
    file.add(added)
    old = len(new) - len(added)
    known = f"; {old:,} {'was' if old == 1 else 'were'} there already" if old else ""
    say(sys.stderr, f"{file.path.name}: {many(len(added), 'judgement')} added{known}")
    return ExitCode.OK


class _Plan:
    """The rows and fields of a review, by what everybody has said and what this person has said."""

    def __init__(self, flags: ReviewFlags, everyone: "Corrections", said: "Corrections") -> None:
        self._flags = flags
        self._said = said
        self.has_confidence = False
        self.seed = flags.seed if flags.seed is not None else everyone.seed
        if self.seed is None:
            self.seed = int.from_bytes(os.urandom(3))
        self.size = everyone.size or _USUAL_SAMPLE if flags.random is None else flags.random
        self._values: dict[str, Counter[str]] = {}
        self._built_in: set[str] = set()
        drawn, doubtful, self._results = self._read()
        self.fields = self._fields()
        names = {field.name for field in self.fields}
        # A row that was judged because it was doubtful, and is drawn now, is not asked again.
        others = (row for row in drawn if not said.is_random(row.record.id, row.record.text))
        self._again = [row for row in others if self._is_judged(row, names)]
        chosen = {row.record.number for row in drawn}
        rows = [*drawn, *(row for row in doubtful if row.record.number not in chosen)]
        self.rows = [row for row in rows if not self._is_judged(row, names)]
        self.judged = len(rows) - len(self.rows)
        self.changed = sum(self._is_changed(row, names) for row in rows if self._is_judged(row, names))

    def _read(self) -> "tuple[list[ReviewRow], list[ReviewRow], Results]":
        from mellea_cli.io.corrections import sample_rank
        from mellea_cli.report.agreement import ReviewRow
        from mellea_cli.report.results import open_results

        flags, seed = self._flags, self.seed or 0
        # Heaps of the smallest ranks and confidences, with the largest first: memory does not grow with the rows.
        drawn: list[tuple[int, int, Any]] = []
        doubtful: list[tuple[float, int, Any]] = []
        with open_results(flags.results, source_options(flags, format=flags.input_format)) as results:
            names = confidence_names(results)
            for record in results:
                if record.state != "answered":
                    continue
                self._count(record)
                rank = int.from_bytes(sample_rank(seed, record.id, record.text))
                confidence = confidence_of(record, names)
                self.has_confidence = self.has_confidence or confidence is not None
                entry = -rank, -record.number, ReviewRow(record, "random", seed, confidence, self.size)
                _keep(drawn, entry, self.size)
                if confidence is not None and confidence < flags.review_below:
                    row = ReviewRow(record, "doubtful", None, confidence)
                    _keep(doubtful, (-confidence, -record.number, row), flags.doubtful + self.size)
        by_rank = [row for *_, row in sorted(drawn, key=lambda one: one[:2], reverse=True)]
        by_doubt = [row for *_, row in sorted(doubtful, key=lambda one: one[:2], reverse=True)]
        chosen = {row.record.number for row in by_rank}
        return by_rank, [row for row in by_doubt if row.record.number not in chosen][: flags.doubtful], results

    def _count(self, record: "Record") -> None:
        """Count the values of fields, which are the choices where the journal does not tell them."""
        from mellea_cli.report.agreement import BUILT_IN_KINDS
        from mellea_cli.report.figures import value_names

        self._built_in.update(name for name in BUILT_IN_KINDS if record.value(name) is not None)
        for name in ("sentiment", *record.own, *(("themes",) if record.themes is not None else ())):
            counts = self._values.setdefault(name, Counter())
            if len(counts) < _MOST_VALUES:
                counts.update(value_names(record.model_value(name)))

    def _fields(self) -> "list[ReviewField]":
        from mellea_cli.report.agreement import BUILT_IN_KINDS, ReviewField
        from mellea_cli.report.results import URGENCIES

        known = self._results.choices
        usual: Mapping[str, Sequence[str]] = {
            "sentiment": ("positive", "negative", "mixed"),
            "urgency": tuple(reversed(URGENCIES)),
            "bool": ("true", "false"),
        }
        seen = {name: [value for value, _ in counts.most_common()] for name, counts in self._values.items()}
        own = [column for column in self._results.own if column.name not in confidence_names(self._results)]
        fields: list[ReviewField] = []
        own_names = {column.name for column in own}
        if self._built_in - own_names:
            for name, kind in BUILT_IN_KINDS.items():
                if name in own_names:
                    continue
                choices = (known.get(name) or usual.get(name, ())) if kind == "label" else ()
                more = [value for value in seen.get(name, ()) if value not in choices] if choices else []
                fields.append(ReviewField(name, kind, (*choices, *more)))
        for column in own:
            choices = known.get(column.name) or usual.get(column.type) or seen.get(column.name) or ()
            listed = column.is_categorical
            fields.append(
                ReviewField(column.name, column.type, tuple(choices) if listed else (), column.joint or " | ")
            )
        if "themes" in seen:
            fields.append(ReviewField("themes", "themes", tuple(seen["themes"])))
        return self._wanted(fields)

    def _wanted(self, fields: "list[ReviewField]") -> "list[ReviewField]":
        if self._flags.fields is None:
            return fields
        by_name = {field.name: field for field in fields}
        wanted = [name.strip() for name in self._flags.fields.split(",") if name.strip()]
        for name in wanted:
            if name not in by_name:
                near = nearest(name, by_name)
                hint = f"did you mean {near!r}?" if near else f"there are {name_some(by_name, 12)}"
                raise UsageError(f"--fields: {self._flags.results} has no field {name!r}", hint=hint)
        return [by_name[name] for name in wanted] or fields

    def _is_judged(self, row: "ReviewRow", names: set[str]) -> bool:
        return names <= self._said.row(row.record.id, row.record.text).keys()

    def _is_changed(self, row: "ReviewRow", names: set[str]) -> bool:
        from mellea_cli.io.corrections import same_value

        said = self._said.row(row.record.id, row.record.text)
        return any(not same_value(one.person, one.model) for name, one in said.items() if name in names)

    def drawn_again(self, who: str) -> "list[Any]":
        """The judgements of rows that are drawn now and were judged before, as those of the random sample."""
        from mellea_cli.io.corrections import now

        drawn: dict[str, Any] = {"who": who, "when": now(), "sample": "random", "seed": self.seed, "size": self.size}
        records = [row.record for row in self._again]
        said = [(one.id, self._said.row(one.id, one.text).values()) for one in records]
        return [replace(judged, item=item, **drawn) for item, of_row in said for judged in of_row]

    def judgements(self) -> "list[dict[str, Any]]":
        """For each row, the values that this person has given to its fields already."""
        names = {field.name for field in self.fields}
        said = (self._said.row(row.record.id, row.record.text) for row in self.rows)
        return [{name: one.person for name, one in of_row.items() if name in names} for of_row in said]

    def notes(self) -> Iterator[str]:
        """What the user should know before the first row, a sentence each."""
        if not self.has_confidence and self._flags.doubtful:
            yield "the output has no column confidence, so no row counts as doubtful: the random sample alone"
        yield from self._results.notes


_MOST_VALUES = 200
_USUAL_SAMPLE = 150


def _keep(heap: list[Any], entry: tuple[Any, ...], most: int) -> None:
    if len(heap) < most:
        heapq.heappush(heap, entry)
    elif heap and entry[:2] > heap[0][:2]:
        heapq.heapreplace(heap, entry)


def confidence_names(results: "Results") -> list[str]:
    """The columns that say how sure the model is, which nobody judges."""
    from mellea_cli.pipelines.confidence import CONFIDENCE, confidence_columns

    return [CONFIDENCE, *confidence_columns([column.name for column in results.own])]


def confidence_of(record: "Record", names: Sequence[str]) -> float | None:
    """The least confidence of a row's fields, where the output has columns for that."""
    from mellea_cli.report.results import number_in

    found = (number_in(record.rest.get(name)) for name in names)
    return min((one for one in found if one is not None), default=None)


def _write_page(flags: ReviewFlags, plan: _Plan, who: str) -> None:
    from mellea_cli.io.files import atomic_write, resolve_output, same_file
    from mellea_cli.report.figures import many
    from mellea_cli.report.html_report import review_page
    from mellea_cli.ui.console import say

    output = flags.html or ""
    if same_file(output, flags.results):
        raise UsageError(f"{output}: is the output and the page at once", hint="choose another file for --html")
    # Not the corrections file itself: a page that is saved over it would lose the judgements of others.
    target = f"{Path(flags.results).name}.judgements.jsonl"
    atomic_write(resolve_output(output), review_page(plan.rows, plan.fields, plan.judgements(), who=who, target=target))
    for note in plan.notes():
        say(sys.stderr, note)
    say(sys.stderr, f"{output}: {many(len(plan.rows), 'row')} to judge; open it in a browser, and then:")
    say(sys.stderr, f"mellea review {shlex.quote(flags.results)} --import {shlex.quote(target)}")


# How right a run is.


@dataclass(frozen=True, slots=True)
class EvaluateFlags:
    """The flags of `mellea evaluate`."""

    results: Annotated[str, typer.Argument(metavar="OUT", help="Output of mellea summarise or run.")]
    gold: Annotated[str | None, flag(INPUT, "File with the right labels, in any input format.", metavar="FILE")] = None
    corrections: Annotated[bool, flag(INPUT, "Use the review in OUT.corrections.jsonl.")] = False
    gold_column: Annotated[
        list[str] | None,
        flag(INPUT, "The gold column of a field that has another name. Repeatable.", metavar="FIELD=COLUMN"),
    ] = None
    by: Annotated[list[str] | None, flag(REVIEW, "Groups by a column of OUT. Repeatable.", metavar="COLUMN")] = None
    json: Annotated[bool, flag(OUTPUT, "The figures as JSON on stdout.")] = False
    input_format: InputFormatFlag = None
    text_field: TextFieldFlag = None
    id_field: IdFieldFlag = None


@options_command(EvaluateFlags)
def evaluate(flags: EvaluateFlags) -> ExitCode:
    """Say how right a run is, by gold labels or by its review.

    For each field: how often the model is right, macro F1, the confusion table, opposite labels, and nulls; each with
    a 95 % interval. With --corrections only the random sample counts, and the agreement of the reviewers is shown.
    """
    from mellea_cli.report import agreement
    from mellea_cli.ui.report_view import print_evaluation

    if (flags.gold is None) == (not flags.corrections):
        raise UsageError(
            "name what is right: either --gold FILE or --corrections", hint="mellea evaluate OUT --gold FILE"
        )
    if flags.results == "-":
        raise UsageError("an evaluation needs the output's file", hint="name it: mellea evaluate OUT --gold FILE")
    found = _by_gold(flags) if flags.gold is not None else _by_review(flags)
    fields = agreement.evaluate(found.judged, found.choices)
    if not fields:
        raise InputError(found.nothing, path=found.name, hint=found.hint)
    people = agreement.agreements(found.corrections, {one.name for one in fields}) if found.corrections else []
    if flags.json:
        record = {"name": flags.results, "by": found.name, **found.counts, "fields": fields, "agreement": people}
        sys.stdout.write(agreement.evaluation_to_json(record))
        return ExitCode.OK
    print_evaluation(fields, people, found.notes(), sys.stdout, os.environ)
    return ExitCode.OK


@dataclass(frozen=True, slots=True)
class _Found:
    """What an evaluation compares."""

    name: str
    judged: "Sequence[Judged]"
    counts: Mapping[str, Any]
    choices: Mapping[str, Sequence[str]]
    nothing: str
    hint: str
    corrections: "Corrections | None" = None

    def notes(self) -> list[str]:
        """How rows were matched, a line each."""
        from mellea_cli.report.figures import many

        counts = self.counts
        if self.corrections is not None:
            left = many(counts["unreviewed"], "row")
            notes = [
                (f"{many(counts['rows'], 'row')} of the random sample judged", True),
                (f"{left} of the sample not reviewed: mellea review continues", counts["unreviewed"]),
                (f"{many(counts['others'], 'other judged row')} not counted", counts["others"]),
            ]
        else:
            notes = [
                (f"{many(counts['rows'], 'row')} matched by {counts['matched_by']}", True),
                (f"{many(counts['unmatched'], 'row')} of the output without gold", counts["unmatched"]),
                (f"{many(counts['gold_unmatched'], 'gold row')} not in the output", counts["gold_unmatched"]),
                (f"{many(counts['other_text'], 'row')} with another text in the gold file", counts["other_text"]),
                (f"{many(counts['unanswered'], 'matched row')} without an answer, not counted", counts["unanswered"]),
            ]
        return [text for text, number in notes if number]


def _by_review(flags: EvaluateFlags) -> _Found:
    from mellea_cli.io.corrections import corrections_path
    from mellea_cli.report.agreement import Judged, UnreviewedRows
    from mellea_cli.report.results import open_results

    judged: list[Judged] = []
    rows = others = 0
    with open_results(flags.results, source_options(flags, format=flags.input_format), calibrated=False) as results:
        unreviewed = UnreviewedRows(results.corrections)
        for record in results:
            if record.state == "answered":
                unreviewed.add(record)
            others += bool(record.reviewed) and not record.is_sampled
            if not record.is_sampled:
                continue
            rows += 1
            groups = _groups(record, flags.by)
            kinds = _kinds(results)
            for name, one in record.reviewed.items():
                if name in kinds:
                    judged.append(Judged(name, kinds[name], one.person, one.model, groups, _sure(record, name)))
        _check_groups(flags, results)
    return _Found(
        str(corrections_path(flags.results).name),
        judged,
        {"rows": rows, "others": others, "unreviewed": unreviewed.count},
        _choices(results),
        "no row of a random sample is judged",
        f"judge some: mellea review {shlex.quote(flags.results)}",
        results.corrections,
    )


def _by_gold(flags: EvaluateFlags) -> _Found:
    from mellea_cli.report.agreement import Judged
    from mellea_cli.report.results import open_results
    from mellea_cli.ui.console import say

    gold = _Gold(flags)
    judged: list[Judged] = []
    ident = ""
    rows = unmatched = other_text = unanswered = 0
    with open_results(flags.results, source_options(flags, format=flags.input_format), calibrated=False) as results:
        for record in results:
            match = gold.match(record, by_id=results.has_ids)
            ident = ident or record.id
            if match is None:
                unmatched += 1
                continue
            if record.state != "answered":
                unanswered += 1
                continue
            rows += 1
            other_text += gold.has_other_text(match, record)
            groups = _groups(record, flags.by)
            for name, kind in _kinds(results).items():
                is_labelled, person = gold.label(match, name, kind, results)
                if is_labelled:
                    judged.append(Judged(name, kind, person, record.model_value(name), groups, _sure(record, name)))
        _check_groups(flags, results)
        gold.check(_kinds(results))
        unused = gold.unused(results)
    if unused:
        columns = f"column{'s' * (len(unused) > 1)} {name_some(unused, 12)}"
        say(sys.stderr, f"{flags.gold}: not used: {columns}; --gold-column FIELD={unused[0]} names its field")
    counts = {
        "rows": rows,
        "matched_by": "id" if gold.by_id and results.has_ids else "text",
        "unmatched": unmatched,
        "gold_unmatched": gold.unmatched,
        "other_text": other_text,
        "unanswered": unanswered,
    }
    names = name_some(_kinds(results), 12)
    hint = "name a column: --gold-column sentiment=COLUMN"
    nothing = f"no row has a label: {rows:,} match, and the columns that count are {names}"
    if counts["matched_by"] == "id" and not rows + unanswered:
        nothing = f"no id of it is in {flags.results}: it has {gold.first_id!r}, the output has {ident!r}"
        hint = "correct the ids, or name the column that both files have: --id-field COLUMN"
    return _Found(str(flags.gold), judged, counts, _choices(results), nothing, hint)


def _kinds(results: "Results") -> dict[str, str]:
    from mellea_cli.report.agreement import BUILT_IN_KINDS

    own = {column.name: column.type for column in results.own if column.name not in confidence_names(results)}
    return {**BUILT_IN_KINDS, **({"themes": "categories"} if results.labelled else {}), **own}


def _choices(results: "Results") -> dict[str, Sequence[str]]:
    """The labels of fields in the order of the report."""
    from mellea_cli.report.figures import in_order
    from mellea_cli.report.results import SENTIMENTS, URGENCIES

    sentiments = [name for name, _ in in_order({}, sentiments=results.sentiments or SENTIMENTS)]
    return {"urgency": URGENCIES, **results.choices, "sentiment": sentiments}


def _sure(record: "Record", field: str) -> float | None:
    from mellea_cli.pipelines.confidence import confidence_column

    return confidence_of(record, [confidence_column(field)])


def _groups(record: "Record", columns: Sequence[str] | None) -> dict[str, str]:
    from mellea_cli.report.figures import value_name

    return {column: value_name(record.rest.get(column)) for column in columns or ()}


def _check_groups(flags: EvaluateFlags, results: "Results") -> None:
    for column in flags.by or ():
        if column not in results.columns:
            raise results.missing(column, "--by")


class _Gold:
    """The rows of a gold file."""

    def __init__(self, flags: EvaluateFlags) -> None:
        from contextlib import closing

        from mellea_cli.io.byte_input import open_bytes
        from mellea_cli.io.corrections import text_key
        from mellea_cli.io.source import SourceOptions, open_rows

        self._key = text_key
        self._name = str(flags.gold)
        self._columns = dict(_named_columns(flags.gold_column or ()))
        self._rows: list[Mapping[str, Any]] = []
        with closing(open_bytes(self._name)) as data:
            for found in open_rows(data, SourceOptions()).stream:
                if isinstance(found, InputError):
                    raise found
                self._rows.append(found[1])
        self._names = dict.fromkeys(name for row in self._rows for name in row)
        ident = flags.id_field or "id"
        self.by_id = ident in self._names
        self._by_id: dict[str, int] = {}
        self._by_text: dict[str, int] = {}
        for at, row in enumerate(self._rows):
            if row.get(ident) is not None:
                self._by_id.setdefault(str(row[ident]).strip(), at)
            for value in row.values():
                if isinstance(value, str) and value.strip():
                    self._by_text.setdefault(self._key(value), at)
        self._found: set[int] = set()
        self._known = {ident, "issues"}
        self.first_id = next(iter(self._by_id), "")

    def unused(self, results: "Results") -> list[str]:
        """The columns that are no label, no text, and no column of the output."""
        fields = {self._columns.get(name, name) for name in _kinds(results)}
        return [name for name in self._names if name not in fields | self._known | results.columns.keys()]

    @property
    def unmatched(self) -> int:
        """The number of gold rows that no row of the output is."""
        return len(self._rows) - len(self._found)

    def match(self, record: "Record", *, by_id: bool) -> int | None:
        """The gold row of a row of the output: by id where both have ids, else by its text."""
        key = self._key(record.text)
        at = self._by_id.get(record.id) if by_id and self.by_id else self._by_text.get(key)
        if at is not None:
            self._found.add(at)
            cells = self._rows[at].items()
            self._known.update(name for name, cell in cells if isinstance(cell, str) and self._key(cell) == key != "")
        return at

    def has_other_text(self, at: int, record: "Record") -> bool:
        """Whether the gold row has a text, and not this one."""
        texts = [self._key(value) for value in self._rows[at].values() if isinstance(value, str)]
        return bool(record.text) and any(len(one) > _LONG_TEXT for one in texts) and self._key(record.text) not in texts

    def label(self, at: int, name: str, kind: str, results: "Results") -> tuple[bool, Any]:
        """Whether a gold row has a label for a field, and the label."""
        from mellea_cli.io.themes_file import JOINT
        from mellea_cli.pipelines.own_fields import read_cell
        from mellea_cli.pipelines.pipeline import Column

        row, column = self._rows[at], self._columns.get(name, name)
        if column not in row and isinstance(issues := row.get("issues"), Mapping) and name not in self._columns:
            row = issues
        if column not in row:
            return False, None
        value = row[column]
        themes = Column("themes", type="categories", joint=JOINT)
        own = next((one for one in (*results.own, themes) if one.name == name), None)
        if own is not None:
            found = read_cell(own, value)
            return name != "themes" or bool(found), found
        if isinstance(value, str):
            value = value.strip() or None
        # An empty label is a row that nobody has labelled, and an empty complaint says that there is none.
        return value is not None or kind == "text", value.lower() if kind == "label" and value else value

    def check(self, kinds: Iterable[str]) -> None:
        """Refuse a `--gold-column` that names what is not there."""
        known = list(kinds)
        for field, column in self._columns.items():
            for wanted, names, where in ((field, known, "the output"), (column, list(self._names), self._name)):
                if wanted not in names:
                    near = nearest(wanted, names)
                    hint = f"did you mean {near!r}?" if near else f"there are {name_some(names, 12)}"
                    raise UsageError(f"--gold-column {field}={column}: {where} has no {wanted!r}", hint=hint)


_LONG_TEXT = 40


def _named_columns(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        field, equals, column = text.partition("=")
        if not equals or not field.strip() or not column.strip():
            raise UsageError(f"--gold-column {text!r}: is no pair", hint="write it as --gold-column sentiment=label")
        yield field.strip(), column.strip()
