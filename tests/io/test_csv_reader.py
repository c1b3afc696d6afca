"""The CSV reader: dialects, the header among other lines, and what is no row."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

import pytest

from mellea_cli.errors import InputError, UsageError
from mellea_cli.io.csv_reader import TableLayout, TableOptions, find_layout, known_delimiter, stated_delimiter
from mellea_cli.io.source import SourceOptions, open_source


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("id,text\n1,a;b;c\n2,d;e;f\n", ","),
        ("id;text\n1;a, b\n2;c, d\n", ";"),
        ("id\ttext\n1\ta, b; c|d\n", "\t"),
        ("id|text|n\n1|a, b, c|2\n", "|"),
        ("text\na, b\nc, d\n", "\x1f"),
        ('"text, in words";id\n"a, b";1\n', ";"),
        ("id;note, if any;text\n1;a;b\n2;c;d\n", ";"),
        ('id;text\n1;"a\nb, c; d"\n', ";"),
        ("id,price;unit,text\n1,2,a\n2,3,b\n", ","),
        ("a;b,c\n", ","),
        ("", ","),
        ("Datum;Note;Kommentar\n1;2,5;gut, nett, hell\n2;3,5;laut, kalt, eng\n", ";"),
        ("Report; of March; all\n\nid,comment\n1,a; b; c\n", ","),
    ],
)
def test_delimiter_is_found(text: str, delimiter: str) -> None:
    """Separators inside text, quotes and titles do not mislead."""
    assert find_layout(text, TableOptions()).delimiter == delimiter


@pytest.mark.parametrize(
    ("wanted", "delimiter"), [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), ("PIPE", "|"), ("^", "^")]
)
def test_named_delimiters_are_known(wanted: str, delimiter: str) -> None:
    """One character, or a word that is easier to type."""
    assert known_delimiter(wanted) == delimiter


@pytest.mark.parametrize("wanted", ["", ",,", '"', "\n", "\0", "word"])
def test_what_cannot_separate_is_refused(wanted: str) -> None:
    """Quotes, line ends and more than one character are no delimiters."""
    with pytest.raises(UsageError, match="cannot be a delimiter"):
        known_delimiter(wanted)


@pytest.mark.parametrize(
    ("line", "delimiter"),
    [
        ("sep=;\r\n", ";"),
        ("\ufeffSEP=|\n", "|"),
        ('"sep=;"\n', ";"),
        ('\ufeff"Sep=,",,,\r\n', ","),
        ("sep = ;\n", ";"),
        ("sep=;;;;\n", ";"),
        ('sep=";"\n', ";"),
        ("sep=\t\n", "\t"),
        ("sep=\\t\n", "\t"),
        ("  sep=^  \n", "^"),
        ("sep=\n", None),
        ("separator\n", None),
        ("sep=;comment\n", None),
    ],
)
def test_line_that_states_the_delimiter_is_read(line: str, delimiter: str | None) -> None:
    """Excel's first line is understood in every spelling that other programs make of it."""
    assert stated_delimiter(line) == delimiter


@dataclass
class Table:
    """A table as some program writes it, and what must come of it."""

    about: str
    text: str
    texts: list[str]
    says: list[str] = field(default_factory=list)
    """Parts of the notes, without their column's note."""
    options: SourceOptions = field(default_factory=lambda: SourceOptions(text_field="comment"))


_ID = '"{{""ImportId"":""{}""}}"'.format
_QUALTRICS = "StartDate,ResponseId,comment\n"
_QUESTIONS = 'Start Date,Response ID,"Why?\n\nPlease, be specific."\n'
_IDS = f"{_ID('startDate')},{_ID('_recordId')},{_ID('QID3_TEXT')}\n"

