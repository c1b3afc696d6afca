"""Files, outputs that people have edited, and names: public reports and formats that were searched out last."""

# ruff: noqa: E501 - exports are shown as they are

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from field.cases.common import scripted
from field.cases.reports import _GOOD, _LATE, _json, _jsonl, _read, _refused, _table, _two
from field.model import Case, Edit, Expect, Put, Run, Save

_ROWS = "".join(_two(lambda n, text: f"{n},{text}\n"))
_TABLE = f"id,feedback\n{_ROWS}"


def _rows(row: str) -> str:
    """The two rows; `{n}` is the row's number and `{text}` its text."""
    return "".join(_two(lambda n, text: row.format(n=n, text=text) + "\n"))


def _extra(case: str, source: str, about: str, header: str, row: str, *flags: str, **expect: Any) -> Case:
    """A table with rows below its header, or above it, that are none."""
    return _read(f"header-{case}", "extra header rows", source, about, "in.csv", header + _rows(row), *flags, **expect)


_LEFT_OUT = ("left out",)
_HEADERS = (
    _extra("levels", "pandas-dev/pandas#3575", "pandas writes each level of the columns' names on a line, and an index.", ",meta,meta,survey\n,id,date,comment\n", "{n},{n},2024,{text}", columns=("comment",), says=_LEFT_OUT),
    _extra("levels-no-index", "pandas-dev/pandas#5298", "The same without an index.", "meta,meta,survey\nid,date,comment\n", "{n},2024,{text}", columns=("comment",), says=_LEFT_OUT),
    _extra("levels-index-name", "pandas-dev/pandas#21995", "The name of the index stands on a line of its own.", ",meta,meta,survey\n,id,date,comment\nrow,,,\n", "{n},{n},2024,{text}", says=_LEFT_OUT),
    _extra("levels-names", "pandas-dev/pandas#3575", "The levels have names, too.", "level,meta,meta,survey\nname,id,date,comment\nrow,,,\n", "{n},{n},2024,{text}", says=_LEFT_OUT),
    _extra("levels-hole", "pandas-dev/pandas#17086", "A column has a name on the first level only.", ",survey,survey,product\n,rating,comment,\n", "{n},4,{text},kettle", columns=("product", "comment"), says=_LEFT_OUT),
    _extra("levels-functions", "pandas-dev/pandas#5539", "The second level has the functions that were applied.", "product,rating,rating,comment\n,mean,count,first\n", "k{n},4.2,3,{text}", columns=("comment",), says=("extra header row",)),
    _extra("types", "ClickHouse: CSVWithNamesAndTypes", "The second line has the types.", '"id","feedback"\n"UInt32","Nullable(String)"\n', '{n},"{text}"', says=("extra header row",)),
    _extra("types-sql", "exports that describe their columns", "The same with the types of SQL.", "id,created,feedback\ninteger,timestamp with time zone,varchar(255)\n", "{n},2024-03-01,{text}", says=("extra header row",)),
    _extra("codes", "LimeSurvey's VV export", "The second line has the codes of the questions.", "ID\tToken\tDate submitted\tLast page\tHow satisfied are you?\tWhat could we improve?\nid\ttoken\tsubmitdate\tlastpage\tG01Q01\tG01Q02\n", "{n}\tabc\t2024-03-01 10:00:00\t2\tA3\t{text}", says=("extra header row",)),
    _extra("questions", "SoGoSurvey's export", "The second line has the questions, and nothing about the respondent.", "Response No,Completion Date,Q1,Q2\n,,How satisfied are you?,Please share any comments\n", '{n},2024-03-01,4,"{text}"', says=("Q2", "extra header row")),
    _read("header-first-row-is-data", "extra header rows", "tables whose first row has a hole", "A word among numbers, and an empty cell, make no header of a row.", "in.csv", "id,score,feedback\n,unknown,The seat is torn.\n" + _rows("{n},4,{text}"), rows=3, answered=3, summaries=("seat", "two weeks", "love it")),
    _extra("title-with-word", "QuestionPro's export", "The survey's name, above the table, has a word for a text.", "Survey Name,Customer Feedback 2024\nTotal Responses,2\n\nResponse ID,Response Status,IP Address,Duplicate,Country Code,Q1. How likely are you to recommend us?,Q2. Why?\n", '{n},Completed,1.1.1.1,,DE,4,"{text}"', says=("Q2", *_LEFT_OUT)),
    _extra("title-filled-up", "monday.com's export of a board", "The board's name, and that of its group, stand above.", "Feedback board,,,\nInbox,,,\nName,Feedback,Status,Date\n", "T{n},{text},New,2024", columns=("Feedback",), says=_LEFT_OUT),
    _extra("title-with-commas", "Google Ads' reports", "A title has a word for a text, and the dates below it have commas.", "Feedback report\nMarch 1, 2024 - March 31, 2024\nCampaign,Comment,Clicks\n", 'a,"{text}",{n}', columns=("Comment",), says=_LEFT_OUT),
)  # fmt: skip


