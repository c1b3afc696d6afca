"""Nothing is lost that a person made: foreign files, finished outputs, cells edited by hand."""

from __future__ import annotations

from typing import Any

from field.cases.common import THREE, openai, scripted
from field.model import Case, Edit, Expect, Put, Run, Step
from field.wire import GOOD, Rule, always, says

_OURS = "the issue: nothing lost that a person made"


def _kept(case: str, kind: str, about: str, *steps: Step, source: str = _OURS, **more: Any) -> Case:
    usual: dict[str, Any] = {"files": (THREE, "semicolon.csv"), "rules": always(GOOD)}
    return Case(id=f"kept-{case}", kind=kind, source=source, about=about, steps=steps, **(usual | more))


def _done(*more: str, output: str = "out.jsonl", source: str = THREE, **expect: Any) -> Run:
    """A run that finishes."""
    return Run(args=scripted(source, *more, output=output), output=output, expect=Expect(**expect))


def _refused(
    *more: str, output: str = "out.jsonl", source: str = THREE, says: tuple[Any, ...] = ("--overwrite",)
) -> Run:
    """A run that is refused and changes nothing."""
    expect = Expect(exit=2, says=says, talk=5, untouched=(output,))
    return Run(args=scripted(source, *more, output=output), output=output, expect=expect)


_MINE = '{"id": 9, "note": "my own work"}\n'
_FOURTH = '{"id": 4, "text": "The manual is missing."}\n'

_FOREIGN = (
    _kept(
        "foreign",
        "foreign outputs",
        "The output is a file of the user's: it stays.",
        Put(name="out.jsonl", content=_MINE),
        _refused(),
    ),
    _kept(
        "foreign-csv",
        "foreign outputs",
        "The same with a table.",
        Put(name="out.csv", content="name,notes\nKim,call back\n"),
        _refused(output="out.csv", source="semicolon.csv"),
    ),
    _kept(
        "foreign-overwrite",
        "foreign outputs",
        "The user says that it may go.",
        Put(name="out.jsonl", content=_MINE),
        _done("--overwrite", rows=3, answered=3),
    ),
    _kept(
        "foreign-empty",
        "foreign outputs",
        "An empty file, as mktemp makes it, holds nothing of anybody's.",
        Put(name="out.jsonl", content=""),
        _done(rows=3, answered=3),
    ),
    _kept(
        "foreign-input",
        "foreign outputs",
        "The output is the input itself.",
        _refused(output=THREE, says=(("same file", "input", "another name"),)),
    ),
    _kept(
        "foreign-other-input",
        "foreign outputs",
        "The output belongs to a run over another input.",
        _done(rows=3),
        Put(
            name="other.jsonl",
            content='{"id": 1, "text": "A lovely place."}\n{"id": 2, "text": "The soup was cold."}\n',
        ),
        _refused(source="other.jsonl"),
    ),
    _kept(
        "foreign-fresh",
        "foreign outputs",
        "--fresh forgets answers, not other people's files.",
        Put(name="out.jsonl", content=_MINE),
        _refused("--fresh"),
    ),
    _kept(
        "foreign-no-journal",
        "foreign outputs",
        "The journal was deleted, so nothing tells that the output is ours.",
        _done(rows=3),
        Put(name="out.jsonl.journal", content=None),
        _refused(),
    ),
)

_FEWER = (
    _kept(
        "fewer-limit",
        "fewer rows",
        "A finished output is not replaced by its first row.",
        _done(rows=3),
        _refused("-n", "1"),
    ),
    _kept("fewer-sample", "fewer rows", "Nor by a sample.", _done(rows=3), _refused("--sample", "1")),
    _kept(
        "fewer-limit-overwrite",
        "fewer rows",
        "Unless the user says so.",
        _done(rows=3),
        _done("-n", "1", "--overwrite", rows=1),
    ),
    _kept(
        "fewer-input-cut",
        "fewer rows",
        "The input has lost rows since.",
        _done(rows=3),
        Put(name=THREE, content='{"id": 1, "text": "The parcel came four days late."}\n'),
        _refused(),
    ),
    _kept(
        "more-after-limit",
        "fewer rows",
        "After a trial with one row the whole file is done.",
        _done("-n", "1", rows=1),
        _done(rows=3, answered=3),
    ),
    _kept(
        "same-again",
        "fewer rows",
        "The same command again asks nothing and changes nothing.",
        Run(args=openai(), expect=Expect(answered=3, requests=3)),
        Run(args=openai(), expect=Expect(answered=3, requests=0, untouched=("out.jsonl",))),
    ),
)

