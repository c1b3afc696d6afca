"""Columns: names in other spellings, the column with the text, words for nothing, and paths into JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from mellea_cli.errors import InputError
from mellea_cli.io.columns import SAMPLE_ROWS, find_text, folded, is_null, same_names
from mellea_cli.io.source import SourceOptions, open_source
from mellea_cli.items import Item


def read(data: bytes, *names: str, notes: list[str] | None = None, id_field: str | None = None) -> list[Item]:
    options = SourceOptions(text_field=names, id_field=id_field, on_bad_row="fail")
    note = (lambda _: None) if notes is None else notes.append
    with open_source("-", options, note=note, stream=io.BytesIO(data)) as source:
        return list(source)


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_names_are_compared_without_case_and_white_space() -> None:
    """Line breaks, fixed blanks, byte order marks and other ways to write an umlaut make no difference."""
    assert folded("\ufeff What  did\nyou\tlike?\u00a0") == "what did you like?"
    assert same_names("Ho\u0308flichkeit", ["id", "h\u00f6flichkeit"]) == ["h\u00f6flichkeit"]
    assert same_names("a", ["A", "a"]) == ["a"]
    assert same_names("ab", ["Ab", "aB"]) == ["Ab", "aB"]


# The columns of exports, as the tools' own documentation or public samples of them name them.
HEADERS = [
    ("Review Text", "Package Name,App Version Code,Reviewer Language,Star Rating,Review Title,Review Text,Review Link"),
    ("Review", "Date,Version,Rating,Title,Review,Nickname,Developer Response"),
    ("body", "title,body,rating,review_date,reviewer_name,reviewer_email,product_id,product_handle,reply,picture_urls"),
    ("review_content", "review_id,review_title,review_content,review_score,date,product_id,display_name,email"),
    ("Review Content", "Reference Id,Review Title,Review Content,Review Stars,Review User Id,Company Reply"),
    ("Satisfaction Comment", "Ticket ID,Requester,Satisfaction Score,Satisfaction Comment,Status"),
    ("Description", "Case Number,Subject,Description,Status,Priority,Account Name"),
    ("Description", "Issue key,Issue id,Summary,Description,Comment,Comment_2,Comment_3"),
    ("message_body", "conversation_id,message_id,message_body,message_type,message_author_name"),
    ("NPS Comment", "Email,NPS Score,NPS Comment,Responded At"),
    ("review_body", "marketplace,review_id,product_title,star_rating,review_headline,review_body,review_date"),
    ("reviews.text", "id,name,reviews.date,reviews.rating,reviews.text,reviews.title,reviews.username"),
    ("Consumer complaint narrative", "Product,Issue,Consumer complaint narrative,Company public response,Company"),
    ("Q3_TEXT", "StartDate,ResponseId,Q1_NPS_GROUP,Q1,Q3_TEXT"),
    ("Kundenkommentar", "Nr,Datum,Kundenkommentar,Bewertung"),
    ("R\u00fcckmeldung", "ID,Datum,R\u00fcckmeldung"),
    ("Freitext", "Zeitstempel,Note,Freitext"),
    ("Commentaire client", "Date,Note,Titre de l'avis,Commentaire client"),
    ("Rese\u00f1a", "Fecha,Puntuaci\u00f3n,T\u00edtulo,Rese\u00f1a"),
    ("Observa\u00e7\u00f5es", "Data,Nome,Observa\u00e7\u00f5es"),
    ("Recensione", "Data,Voto,Titolo,Recensione"),
    ("Toelichting", "Datum,Cijfer,Toelichting"),
    ("Tre\u015b\u0107 opinii", "Data,Ocena,Tre\u015b\u0107 opinii"),
    ("Komment\u00e1\u0159", "Datum,Komment\u00e1\u0159"),
    ("\u30ec\u30d3\u30e5\u30fc\u672c\u6587", "\u30ec\u30d3\u30e5\u30fc\u65e5,\u30ec\u30d3\u30e5\u30fc\u672c\u6587"),
    ("\u8bc4\u8bba\u5185\u5bb9", "\u8bc4\u8bba\u65f6\u95f4,\u8bc4\u8bba\u5185\u5bb9"),
    (
        "\u041a\u043e\u043c\u043c\u0435\u043d\u0442\u0430\u0440\u0438\u0439",
        "\u0414\u0430\u0442\u0430,\u041a\u043e\u043c\u043c\u0435\u043d\u0442\u0430\u0440\u0438\u0439",
    ),
    ("feedback", "id,feedback,comment,review"),
]


@pytest.mark.parametrize(("column", "header"), HEADERS, ids=[column for column, _ in HEADERS])
def test_text_column_is_known_by_its_name(column: str, header: str) -> None:
    """The name tells, whatever other columns speak of reviews, comments and responses."""
    names = header.split(",")
    assert find_text(names, [{name: "The parcel was late." for name in names if name == column}]) == [column]


SURVEY = (
    "Timestamp,How likely are you to recommend us?,What could we do better?,City,Email\n"
    "2026/03/02 10:11:12 AM GMT+1,3,{},New York City,a@example.com\n"
    "2026/03/03 10:11:12 AM GMT+1,9,{},Rio de Janeiro,b@example.com\n"
)


@pytest.mark.parametrize(
    ("first", "second"),
    [("The opening hours do not suit people who work in shifts.", "Keep the fresh salads, please, I like them")],
)
def test_the_only_column_of_prose_is_the_text(first: str, second: str) -> None:
    """Where no name tells, the cells do; that is said."""
    notes: list[str] = []
    items = read(SURVEY.format(f'"{first}"', f'"{second}"').encode(), notes=notes)
    assert [item.text for item in items] == [first, second]
    assert notes == ["<stdin>: the text is in column 'What could we do better?'"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"n,Pros,Cons\n1,quick to learn and to use,the price went up again\n", "Pros, Cons"),
        (b"ref,date,stars\n1,2026-03-02,3\n", "columns seen: ref, date, stars"),
        (b"1,It is late again today\n2,I like it very much\n", "columns seen: 1, It is late again today"),
        (b"It is late again today\nI like it very much\n", "columns seen: It is late again today"),
        (jsonl({"n": 1, "data": {"body": "late", "text": "so"}}), "columns seen: n, data"),
    ],
)
def test_columns_that_are_not_clear_are_refused(data: bytes, words: str) -> None:
    """Neither of two is guessed, numbers are no text, and the first row is not lost as a header."""
    with pytest.raises(InputError) as caught:
        read(data)
    assert words in caught.value.message
    assert "--text-field" in caught.value.hint


@pytest.mark.parametrize("name", ["Feedback", "Text Size", "Has Comment"])
def test_a_column_of_labels_is_not_the_text(name: str) -> None:
    """Whatever its name says, where another one with such a name holds prose."""
    rows = [{name: label, "Details": f"The parcel {at} came in late"} for at, label in enumerate("XYXX")]
    assert find_text([name, "Details"], rows) == ["Details"]
    assert find_text([name, "Details"], rows[:1], last=False) is None
    assert find_text([name, "Item"], [{name: "late", "Item": "A blue shirt of cotton"}, {name: "ok"}]) == [name]


def test_choices_of_a_list_are_no_prose() -> None:
    """A sentence that many rows share is an answer that was ticked."""
    rows = [{"Q1": "I would recommend it to a friend", "Q2": f"The parcel {at} came in late"} for at in range(9)]
    assert find_text(["Q1", "Q2"], rows) == ["Q2"]


def test_rows_of_json_are_sampled_for_prose() -> None:
    """The text may be missing in the first rows; after some rows without any text the reading ends."""
    rows: list[dict[str, object]] = [{"n": at, "what": "" if at < 5 else "The parcel came in late"} for at in range(9)]
    assert [item.text for item in read(jsonl(*rows))][-1] == "The parcel came in late"
    with pytest.raises(InputError, match="no column looks like the text"):
        read(jsonl(*[{"n": at} for at in range(SAMPLE_ROWS)]))


@pytest.mark.parametrize("word", ["NULL", "null", "\\N", "nan", "NaN", "NA", "<NA>", "#N/A", "(null)", "[NULL]"])
def test_words_for_nothing_are_no_text(word: str) -> None:
    """What databases, R, pandas and Excel write for no value is not sent; the cell itself stays."""
    (item,) = read(f"id,comment\n1,{word}\n".encode())
    assert item.text == ""
    assert item.fields["comment"] == word


@pytest.mark.parametrize("word", ["None", "none", "n/a", "N/A", "nothing", "Nan", "nil", "-", "NULL points", "Na"])
def test_what_people_answer_is_text(word: str) -> None:
    """A short answer is an answer, also when it says that there is nothing."""
    assert not is_null(word)
    assert read(f"id,comment\n1,{word}\n".encode())[0].text == word


def test_several_columns_are_joined_with_their_names() -> None:
    """Labels are the columns' own names on one line; a blank cell has none."""
    data = b'id,"Pros\n(all)",Cons\n1,quick,NULL\n2,,dear\n3,,\n4,quick,dear\n'
    texts = [item.text for item in read(data, "pros (all)", "CONS")]
    assert texts == ["Pros (all): quick", "Cons: dear", "", "Pros (all): quick\nCons: dear"]