TABLES = [
    Table("blank before quotes", 'id, comment\n1, "late, or not"\n2, "fine"\n', ["late, or not", "fine"]),
    Table("blank in a quoted text", 'id,comment\n1,"late, ""or"" not"\n', ['late, "or" not']),
    Table("escaped bar", "id|comment\n1|late \\| early\n2|fine\n", ["late | early", "fine"]),
    Table("commas in the only column", "comment\nlate, really\nfine\n", ["late, really", "fine"]),
    Table("a mark in front of a quote", '\ufeff"comment","id"\n"late","1"\n', ["late"]),
    Table(
        "a mark in the middle",
        '"comment","id"\n"late","1"\n\ufeff"comment","id"\n"fine","2"\n',
        ["late", "fine"],
        ["1 repeated header (line 3)"],
    ),
    Table(
        "merged cells above",
        "Customer,,Comment,\nid,name,stars,comment\n1,Ann,2,late\n",
        ["late"],
        ["1 line above the header, which is line 2"],
    ),
    Table(
        "groups that are named again, an index and its name",
        ",meta,meta,survey\n,id,date,comment\nrow,,,\n0,1,2024,late\n1,2,2024,fine\n",
        ["late", "fine"],
        ["1 line above the header, which is line 2", "1 extra header row (line 3)"],
    ),
    Table(
        "a group with one column",
        ",survey,survey,product\n,rating,comment,\n0,1,late,kettle\n",
        ["late"],
        ["1 line above the header, which is line 2"],
    ),
    Table(
        "functions below the names",
        "product,rating,rating,comment\n,mean,count,first\na,4.2,3,late\nb,4.1,2,fine\n",
        ["late", "fine"],
        ["'rating' and is called 'rating_2'", "1 extra header row (line 2)"],
    ),
    Table(
        "types below the names",
        "id,comment\nUInt32,Nullable(String)\n1,late\n",
        ["late"],
        ["1 extra header row (line 2)"],
    ),
    Table(
        "codes below the names",
        "ID,Token,comment\nid,token,Q1\n1,a,late\n2,b,fine\n",
        ["late", "fine"],
        ["1 extra header row (line 2)"],
    ),
    Table(
        "questions below codes, and no respondent",
        "no,Q1,Q2\n,How satisfied are you?,Why do you say so?\n1,4,late by two weeks\n2,5,so far so good\n",
        ["late by two weeks", "so far so good"],
        ["1 extra header row (line 2)"],
        SourceOptions(text_field="Q2"),
    ),
    Table(
        "a hole and a word among numbers",
        "id,score,comment\n,unknown,late\n1,4,fine\n2,5,good\n",
        ["late", "fine", "good"],
    ),
    Table(
        "a title with the word for a text",
        "Survey,Customer comment\nid,channel,a,b,comment\n1,web,,,late\n2,app,,,fine\n",
        ["late", "fine"],
        ["1 line above the header, which is line 2"],
    ),
    Table(
        "a title with the word for a text, which a spreadsheet has filled up",
        "Feedback board,,\nInbox,,\nid,channel,comment\n1,web,late\n",
        ["late"],
        ["2 lines above the header, which is line 3"],
    ),
    Table(
        "a title with commas",
        "Comments\nMarch 1, 2024 - March 31, 2024\nid,comment,n\n1,late,3\n",
        ["late"],
        ["2 lines above the header, which is line 3"],
    ),
    Table("R, write.table with blanks", '"id" "comment"\n"1" 7 "late again"\n"2" 8 "fine"\n', ["late again", "fine"]),
    Table("tildes", "id~comment\n1~late, really\n2~fine\n", ["late, really", "fine"]),
    Table("the end of a DOS file", "id,comment\n1,late\n\x1a", ["late"], ["1 line outside the table (line 3)"]),
    Table("letters above", "A,B\nid,comment\n1,late\n", ["late"], ["1 line above the header"]),
    Table("a prompt above", "SQL> select id, comment;\nid,comment\n1,late\n", ["late"], ["1 line above the header"]),
    Table("a rule of Markdown", "|id|comment|\n|--|:--|\n|1|late|\n", ["late"], ["1 extra header row (line 2)"]),
    Table("a rule of psql", "id|comment\n--+------\n1|late\n", ["late"], ["1 extra header row (line 2)"]),
    Table(
        "delimiters that Excel leaves out",
        "id,comment,by\n1,late,Kim\n2,fine\n3,good\n4,bad,Kim\n",
        ["late", "fine", "good", "bad"],
        ["2 rows with fewer cells than the header, filled up (lines 3, 4)"],
    ),
    Table(
        "Qualtrics",
        _QUALTRICS + _QUESTIONS + _IDS + "d,R_1,late\nd,R_2,fine\n",
        ["late", "fine"],
        ["2 extra header rows (lines 2, 5)"],
    ),
    Table(
        "Qualtrics without the questions", _QUALTRICS + _IDS + "d,R_1,late\n", ["late"], ["1 extra header row (line 2)"]
    ),
    Table(
        "two Qualtrics exports, glued",
        (_QUALTRICS + _QUESTIONS + _IDS + "d,R_1,late\n") * 2,
        ["late", "late"],
        ["4 extra header rows (lines 2, 5, 8, 11)", "1 repeated header (line 7)"],
    ),
    Table(
        "Qualtrics' older format",
        "V1,V8,comment\nResponseID,StartDate,Why?\nR_1,d,late\n",
        ["late"],
        ["1 extra header row (line 2)"],
    ),
    Table(
        "SurveyMonkey in German",
        "Respondent ID,Was nutzen Sie?,,comment\n,Laden,App,Offene Antwort\n1,Laden,,late\n2,,App,fine\n",
        ["late", "fine"],
        ["1 extra header row (line 2)"],
    ),
    Table(
        "sqlcmd",
        "id,comment\n--,-------\n1,late\n2,fine\n\n(2 rows affected)\n",
        ["late", "fine"],
        ["1 extra header row (line 2)", "1 line below the rows (line 6)"],
    ),
    Table("psql, unaligned", "id|comment\n1|late\n(1 row)\n", ["late"], ["1 line outside the table (line 3)"]),
    Table(
        "PostgreSQL, COPY", "id\tcomment\n1\tlate\n2\t\\N\n\\.\n", ["late", ""], ["1 line outside the table (line 4)"]
    ),
    Table(
        "a title that a spreadsheet has filled up",
        "Feedback of March,,\nExported on,2 March,\n,,\nid,channel,comment\n1,web,late\n2,app,fine\n",
        ["late", "fine"],
        ["2 lines above the header, which is line 4"],
    ),
    Table(
        "a title of one word that may be a column",
        "Comment\nid,channel,comment\n1,web,late\n2,web,fine\n",
        ["late", "fine"],
        ["1 line above the header, which is line 2"],
    ),
    Table(
        "comments above the header and among the rows",
        "# made by a tool, version 2\n# a=1\nid,comment\n1,late\n# part 2, of 2\n2,fine\n",
        ["late", "fine"],
        ["2 lines above the header, which is line 3", "1 comment line (line 5)"],
    ),
    Table("a column of texts with number signs", "comment\n#1 in town\n# 2 in town\n", ["#1 in town", "# 2 in town"]),
    Table(
        "a column of texts with commas",
        'comment\nlate\n"good, but late"\nfine\n',
        ["late", "good, but late", "fine"],
    ),
    Table(
        "glued with the columns in another order",
        "id,comment\n1,late\ncomment,id\nfine,2\n",
        ["late", "fine"],
        ["1 repeated header (line 3)"],
    ),
    Table(
        "glued with titles and sep lines",
        "sep=;\nFeedback\nid;comment\n1;late\nsep=;\nFeedback\nID;Comment\n2;fine\n",
        ["late", "fine"],
        ["1 line above the header, which is line 3", "1 repeated header (line 7)", "(lines 5, 6)"],
    ),
    Table("a text that is the name of its column", "id,comment\n1,comment\n2,id\n", ["comment", "id"]),
    Table(
        "a footer below a blank line",
        "id,comment\n1,late\n\nConfidential\nPrinted by Kim\n",
        ["late"],
        ["2 lines below the rows (lines 4, 5)"],
    ),
    Table("R, write.table", '"id","comment"\n"1",7,"late"\n"2",8,"fine"\n', ["late", "fine"]),
    Table("MySQL, INTO OUTFILE", '"id","comment"\n1,"a \\"b\\", c"\n2,\\N\n3,"d\\\ne"\n', ['a "b", c', "", "d\ne"]),
    Table("Windows paths", '"id","comment"\n1,"C:\\temp\\"\n2,"fine"\n', ["C:\\temp\\", "fine"]),
    Table("single quotes", "id,comment\n1,'late, again'\n2,'so so'\n", ["late, again", "so so"]),
    Table("apostrophes", "id,comment\n1,'twas late\n2,'course\n", ["'twas late", "'course"]),
    Table("quoted lines", '"id,comment"\n"1,late"\n"2,""so, so"""\n', ["late", "so, so"]),
    Table(
        "names that are codes, and what they mean",
        "no,comment\nNumber of the row,What do you say?\n1,late\n2,so so\n",
        ["late", "so so"],
        ["1 extra header row (line 2)"],
    ),
    Table("tabs without quoting", 'id\tcomment\n1\t"Works" so so\n2\t5" long\n', ['"Works" so so', '5" long']),
    Table("rows without anything", "id,comment,\n1,late,\n,,\n", ["late", ""]),
    Table(
        "rows that the user leaves out",
        "id,comment\n(number),(said)\n-,-\n1,late\n",
        ["late"],
        ["2 rows below the header, as --skip-rows says (lines 2, 3)"],
        SourceOptions(text_field="comment", skip_rows=2),
    ),
    Table(
        "a header that the user names",
        "id,comment\nid,comment,of,all\n1,late,a,b\n",
        ["late"],
        ["1 line above the header, which is line 2"],
        SourceOptions(text_field="comment", header_row=2),
    ),
    Table(
        "no further header rows, as the user says",
        "Respondent ID,,comment\n,Response,Response\n1,a,late\n",
        ["Response", "late"],
        ["column 2 has no name"],
        SourceOptions(text_field="comment", skip_rows=0),
    ),
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.about)
def test_table_of_another_program_is_read(table: Table) -> None:
    """Rows come through, and everything that is no row is named with its lines."""
    notes: list[str] = []
    options = table.options
    with open_source("-", options, note=notes.append, stream=io.BytesIO(table.text.encode())) as source:
        assert [item.text for item in source] == table.texts
    assert source.skipped == 0
    notes = [note for note in notes if "no name" not in note or "no name" in str(table.says)]
    assert len(notes) == len(table.says), notes
    for part in table.says:
        assert any(part in note for note in notes), notes