def _apart(case: str, source: str, about: str, value: object, **expect: Any) -> Case:
    return _json(f"apart-{case}", source, about, value, **expect)


_LISTS = [[1, _LATE], [2, _GOOD]]
_NAMED = [{"name": "id", "type": "bigint"}, {"name": "comment", "type": "varchar"}]
_JSON = (
    _apart("split", "pandas, to_json(orient='split')", "Names, index and rows are lists of their own.", {"columns": ["id", "feedback"], "index": [0, 1], "data": _LISTS}),
    _apart("columns", "pandas, to_json", "Each column is an object.", {"id": {"0": 1, "1": 2}, "feedback": {"0": _LATE, "1": _GOOD}}),
    _apart("lists", "ClickHouse: JSONColumns", "Each column is a list.", {"id": [1, 2], "feedback": [_LATE, _GOOD]}),
    _apart("metabase", "Metabase's API, dataset", "The names are objects next to the rows.", {"data": {"rows": _LISTS, "cols": [{"name": "id"}, {"name": "comment", "display_name": "Comment"}], "native_form": {"query": "SELECT"}}, "row_count": 2}),
    _apart("socrata", "Socrata's rows.json", "The names are deep inside the description.", {"meta": {"view": {"id": "a", "name": "Reviews", "columns": [{"id": 1, "name": "sid"}, {"id": 2, "name": "Review Text"}]}}, "data": _LISTS}),
    _apart("datasette", "Datasette's API", "Names and rows, and whether there are more.", {"ok": True, "columns": ["id", "review"], "rows": _LISTS, "truncated": False}),
    _apart("trino", "Trino's and Elasticsearch's SQL", "The names are objects with types.", {"id": "x", "columns": _NAMED, "data": _LISTS, "stats": {"state": "FINISHED"}}),
    _apart("influx", "InfluxDB's API", "The same inside two lists.", {"results": [{"statement_id": 0, "series": [{"name": "r", "columns": ["time", "comment"], "values": _LISTS}]}]}),
    _json("yt-dlp", "yt-dlp: --write-comments", "The comments stand inside what describes the film.", {"id": "v", "title": "A film", "description": "We show our new kettle today.", "formats": [{"format_id": "1", "url": "https://x"}], "thumbnails": [{"url": "https://x"}], "comments": _two(lambda n, text: {"id": n, "text": text, "author": "ann", "parent": "root"})}),
    _json("product", "shops' APIs: a product with its reviews", "The same with a product.", {"id": 5, "title": "Kettle", "description": "A kettle of steel for your kitchen.", "reviews": _two(lambda n, text: {"id": n, "body": text, "rating": 2})}),
    _json("issue", "GitHub's API, one issue", "A text of its own is more than the comments on it.", {"id": 5, "title": "Late", "body": _LATE, "comments": [{"body": "Same here for me."}]}, rows=1, answered=1, summaries=("two weeks",)),
    *(
        _json(f"behind-{name}", source, "What is behind the name tells a type, a form or a language.", _two(lambda n, text, form=form: {"id": n, "content": {form: text}}), says=(f"content.{form}",))
        for name, source, form in (("wordpress", "WordPress' API, comments", "rendered"), ("firestore", "Firestore's API", "stringValue"), ("gdata", "Google's older feeds", "$t"), ("xml", "XML as JSON", "#text"), ("language", "texts in languages", "en"))
    ),
    _refused("api-error", "names that mislead", "curl -o, with a wrong key", "An API's error was stored as the export: it is no feedback.", "in.csv", '{"error":{"code":401,"message":"The key is not valid any more."}}\n', "error of an API"),
    _read("json-as-csv", "names that mislead", "exports under a wrong name", "An array is called .csv: it is read, and that is said.", "in.csv", json.dumps(_two(lambda n, text: {"id": n, "text": text})), says=("json",)),
    _refused("json-in-cells", "the text column", "Docker's logs, events as JSON in a cell", "A cell that holds JSON is no text: nobody is asked about it.", "in.jsonl", _jsonl(*_two(lambda n, text: {"log": json.dumps({"id": n, "text": text}), "stream": "stdout"})), "--text-field"),
)  # fmt: skip