_SAID = ("edited", "by hand", "changed by", "your own")

_EDITED = (
    _kept(
        "edit-jsonl",
        "cells edited by hand",
        "A label corrected by hand stays when rows are added.",
        _done(rows=3),
        Edit(name="out.jsonl", row=1, column="sentiment", value="mixed"),
        Put(name=THREE, content=_FOURTH, add=True),
        _done(rows=4, answered=4, cells=((1, "sentiment", "mixed"),), says=(_SAID,)),
    ),
    _kept(
        "edit-csv",
        "cells edited by hand",
        "The same in a table, with a summary.",
        _done(output="out.csv", rows=3),
        Edit(name="out.csv", row=0, column="summary", value="The parcel was late; refunded on 3 March."),
        Put(name=THREE, content=_FOURTH, add=True),
        _done(
            output="out.csv",
            rows=4,
            cells=((0, "summary", "The parcel was late; refunded on 3 March."),),
            says=(_SAID,),
        ),
    ),
    _kept(
        "edit-same-command",
        "cells edited by hand",
        "The same command again changes nothing.",
        _done(rows=3),
        Edit(name="out.jsonl", row=0, column="summary", value="Mine."),
        _done(rows=3, cells=((0, "summary", "Mine."),)),
    ),
    _kept(
        "edit-twice",
        "cells edited by hand",
        "The edit outlives several runs.",
        _done(rows=3),
        Edit(name="out.jsonl", row=0, column="summary", value="Mine."),
        Put(name=THREE, content=_FOURTH, add=True),
        _done(rows=4, cells=((0, "summary", "Mine."),)),
        Put(name=THREE, content='{"id": 5, "text": "The colours are lovely."}\n', add=True),
        _done(rows=5, cells=((0, "summary", "Mine."),), says=(_SAID,)),
    ),
    _kept(
        "edit-failed-row",
        "cells edited by hand",
        "A row that failed was filled in by hand: it is not asked again.",
        Run(args=openai(THREE, "--max-retries", "0"), expect=Expect(exit=3, answered=2, failed=1)),
        Edit(name="out.jsonl", row=1, column="sentiment", value="negative"),
        Edit(name="out.jsonl", row=1, column="summary", value="The customer could not reach anybody."),
        Run(
            args=openai(),
            expect=Expect(
                exit=(0, 3),
                requests=0,
                cells=((1, "sentiment", "negative"), (1, "summary", "The customer could not reach anybody.")),
            ),
        ),
        rules=(Rule(says("no idea"), {"prompt": ["picked up the phone"]}), Rule(GOOD)),
    ),
    _kept(
        "edit-own-column",
        "cells edited by hand",
        "A column of the user's own was added to the output.",
        _done(rows=3),
        Edit(name="out.jsonl", row=0, column="owner", value="Kim"),
        Put(name=THREE, content=_FOURTH, add=True),
        Run(
            args=scripted(THREE),
            expect=Expect(exit=(0, 2), cells=((0, "owner", "Kim"),)),
        ),
    ),
    _kept(
        "edit-input-text",
        "cells edited by hand",
        "A text was edited in the input: its row is asked again, the edited label of another row stays.",
        Run(args=openai(), expect=Expect(answered=3, requests=3)),
        Edit(name="out.jsonl", row=2, column="sentiment", value="mixed"),
        Edit(name=THREE, row=0, column="text", value="The parcel came five days late."),
        Run(args=openai(), expect=Expect(answered=3, requests=1, cells=((2, "sentiment", "mixed"),))),
    ),
)


def _changed(case: str, about: str, *changed: str, yes: str = "") -> Case:
    """All answers are there, and the next command would ask everything again."""
    again = openai(THREE, *changed, *((yes,) if yes else ()))
    asks = (
        Expect(answered=3, requests=9)
        if yes
        else Expect(exit=2, requests=0, says=("--yes", ("3", "9")), talk=6, untouched=("out.jsonl",))
    )
    return _kept(
        f"changed-{case}",
        "changes that ask everything again",
        about,
        Run(args=openai(), expect=Expect(answered=3, requests=3)),
        Run(args=again, expect=asks),
        models=("m", "other"),
    )