@pytest.mark.parametrize("gap", [", ", ","])
def test_texts_with_a_comma_and_no_quotes_make_no_column(gap: str) -> None:
    """One cell too many in each row is not R's name of the row where the first column counts already."""
    text = f"id,comment\n1,late{gap}again\n2,good{gap}but slow\n"
    with (
        open_source("-", SourceOptions(), stream=io.BytesIO(text.encode())) as source,
        pytest.raises(InputError, match="3 cells where the header has 2"),
    ):
        list(source)


def test_short_rows_among_others_are_bad_and_not_left_out() -> None:
    """Only what ends the table is a footer: a short row above a row is an error with its line."""
    reported: list[InputError] = []
    data = b"id,comment\n1,late\n\nlonely\n2,fine\n"
    with open_source("-", report=reported.append, stream=io.BytesIO(data)) as source:
        assert [item.text for item in source] == ["late", "fine"]
    assert [error.line for error in reported] == [4]


def test_parts_of_a_broken_row_are_not_filled_up() -> None:
    """A line break without quotes makes two short rows, of which the second one begins with no id."""
    reported: list[InputError] = []
    data = b"id,comment,by\n1,late\nand dirty,Kim\n2,fine,Kim\n"
    with open_source("-", report=reported.append, stream=io.BytesIO(data)) as source:
        assert [item.text for item in source] == ["fine"]
    assert [error.line for error in reported] == [2, 3]


