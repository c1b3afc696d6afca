"""Nothing is lost that a person made: foreign files, finished outputs, cells edited by hand."""

from __future__ import annotations

import json
from typing import Any

from field.cases.common import THREE, openai, scripted
from field.model import Case, Edit, Expect, Put, Run, Save, Step
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


_TABLE = "rows.csv"
_ROWS = (
    "id,opened,score,done,comment\n"
    "007,2026-03-01,4.5,true,The parcel came four days late.\n"
    '008,2026-03-02,2.0,false,"Nobody picked up the phone,\nnot even on Monday."\n'
    "009,2026-03-11,3.5,true,The colours are lovely; müde bin ich nicht.\n"
)
_MORE = "010,2026-03-12,1.0,false,The manual is missing.\n"


def _saved(case: str, about: str, save: Save, *, more: bool = True, source: str = _OURS, **expect: Any) -> Case:
    """A table is done, saved by a spreadsheet program, and done again with one more row."""
    usual: dict[str, Any] = {"exit": 0, "rows": 3 + more, "answered": 3 + more}
    return _kept(
        f"saved-{case}",
        "outputs saved by a spreadsheet program",
        about,
        Put(name=_TABLE, content=_ROWS),
        _done(output="out.csv", source=_TABLE, rows=3),
        save,
        Put(name=_TABLE, content=_MORE if more else "", add=True),
        Run(args=scripted(_TABLE, output="out.csv"), output="out.csv", expect=Expect(**(usual | expect))),
        source=source,
        files=(),
    )


_MINE_0 = (0, "summary", "Late; refunded.")


def _save_out(*cells: tuple[int, str, str], **how: Any) -> Save:
    return Save(name="out.csv", cells=cells, **how)


_LOST = {"exit": 2, "rows": None, "answered": None, "says": ("--overwrite",), "untouched": ("out.csv",)}