def test_labels_of_further_header_rows_name_columns() -> None:
    """A Qualtrics question is as good a name as its code."""
    ids = ",".join(f'"{{""ImportId"":""Q{at}""}}"' for at in range(2))
    data = f"Q1,Q2\nHow many?,What is missing?\n{ids}\n3,salt\n".encode()
    assert [item.text for item in read(data, "what is  missing?")] == ["salt"]


def test_a_name_that_fits_two_columns_is_refused() -> None:
    """Both are named, and the exact spelling decides."""
    with pytest.raises(InputError, match="fits several columns: comment, Comment"):
        read(b"comment,Comment\na,b\n", "COMMENT")
    assert read(b"comment,Comment\na,b\n", "Comment")[0].text == "b"


NESTED = {
    "id": 1,
    "data": {"body": "late", "by.kim": {"x": "dotted"}},
    "notes": [{"text": "first"}, {"text": "second"}],
}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("data.body", "late"),
        ("data.by.kim.x", "dotted"),
        ("notes.1.text", "second"),
        ("notes[0].text", "first"),
    ],
)
def test_path_leads_into_json(path: str, text: str) -> None:
    """Objects by key, lists by number, and keys with dots."""
    assert read(jsonl(NESTED), path)[0].text == text


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"node": {"id": 1, "body": "Late."}}, "Late."),
        ({"Item": {"comment": {"S": "Late."}}}, "Late."),
        ({"review": {"text": "Late.", "stars": 2}}, "Late."),
        ({"text": ["It came ", {"type": "bold", "text": "late"}, "."]}, "It came late."),
        ({"text": "\u200b\ufeff"}, ""),
    ],
)
def test_text_inside_a_row_is_found(row: dict[str, Any], text: str) -> None:
    """Nobody names the path: the only text inside is taken, with its marked parts; invisible characters are no text."""
    assert [item.text for item in read(jsonl(row))] == [text]