class Endless(io.RawIOBase):
    """A table whose rows all lack their last cell, without end; it counts what was read of it."""

    def __init__(self) -> None:
        self.rows = 0

    def read(self, _: int = -1) -> bytes:
        start, self.rows = self.rows, self.rows + 5_000
        assert self.rows < 100_000, "the reader waits for a row that never comes"
        header = b"" if start else b"id,comment,by\n"
        return header + b"".join(b"%d,late\n" % number for number in range(start, self.rows))


def test_short_rows_are_read_in_bounded_memory() -> None:
    """Rows that lack their last cells do not all wait for one that has it; of those left out only the number grows."""
    notes: list[str] = []
    with open_source("-", note=notes.append, stream=Endless()) as source:  # type: ignore[arg-type]  # it is read only
        items = iter(source)
        assert [next(items).fields["by"] for _ in range(15_000)] == [""] * 15_000
        items.close()  # type: ignore[attr-defined]  # a generator
    (note,) = [note for note in notes if "filled up" in note]
    assert "rows with fewer cells than the header, filled up (lines 2, 3, 4, 5, 6 and " in note


def test_header_below_the_end_is_refused() -> None:
    """A --header-row that the file does not have is an error."""
    options = SourceOptions(header_row=9)
    with (
        open_source("-", options, stream=io.BytesIO(b"id,comment\n1,a\n")) as source,
        pytest.raises(InputError, match="has no line 9"),
    ):
        list(source)