_COLUMNS = (
    _table("formstack", "Formstack's export", "Tell us about your visit", '"Time","Unique ID","First Name","Rating","Tell us about your visit","Browser"', '"2024","{n}","Ann","2","{text}","Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)"'),
    _table("why-score", "Stata: export delimited", "why_score", "respid,score,why_score", '{n},4,"{text}"'),
    _table("rating-comment", "ratings with a comment each", "Rating Comment", "ID,Star Rating,Rating Comment", '{n},4,"{text}"'),
    _table("score-reason", "scores with a reason each", "csat_score_reason", "id,csat_score,csat_score_reason", '{n},4,"{text}"'),
    _table("survicate", "Survicate's export", "main reason", 'Response uuid,Page,"Q#1: How likely are you to recommend us?","Q#1: How likely are you to recommend us? (Comment)","Q#2: What is the main reason for your score?"', 'u{n},https://x.example,2,,"{text}"'),
    _table("redcap", "REDCap's export with labels", "Please tell us why", '"Record ID","Event Name","Survey Timestamp","How satisfied are you?","Please tell us why:","Complete?"', '{n},Baseline,2024,Satisfied,"{text}",Complete'),
    _table("odk-central", "ODK Central's export", "grp-any_comments", "SubmissionDate,start,grp-rating,grp-any_comments,meta-instanceID,KEY,SubmitterName,Status", '2024,2024,4,"{text}",uuid:{n},uuid:{n},Ann Field,0'),
    _table("discourse-staff", "staff's and customers' words", "Customer Comments", "id,Agent Comments,Customer Comments", '{n},"Called the customer back twice.","{text}"'),
    _refused("sprig", "the text column", "Sprig's export", "Questions and answers take turns: the columns are named, and none is guessed.", "in.csv", "response_id,question_1,response_1,question_2,response_2\n" + _rows('{n},How easy was it for you?,2,What made it hard for you?,"{text}"'), "--text-field"),
)  # fmt: skip


def _encoded(name: str, encoding: str, header: str, late: str, good: str) -> Case:
    content = f"id,{header}\n1,{late}\n2,{good}\n"
    return _refused(f"encoding-{name}", "encodings", f"older programs: {encoding}", "One line names the flag.", "in.csv", content, f"--encoding {encoding}", encoding=encoding)  # fmt: skip