def test_an_empty_column_is_no_text_where_another_has_some() -> None:
    """A column with the usual name and nothing in it gives way; in a long file later rows may hold the text."""
    rows = [f"{number},,It came {number} weeks late again.\n" for number in range(60)]
    assert read(("id,comments,description\n" + rows[0]).encode())[0].text.startswith("It came")
    with pytest.raises(InputError, match="2 columns may be the text"):
        read(("id,comments,description\n" + "".join(rows)).encode())


def test_literal_name_with_a_dot_wins() -> None:
    """A column is a column first."""
    assert read(jsonl({"data.body": "a", "data": {"body": "b"}}), "data.body")[0].text == "a"


def test_path_may_be_missing_in_rows_but_not_in_all() -> None:
    """Rows without it have no text; a path that nothing has is a mistake, with the nearest one."""
    rows = [{"id": 1, "data": None}, {"id": 2, "data": {}}, {"id": 3, "data": {"body": "late"}}, {"id": 4}]
    assert [item.text for item in read(jsonl(*rows), "data.body")] == ["", "", "late", ""]
    with pytest.raises(InputError) as caught:
        read(jsonl(*[{"data": {"body": "late"}}] * 3), "data.boddy")
    assert "did you mean --text-field data.body?" in caught.value.hint


def test_path_to_an_object_says_what_is_inside() -> None:
    """The hint is a path that works."""
    with pytest.raises(InputError, match="'data' holds an object") as caught:
        read(jsonl(NESTED), "data")
    assert "--text-field data.body" in caught.value.hint


def test_ids_are_found_in_other_spellings_and_by_path() -> None:
    """`ID` in a table is `id`, and a path reaches an id in JSON."""
    assert read(b"ID,comment\n7,a\n")[0].id == "7"
    assert read(jsonl({"text": "a", "ticket": {"no": 9}}), id_field="ticket.no")[0].id == 9