_SAVED = (
    _saved(
        "excel-german",
        "Semicolons, Windows' characters, dates and numbers as people in Germany write them: only the edit is one.",
        _save_out(
            _MINE_0,
            *((at, "opened", day) for at, day in enumerate(("01.03.2026", "02.03.2026", "11.03.2026"))),
            *((at, "score", score) for at, score in enumerate(("4,5", "2", "3,5"))),
            *((at, "id", str(at + 7)) for at in range(3)),
            delimiter=";",
            encoding="cp1252",
        ),
        cells=(_MINE_0, (0, "id", "007"), (1, "opened", "2026-03-02"), (2, "score", "3.5")),
        says=(_SAID, "1 cell in 1 row"),
    ),
    _saved(
        "excel-unicode", "Tabs and UTF-16.", _save_out(_MINE_0, delimiter="\t", encoding="utf-16"), cells=(_MINE_0,)
    ),
    _saved(
        "excel-mark",
        "Semicolons and a mark.",
        _save_out(_MINE_0, delimiter=";", encoding="utf-8-sig"),
        cells=(_MINE_0,),
    ),
    _saved("libreoffice", "All cells are quoted.", _save_out(_MINE_0, quote_all=True), cells=(_MINE_0,)),
    _saved(
        "mac",
        "Numbers' and Excel's old encoding of a Mac: kept, or refused.",
        _save_out(_MINE_0, encoding="mac_roman"),
        exit=(0, 2),
        rows=None,
        answered=None,
        cells=(_MINE_0,),
    ),
    _saved(
        "untouched",
        "Saved without a change: nothing is said of edits.",
        _save_out(delimiter=";", encoding="utf-8-sig", quote_all=True),
        silent=("by hand",),
    ),
    _saved(
        "american",
        "Dates of the United States, and TRUE and FALSE.",
        _save_out(
            _MINE_0,
            *((at, "opened", day) for at, day in enumerate(("3/1/2026", "3/2/2026", "3/11/2026"))),
            *((at, "done", word) for at, word in enumerate(("TRUE", "FALSE", "TRUE"))),
        ),
        cells=(_MINE_0, (0, "opened", "2026-03-01"), (0, "done", "true")),
        says=("1 cell in 1 row",),
    ),
    _saved(
        "sorted",
        "The rows were sorted: the edit goes with its row.",
        _save_out((2, "sentiment", "mixed"), order=(2, 0, 1)),
        cells=((2, "sentiment", "mixed"), (0, "id", "007")),
    ),
    _saved(
        "deleted-row",
        "A row was deleted: it is written again, and that is said.",
        _save_out((2, "sentiment", "mixed"), order=(0, 2)),
        cells=((2, "sentiment", "mixed"),),
        says=("deleted",),
    ),
    _saved(
        "columns-moved",
        "Columns were moved.",
        _save_out(
            _MINE_0,
            columns=(
                "summary",
                "sentiment",
                "comment",
                "id",
                "opened",
                "score",
                "done",
                "main_complaint",
                "positive_aspect",
                "urgency",
                "error",
            ),
        ),
        cells=(_MINE_0,),
    ),
    _saved(
        "column-deleted",
        "A column of the run was deleted: its cells are written again, the edit stays.",
        _save_out(_MINE_0, columns=("id", "opened", "score", "done", "comment", "summary", "sentiment", "error")),
        cells=(_MINE_0,),
        columns=("urgency",),
    ),
    _saved(
        "input-columns-deleted",
        "All columns of the input but the text were deleted.",
        _save_out(_MINE_0, columns=("comment", "summary", "sentiment", "urgency", "error")),
        exit=(0, 2),
        rows=None,
        answered=None,
        cells=(_MINE_0,),
    ),
    _saved(
        "column-renamed",
        "A column of the run has another name: what is in it stays.",
        _save_out((0, "sentiment", "mixed"), renamed={"sentiment": "Stimmung"}),
        exit=(0, 2),
        rows=None,
        answered=None,
        cells=((0, "Stimmung", "mixed"),),
    ),
    _saved(
        "own-columns",
        "Two columns of the user's own, one of them without a name.",
        _save_out((0, "owner", "Kim"), (1, "", "call back"), delimiter=";"),
        exit=(0, 2),
        rows=None,
        answered=None,
        cells=((0, "owner", "Kim"),),
    ),
    _saved(
        "row-added",
        "A row was added by hand, and it is not in the input: nothing is lost.",
        _save_out(added=({"id": "100", "comment": "Said on the phone: never again.", "sentiment": "negative"},)),
        **_LOST,
    ),
    _saved(
        "cleared",
        "A cell was emptied: it stays empty.",
        _save_out((0, "summary", "")),
        cells=((0, "summary", ""),),
        says=(_SAID,),
    ),
    _saved(
        "note-in-text",
        "A remark was written behind the feedback itself.",
        _save_out((0, "comment", "The parcel came four days late. (called him)")),
        exit=(0, 2),
        rows=None,
        answered=None,
        cells=((0, "comment", "The parcel came four days late. (called him)"),),
    ),
    _saved(
        "no-header",
        "Names in the header were deleted: what is below them stays.",
        _save_out(_MINE_0, renamed=dict.fromkeys(("id", "comment", "summary", "sentiment"), "")),
        exit=(0, 2),
        rows=None,
        answered=None,
        cells=((0, "column_6", "Late; refunded."),),
    ),
    _kept(
        "saved-pretty",
        "outputs saved by an editor",
        "JSON was formatted, and its names sorted.",
        Run(args=scripted(THREE, output="out.json"), output="none", expect=Expect()),
        Put(
            name="out.json",
            content=json.dumps(
                [
                    {
                        "urgency": "low",
                        "text": "The parcel came four days late.",
                        "sentiment": "mixed",
                        "summary": "Mine.",
                        "id": 1,
                    },
                ],
                indent=4,
            ),
        ),
        Run(args=scripted(THREE, output="out.json"), output="none", expect=Expect(exit=0, says=(_SAID, "deleted"))),
    ),
    _kept(
        "saved-input-sorted",
        "cells edited by hand",
        "The input was sorted since: the edit goes with its row.",
        Put(name=_TABLE, content=_ROWS),
        _done(output="out.csv", source=_TABLE, rows=3),
        Edit(name="out.csv", row=0, column="summary", value="Mine."),
        Save(name=_TABLE, order=(2, 1, 0)),
        _done(output="out.csv", source=_TABLE, rows=3, cells=((2, "summary", "Mine."), (2, "id", "007"))),
    ),
    _kept(
        "saved-directory",
        "foreign outputs",
        "The output is a folder: one line, and nothing is left.",
        Put(name="out.jsonl/mine.txt", content="my own work"),
        Run(
            args=scripted(THREE),
            output="none",
            expect=Expect(
                exit=(2, 5),
                says=("out.jsonl",),
                talk=4,
                untouched=("out.jsonl/mine.txt",),
                absent=("out.jsonl.journal",),
            ),
        ),
    ),
    _kept(
        "saved-backup",
        "foreign outputs",
        "A copy of an output under another name is a file of the user's.",
        _done(rows=3),
        Put(name="copy.jsonl", content='{"id": 1, "text": "The parcel came four days late.", "summary": "x"}\n'),
        _refused(output="copy.jsonl"),
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

CASES: tuple[Case, ...] = (*_FOREIGN, *_FEWER, *_EDITED, *_SAVED, *_CHANGED, *_STARTS)