_CHANGED = (
    _changed("pipeline", "Another pipeline.", "-p", "steps"),
    _changed("pipeline-yes", "Another pipeline, and the user agrees.", "-p", "steps", yes="--yes"),
    _changed("pipeline-nightly", "Another pipeline in a nightly job.", "-p", "steps", yes="--nightly"),
    _changed("model", "Another model.", "-m", "other"),
    _changed("model-yes", "Another model, and the user agrees.", "-m", "other", yes="--yes"),
    _changed("temperature", "Another temperature.", "-t", "0.7"),
    _kept(
        "changed-backend",
        "changes that ask everything again",
        "Another backend.",
        Run(args=openai(), expect=Expect(answered=3, requests=3)),
        Run(args=scripted(THREE), expect=Expect(exit=2, says=("--yes",), untouched=("out.jsonl",))),
    ),
    _kept(
        "changed-fresh",
        "changes that ask everything again",
        "--fresh says by itself that everything is asked again.",
        Run(args=openai(), expect=Expect(answered=3, requests=3)),
        Run(args=openai(THREE, "--fresh"), expect=Expect(answered=3, requests=3)),
    ),
    _kept(
        "changed-edited",
        "changes that ask everything again",
        "Even then an edited cell stays.",
        Run(args=openai(), expect=Expect(answered=3, requests=3)),
        Edit(name="out.jsonl", row=1, column="sentiment", value="mixed"),
        Run(args=openai(THREE, "-p", "steps", "--yes"), expect=Expect(answered=3, cells=((1, "sentiment", "mixed"),))),
    ),
    _kept(
        "themes-file-missing",
        "refused starts",
        "A themes file that does not exist is an error, not an empty one.",
        _done(rows=3),
        Run(
            args=("themes", "out.jsonl", "-o", "themes.jsonl", "-b", "scripted", "--themes-file", "themse.toml"),
            output="themes.jsonl",
            expect=Expect(
                exit=2, says=("themse.toml",), talk=4, absent=("themes.jsonl", "themse.toml", "themes.jsonl.journal")
            ),
        ),
    ),
)

_NOTHING_LEFT = ("out.jsonl", "out.jsonl.journal", "out.jsonl.partial", "out.jsonl.lock")

_STARTS = (
    _kept(
        "start-no-input",
        "refused starts",
        "The input does not exist.",
        Run(args=scripted("nowhere.jsonl"), expect=Expect(exit=2, says=("nowhere.jsonl",), absent=_NOTHING_LEFT)),
    ),
    _kept(
        "start-no-column",
        "refused starts",
        "The column does not exist.",
        Run(args=scripted(THREE, "--text-field", "nope"), expect=Expect(exit=2, says=("nope",), absent=_NOTHING_LEFT)),
    ),
    _kept(
        "start-no-server",
        "refused starts",
        "Nobody listens at the address.",
        Run(
            args=(
                "summarise",
                THREE,
                "-o",
                "out.jsonl",
                "-b",
                "openai",
                "-m",
                "m",
                "--base-url",
                "{nobody}/v1",
                "-c",
                "1",
                "--max-wait",
                "1s",
            ),
            expect=Expect(exit=4, says=(("refused", "cannot reach"),), absent=_NOTHING_LEFT),
        ),
    ),
    _kept(
        "start-no-model",
        "refused starts",
        "Ollama does not have the model.",
        Run(
            args=(
                "summarise",
                THREE,
                "-o",
                "out.jsonl",
                "-b",
                "ollama",
                "-m",
                "nope",
                "--base-url",
                "{url}",
                "-c",
                "1",
            ),
            expect=Expect(exit=4, says=("nope",), absent=_NOTHING_LEFT),
        ),
    ),
    _kept(
        "start-bad-row",
        "refused starts",
        "A row cannot be read.",
        Put(name=THREE, content='{"id": 4, "text": \n', add=True),
        Run(args=scripted(THREE), expect=Expect(exit=2, says=(f"{THREE}:4",), absent=_NOTHING_LEFT)),
    ),
    _kept(
        "jobs-list",
        "refused starts",
        "Listing batches only reads.",
        _done(rows=3),
        Run(
            args=("jobs", "list", "--all"),
            output="none",
            expect=Expect(
                exit=0,
                untouched=("out.jsonl.journal", "out.jsonl"),
                absent=("out.jsonl.lock", "out.jsonl.journal-wal", "out.jsonl.journal-shm"),
            ),
        ),
    ),
)

CASES: tuple[Case, ...] = (*_FOREIGN, *_FEWER, *_EDITED, *_CHANGED, *_STARTS)