def test_many_renamed_columns_are_one_note() -> None:
    """An export with a hundred columns of one name does not fill the screen."""
    notes: list[str] = []
    header = ",".join(["comment", *["Label"] * 30])
    with open_source("-", note=notes.append, stream=io.BytesIO(f"{header}\n".encode())) as source:
        list(source)
    assert "Label_2, Label_3" in notes[0]
    assert "and 17 more" in notes[0]


@pytest.mark.parametrize(
    ("text", "quote_all", "line_end", "sep_line"),
    [
        ('"id";"comment"\r\n"1";"a"\r\n', True, "\r\n", ""),
        ('id,"comment"\n1,a\n', False, "\n", ""),
        ('"sep=;",\r\nid;comment\r\n', False, "\r\n", "sep=;"),
    ],
)
def test_dialect_is_remembered(text: str, quote_all: bool, line_end: str, sep_line: str) -> None:
    """The output can be written as the input was."""
    with open_source("-", SourceOptions(text_field="comment"), stream=io.BytesIO(text.encode())) as source:
        list(source)
    dialect = source.dialect
    assert dialect is not None
    assert (dialect.quote_all, dialect.line_end, dialect.sep_line) == (quote_all, line_end, sep_line)


def test_plain_tables_have_nothing_to_leave_out() -> None:
    """Whatever the texts are, a table with a known header keeps all rows."""
    texts = ["#", "# a", "{", '{"ImportId"', "id", "comment", "(3 rows)", "\\.", "sep=;", "---", "NULLS", "", " "]
    out = io.StringIO()
    csv.writer(out).writerows([["id", "comment"], *([str(at), text] for at, text in enumerate(texts))])
    assert find_layout(out.getvalue(), TableOptions()) == TableLayout()
    with open_source("-", stream=io.BytesIO(out.getvalue().encode())) as source:
        assert [item.text for item in source] == texts