_TABLES = (
    _encoded("euc-jp", "euc-jp", "ご意見", "配送に二週間かかりました。とても残念です。", "とても良い商品です。ありがとうございます。"),
    _encoded("iso-2022-jp", "iso-2022-jp", "ご意見", "配送に二週間かかりました。とても残念です。", "とても良い商品です。"),
    _encoded("koi8-r", "koi8-r", "отзыв", "Доставка заняла две недели очень плохо", "Очень нравится спасибо"),
    _encoded("cp866", "cp866", "отзыв", "Доставка заняла две недели очень плохо", "Очень нравится спасибо"),
    _encoded("hebrew", "cp1255", "תגובה", "המשלוח לקח שבועיים וזה ארוך מדי", "אני מאוד אוהב את זה תודה"),
    _encoded("arabic", "cp1256", "تعليق", "استغرق التوصيل أسبوعين وهذا طويل جدا", "أحب هذا المنتج كثيرا شكرا لكم"),
    *(
        _read(f"delimiter-{name}", "delimiters", source, about, file, header + _rows(row))
        for name, source, about, file, header, row in (
            ("tilde", "EDI and mainframes", "Tildes separate.", "in.txt", "id~feedback\n", "{n}~{text}"),
            ("caret-unsaid", "mainframe exports", "Carets separate, and nobody says so.", "in.csv", "id^feedback\n", "{n}^{text}"),
            ("control-a-unsaid", "Hive's text files", "Ctrl-A separates, and nobody says so.", "in.csv", "id\x01feedback\n", "{n}\x01{text}"),
            ("tsv-commas", "exports under a wrong name", "Commas separate in a file called .tsv.", "in.tsv", "id,feedback\n", "{n},{text}"),
            ("tsv-semicolons", "exports under a wrong name", "Semicolons separate in a file called .tsv.", "in.tsv", "id;feedback\n", "{n};{text}"),
            ("row-names", "R: write.table", "Blanks separate, texts are quoted, and each row has a name.", "in.txt", '"id" "comment"\n', '"{n}" {n} "{text}"'),
        )
    ),
    _read("ctrl-z", "line ends", "DOS programs: the end of a file", "A control character ends the file.", "in.csv", f"{_TABLE}\x1a"),
    _read("spreadsheet-errors", "empty cells", "Excel: a text that begins with an equals sign", "A cell holds the error of a formula: there is nothing to ask about.", "in.csv", f"id,feedback\n1,#NAME?\n{_ROWS}", rows=3, summaries=("", "two weeks", "love it")),
    *(
        _refused(f"no-table-{name}", "names that mislead", source, "The file is no table: one line says what it is.", "in.txt", content, says)
        for name, source, content, says in (
            ("mail", "a mail saved as a file", f"From: ann@x.example\nTo: shop@x.example\nSubject: Late\n\n{_LATE}\n", "e-mail"),
            ("mailbox", "a mailbox", f"From ann@x.example Fri Mar  1 10:00:00 2024\nSubject: Late\n\n{_LATE}\n", "e-mail"),
            ("web-archive", "Excel: single file web page", "MIME-Version: 1.0\nX-Document-Type: Workbook\nContent-Type: multipart/related\n\n", "e-mail"),
            ("rows-down", "mysql: \\G", f"*************************** 1. row ***************************\n      id: 1\nfeedback: {_LATE}\n", "printed"),
            ("expanded", "psql: \\x", f"-[ RECORD 1 ]-----\nid       | 1\nfeedback | {_LATE}\n", "printed"),
            ("boxes", "DuckDB's shell", f"┌───────┬──────────┐\n│  id   │ feedback │\n├───────┼──────────┤\n│     1 │ {_LATE} │\n└───────┴──────────┘\n", "printed"),
            ("spss", "SPSS", "$FL2@(#) SPSS DATA FILE MS Windows 25.0\n", "SPSS"),
            ("stata", "Stata", "<stata_dta><header><release>118</release>\n", "Stata"),
        )
    ),
)  # fmt: skip


def _binary(case: str, source: str, about: str, name: str, data: bytes, **expect: Any) -> Case:
    return _read(case, "binary files", source, about, name, data.decode("latin-1"), encoding="latin-1", **expect)


def _database(*statements: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.db"
        connection = sqlite3.connect(path)
        for statement in ("CREATE TABLE r (id, comment)", *statements):
            connection.execute(statement)
        connection.executemany("INSERT INTO r VALUES (?, ?)", _LISTS)
        connection.commit()
        connection.close()
        return path.read_bytes()


def _arrow_stream() -> bytes:
    import pyarrow

    table = pyarrow.table({"id": [1, 2], "comment": [_LATE, _GOOD]})
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]  # no types


_BINARY = (
    _binary("packed-twice", "web servers that pack what is packed", "The file is compressed twice.", "in.csv.gz", gzip.compress(gzip.compress(_TABLE.encode()))),
    _binary("database-tables", "Django's db.sqlite3", "Of several tables one has a column that looks like the text.", "in.db", _database("CREATE TABLE migrations (id, app, name)", "CREATE TABLE users (id, name)"), says=("'r'", "not read")),
    _binary("arrow-stream", "Hugging Face datasets", "A data set is stored as a stream of Arrow.", "in.arrow", _arrow_stream(), says=("comment",)),
)  # fmt: skip

# Outputs that people have edited, and names.

_AGAIN = scripted("in.csv", output="out.csv")
_FIRST = (Put(name="in.csv", content=_TABLE), Run(args=_AGAIN, output="out.csv", expect=Expect(rows=2, answered=2)))


def _edited(case: str, about: str, *steps: Save | Edit | Put, source: str = "the issue: nothing lost that a person made", **expect: Any) -> Case:  # fmt: skip
    """A case whose second run keeps what was edited, unless the expectation says otherwise."""
    usual: dict[str, Any] = {"rows": 2, "cells": ((0, "sentiment", "mixed"),)}
    again = Run(args=_AGAIN, output="out.csv", expect=Expect(**(usual | expect)))
    kind = "outputs saved by a spreadsheet program"
    return Case(id=f"edited-{case}", kind=kind, source=source, about=about, steps=(*_FIRST, *steps, again))


_MIXED = ((0, "sentiment", "mixed"),)
_KEPT: dict[str, Any] = {"exit": 2, "untouched": ("out.csv",), "cells": (), "rows": None}
_EDITED = (
    _edited("names-in-capitals", "The names were written in capitals: they are the same columns.", Save(name="out.csv", cells=_MIXED, renamed={"feedback": "FEEDBACK", "sentiment": "Sentiment", "summary": "SUMMARY"}), columns=("feedback", "summary"), without=("FEEDBACK", "mellea_summary")),
    _edited("blank-row", "An empty row was put below the others: it holds nothing.", Save(name="out.csv", cells=_MIXED, added=({},))),
    _edited("japanese", "A remark in Japanese, in the encoding of Japanese Excel.", Save(name="out.csv", cells=((0, "summary", "配送に二週間かかりました。とても残念です。"),), encoding="cp932"), cells=((0, "summary", "配送に二週間かかりました。とても残念です。"),)),
    _edited("remark-below", "A remark stands below the rows: it is not removed.", Save(name="out.csv", cells=_MIXED), Put(name="out.csv", content="\r\nChecked by Ann on Friday\r\n", add=True), says=("line below the rows", "--overwrite"), **_KEPT),
    _edited("long-id", "A long id was shortened: the edit goes with its row.", Save(name="out.csv", cells=(*_MIXED, (0, "id", "1.0"))), source="archimatetool/archi#192"),
)  # fmt: skip


def _named(case: str, source: str, about: str, args: tuple[str, ...], *says: str, env: dict[str, str | None] | None = None, **expect: Any) -> Case:  # fmt: skip
    run = Run(args=args, output="out.csv", env=env or {}, expect=Expect(says=says, **expect))
    steps = (Put(name="in.csv", content=_TABLE), Put(name="c.toml", content="\ufeffconcurrency = 2\r\n"), run)
    return Case(id=f"name-{case}", kind="file names", source=source, about=about, steps=steps)


_NAMES = (
    _named("empty-input", "elixir-ai-tools/just_bash#79", "The variable with the input's name is not set: the folder is not read instead.", scripted("", output="out.csv"), "no input was named", exit=2, rows=0, talk=4),
    _named("empty-output", "elixir-ai-tools/just_bash#79", "The variable with the output's name is not set: one line says so.", scripted("in.csv", output=""), "empty", exit=5, rows=0, talk=4),
    _named("settings-mark", "influxdata/telegraf#1378, MoonshotAI/kimi-cli#2043", "Windows' editor has put a mark in front of the settings.", _AGAIN, rows=2, answered=2, env={"MELLEA_CONFIG": "{folder}/c.toml"}),
)  # fmt: skip

CASES: tuple[Case, ...] = (*_HEADERS, *_JSON, *_COLUMNS, *_TABLES, *_BINARY, *_EDITED, *_NAMES)
