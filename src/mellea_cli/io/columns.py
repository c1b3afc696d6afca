"""Columns: how names are compared, which column holds the text, and how a row becomes an item."""

from __future__ import annotations

import json
import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from statistics import fmean
from typing import Any

from mellea_cli.errors import InputError, nearest
from mellea_cli.io.byte_input import without_surrogates
from mellea_cli.io.formats import RawRow
from mellea_cli.items import Item

# The names that are tried first, in this order, when the user names no column
TEXT_COLUMNS = ("text", "feedback", "comment", "review", "body", "message", "content")
ID_COLUMN = "id"
SAMPLE_ROWS = 50  # Rows by which the text column is found when no name tells it
PATH_ROWS = 1_000  # Rows in which a path into JSON must lead to something once


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What databases and other programs write for "no value". What people type, such as none or n/a, is an answer.
_NULLS = _word_set("""
NULL null Null (null) <null> [NULL] \\N NaN nan NAN -nan NA <NA> NaT undefined
#N/A #NA #NULL! #NAME? #VALUE! #REF! #DIV/0! #NUM!
""")
_LONGEST_NULL = max(map(len, _NULLS))


def folded(name: str) -> str:
    """Return a column's name as it is compared: white space folded, case and invisible marks ignored."""
    return " ".join(unicodedata.normalize("NFKC", name).translate(_INVISIBLE).split()).casefold()


_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u200e\u200f\u00ad"))


def same_names(wanted: str, columns: Iterable[str]) -> list[str]:
    """Return the column of exactly this name, else every column whose name is the same when folded."""
    columns = list(columns)
    if wanted in columns:
        return [wanted]
    fold = folded(wanted)
    return [name for name in columns if folded(name) == fold]


# Words of names, without accents. A name is a text column's when one of these words is in it and none of `_OTHER`.
_WORDS = _word_set("""
text comment comments feedback review reviews body message messages content contents remark remarks opinion opinions
narrative verbatim verbatims testimonial suggestion suggestions freetext
kommentar kommentare bemerkung bemerkungen anmerkung anmerkungen rezension rezensionen ruckmeldung ruckmeldungen
freitext nachricht inhalt meinung anregung anregungen erfahrungsbericht verbesserungsvorschlag verbesserungsvorschlage
commentaire commentaires avis remarque remarques texte temoignage contenu
comentario comentarios opiniones resena resenas texto mensaje observaciones sugerencia sugerencias contenido
opiniao opinioes resenha mensagem observacao observacoes sugestao sugestoes depoimento conteudo
commento commenti recensione recensioni testo messaggio opinione osservazioni suggerimento suggerimenti
opmerking opmerkingen recensie recensies reactie reacties tekst bericht toelichting inhoud
komentarz komentarze opinia opinie recenzja recenzje tresc uwagi wiadomosc tekst komentar recenze pripominky zprava
kommentarer recension recensioner omdome anmeldelse besked meddelande palaute kommentti arvostelu viesti
velemeny megjegyzes szoveg comentariu recenzie yorum yorumlar mesaj σχολιο σχολια κριτικη
комментарии отзыв отзывы текст сообщение мнение коментар відгук
""")  # fmt: skip
_WEAKER = _word_set("""
description desc beschreibung descripcion descricao descrizione beschrijving omschrijving opis popis response responses
details answer answers antwort antworten reponse respuesta risposta resposta antwoord odpowiedz notes notizen
explanation complaint beschwerde reclamation queja reclamo klacht
""")
# Names in these scripts have no blanks: they end with such a word.
_ENDINGS = tuple(_word_set("""
コメント 感想 レビュー 口コミ クチコミ 意見 自由記述 自由回答 本文 评论 評論 内容 內容 反馈 意见
留言 评语 리뷰 후기 의견 댓글 내용
"""))  # fmt: skip
_OTHER = _word_set("""
id ids uuid guid key number no nr num count counts total length words word date time timestamp datetime created
updated modified submitted title titles headline subject heading header name username author reviewer respondent
email mail ip url uri link links rating ratings score scores star stars grade status state type kind category
categories tag tags label labels language lang locale country version device product item company developer vendor
merchant seller owner agent staff internal reply replies replied helpful votes vote source channel sentiment
polarity subjectivity confidence summary image images photo photos video media format
location place address city region branch store platform site website likes verified quality
datum titel titre titulo titolo tytul data fecha heure hora uhrzeit zeitstempel anzahl nummer sterne punkte auteur
autor autore nom nombre nome naam imie sprache langue idioma lingua betreff objet asunto oggetto onderwerp
""")
_MEASURES = _word_set("rating ratings score scores star stars grade quality status type kind category")
_WHY = _word_set("why reason reasons warum grund begrundung pourquoi motif perche motivo waarom reden")
_REPLIES = _word_set("response responses answer answers antwort reponse respuesta risposta")
_NAME_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_LONG_WORD = 7


def _parts(name: str) -> list[str]:
    """The words of a name in lower case and without accents; `reviewText` and `review_text` have the same."""
    plain = unicodedata.normalize("NFKD", re.sub(r"<[^<>]*>", " ", name))
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return [part.casefold() for part in _NAME_PARTS.findall(plain)]


def _is_text_word(part: str) -> bool:
    # Compounds such as Kundenkommentar and reviewtext, too.
    return part in _WORDS or any(
        part.endswith(word) and (len(word) >= _LONG_WORD or part.removesuffix(word) in _WORDS) for word in _WORDS
    )


_CLOSING = ")]:\uff09\uff1a "
_SURE = 30  # Below this rank a name alone tells that a column holds the text
_QUESTION_PARTS = 5


def _rank(name: str) -> int | None:
    """How well a name fits the text, 0 the best; `None` when it does not."""
    if (fold := folded(name)) in TEXT_COLUMNS:
        return TEXT_COLUMNS.index(fold)
    if fold.rstrip(_CLOSING).endswith(_ENDINGS):
        return 10
    parts = _parts(name)
    # The comment of a rating, or why it was given, is a text.
    others = _OTHER - _MEASURES if parts and (_is_text_word(parts[-1]) or _WHY.intersection(parts)) else _OTHER
    if len(parts) >= _QUESTION_PARTS or not others.isdisjoint(parts):
        return None
    if any(map(_is_text_word, parts)):
        # The response to a review is the owner's.
        return None if not _REPLIES.isdisjoint(parts) and parts[0].startswith("review") else 10 + 10 * (len(parts) > 1)
    return _SURE if not (_WEAKER | _WHY).isdisjoint(parts) else None


def text_rank(columns: Iterable[str]) -> int | None:
    """How well the best of some names fits the text, 0 the best; `None` when none does."""
    return min((rank for name in columns if (rank := _rank(name)) is not None), default=None)


def names_text(columns: Iterable[str]) -> bool:
    """Whether one of the columns holds the text by its name."""
    return text_rank(columns) is not None


_WORD = re.compile(r"[^\W\d_]{2,}")
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
_NO_PROSE = re.compile(r"\S*(?:@|://)\S*|\w+/\d.*|\{.*\}|\[.*\]", re.DOTALL)  # an address, a browser, JSON
_MOST_WORDS = 40
_PROSE_WORDS = 3.0
_CLEAR = 0.6  # A column is clearly the text when no other has more words than this part of its own


def _words(cell: Any) -> float:
    """Words of a cell of prose; 0 for numbers, dates, addresses and JSON."""
    if not isinstance(cell, str) or _NO_PROSE.fullmatch(text := cell.strip()):
        return 0.0
    if sum(map(str.isdigit, text)) > 0.3 * len(text):
        return 0.0
    unspaced = len(_UNSPACED.findall(text))
    return min(unspaced / 2 if unspaced else len(_WORD.findall(text)), _MOST_WORDS)


def _filled(cells: Sequence[Any]) -> list[Any]:
    return [cell for cell in cells if cell not in (None, "") and not is_null(cell)]


def _prose(name: str, cells: Sequence[Any]) -> float:
    """Mean words of the cells that are not empty; 0 when the column can hardly be free text."""
    filled = _filled(cells)
    if not filled or len(filled) < len(cells) / 10:
        return 0.0
    if len(filled) >= 5 and len({str(cell) for cell in filled}) < len(filled) / 2:
        return 0.0  # choices of a list
    words = fmean(map(_words, filled))
    return words if words >= _PROSE_WORDS or (words >= 2 and name.rstrip().endswith("?")) else 0.0


def is_null(text: Any) -> bool:
    """Whether a cell is a program's word for no value."""
    return isinstance(text, str) and len(text) <= _LONGEST_NULL and text in _NULLS


def find_text(columns: Sequence[str], sample: Sequence[Mapping[str, Any]], *, last: bool = True) -> list[str] | None:
    """Return the columns that may hold the text: one when it is clear, several or none when it is not.

    The sample has the first rows. Unless they are the last that decide, `None` means that more are needed.
    """
    # Of `Comment` and `Comment_2`, which were both called `Comment`, none is the text.
    repeated = {name for name in columns if f"{name}_2" in columns}
    repeated |= {name for name in columns if (base := re.sub(r"_\d+$", "", name)) != name and base in repeated}
    ranks = {name: rank for name in columns if name not in repeated and (rank := _rank(name)) is not None}
    best = [name for name, rank in ranks.items() if rank == min(ranks.values())]
    cells = {name: [row.get(name) for row in sample] for name in columns}
    free = [
        name
        for name in columns
        if name not in repeated and (len(parts := _parts(name)) >= _QUESTION_PARTS or _OTHER.isdisjoint(parts))
    ]
    names = free
    if best and ranks[best[0]] < _SURE:
        # A column that is named like the text may hold numbers or labels, and another one the text.
        others = [name for name in (ranks if ranks[best[0]] < len(TEXT_COLUMNS) else free) if name not in best]
        contested = not any(_prose(name, cells[name]) for name in best) and any(
            _prose(name, cells[name]) for name in others
        )
        if len(best) == 1 and not contested:
            return best if sample or last else None
        empty = not any(_filled(cells[name]) for name in best)
        if contested and empty and len(sample) >= SAMPLE_ROWS:
            return [*best, *(name for name in others if _prose(name, cells[name]))]  # later rows may hold the text
        names = others if contested and (empty or all(_are_labels(cells[name]) for name in best)) else best
    if not last:
        return None
    scores = {name: _prose(name, cells[name]) for name in names}
    prose = sorted((name for name in names if scores[name]), key=lambda name: -scores[name])
    if len(prose) > 1 and scores[prose[1]] <= _CLEAR * scores[prose[0]]:
        return prose[:1]
    return prose or best


def _are_labels(cells: Sequence[Any]) -> bool:
    """Whether cells hold numbers, or one or two words that occur again and again."""
    filled = _filled(cells)
    words = max(map(_words, filled), default=0)
    return bool(filled) and words <= 2 and (not words or 3 * len(set(map(str, filled))) <= 2 * len(filled))


_MISSING = object()


def _path_value(value: Any, parts: Sequence[str]) -> Any:
    """Return what a path leads to, `_MISSING` for nothing. A key that contains dots is found, too."""
    if not parts:
        return value
    if isinstance(value, list):
        at = int(parts[0]) if parts[0].isdecimal() else len(value)
        return _path_value(value[at], parts[1:]) if at < len(value) else _MISSING
    if isinstance(value, dict):
        for end in range(len(parts), 0, -1):
            if (key := ".".join(parts[:end])) in value:
                return _path_value(value[key], parts[end:])
    return _MISSING


def text_paths(value: Any, before: str = "") -> list[str]:
    """The paths to the texts inside objects and lists, a few levels deep."""
    if isinstance(value, str) or before.count(".") > 4:
        return [before] if before else []
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    return [path for key, part in inside for path in text_paths(part, f"{before}.{key}" if before else str(key))]


def _path_candidates(sample: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths in the first row whose last name is that of a text; a type, a form or a language may be behind it."""
    paths = text_paths(dict(sample[0])) if sample else []
    return [path for path in paths if names_text([_BEHIND.sub("", path).rpartition(".")[2]])]


_BEHIND = re.compile(r"\.(?:S|stringValue|label|rendered|value|raw|plain|\$t|[#_$]text|[a-z]{2})$")


def _holds_parts(values: Sequence[Any]) -> bool:
    """Whether a column holds objects, or lists without a text, wherever it holds something."""
    filled = [value for value in values if value not in (None, "")]
    return bool(filled) and all(
        isinstance(value, dict) or (isinstance(value, list) and not any(isinstance(part, str) for part in value))
        for value in filled
    )


def _rich_text(parts: Sequence[Any]) -> str | None:
    """The text of a message whose marked parts are objects, as Telegram writes it; `None` for any other list."""
    kinds = {type(part) for part in parts}
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if kinds == {dict, str} and len(known) == len(texts) else None


_ID_TYPES = (str, int, float)  # not bool
_SHOWN_COLUMNS = 12
_SHOWN_LENGTH = 40


class ColumnMapping:
    """Maps the columns of raw rows to the text and the id of items.

    Args:
        text_fields: the columns with the text, joined with their names as labels when there are several; none to find
            the column.
        id_field: the column with the id, or `None` for `id` where there is one.
        path: the input's name in messages.
    """

    def __init__(self, text_fields: Sequence[str], id_field: str | None, path: str) -> None:
        self.text_fields: tuple[str, ...] = tuple(text_fields)  # The columns with the text; empty until they are found
        self.notes: list[str] = []
        self.id_field = ID_COLUMN if id_field is None else id_field
        self._id_required = id_field is not None
        self._path = path

    def check_header(self, columns: Sequence[str], line: int, labels: Mapping[str, str]) -> None:
        """Find the named columns in the header of a table; `labels` has names, folded, from further header rows.

        Raises:
            InputError: a named column does not exist, or its name fits several.
        """
        self.text_fields = tuple(self._same(name, "--text-field", columns, line, labels) for name in self.text_fields)
        if self._id_required:
            self.id_field = self._same(self.id_field, "--id-field", columns, line, labels)
        elif self.id_field not in columns and len(same := same_names(self.id_field, columns)) == 1:
            self.id_field = same[0]

    def _same(
        self, wanted: str, flag: str, columns: Sequence[str], line: int, labels: Mapping[str, str] | None = None
    ) -> str:
        same = same_names(wanted, columns)
        if not same and labels and (label := labels.get(folded(wanted))):
            same = [label]
        if not same:
            raise self._missing(wanted, flag, columns, line)
        if len(same) > 1:
            message = f"{wanted!r} fits several columns: {listed(same)}"
            raise self._error(message, line, f"write the name as one of them is written: {flag} {same[0]!r}")
        return same[0]

    def choose(
        self,
        columns: Sequence[str],
        sample: Sequence[Mapping[str, Any]],
        line: int,
        *,
        header: bool = False,
        last: bool = True,
    ) -> bool:
        """Find the column with the text when the user named none; `False` means that more rows are needed.

        The names may come from a `header`, which may be the first row of a file without one. In the `last` rows it is
        found, or it is an error.

        Raises:
            InputError: no column is clearly the text.
        """
        if not header:
            columns = [name for name in columns if not _holds_parts([row.get(name) for row in sample])]
        found = find_text(columns, sample, last=last)
        if found is None:
            return False
        if not found and len(paths := _path_candidates(sample)) == 1:
            found = paths
        if len(found) > 1:
            hint = f"name one: --text-field {found[0]!r}; given several times, the columns are joined"
            raise self._error(f"{len(found)} columns may be the text: {listed(found)}", line, hint)
        if not found or (header and _rank(found[0]) is None and _looks_like_a_row(columns)):
            raise self._no_text(columns if header or not sample else list(sample[0]), sample, line)
        self.text_fields = (found[0],)
        self.notes.append(f"{self._path}: the text is in column {label(found[0])!r}")
        return True

    def find_named(self, rows: Sequence[Mapping[str, Any]], *, last: bool) -> bool:
        """Whether the named columns of JSON rows, which have no header, are found; otherwise more rows are needed.

        A path may be missing in many rows, but not in all of them: in the `last` ones it raises as `check_header` does.
        """
        if not rows:
            return last
        found = []
        for name in self.text_fields:
            keys = list(dict.fromkeys(key for row in rows for key in row))
            if any(has_column(row, name) for row in rows):
                found.append(name)
            elif same_names(name, keys):
                found.append(self._same(name, "--text-field", keys, 1))
            elif not is_path(name):
                found.append(name)  # each row is said to be without it
            elif last:
                raise self._missing(name, "--text-field", dict.fromkeys([*keys, *text_paths(dict(rows[0]))]), 1)
            else:
                return False
        self.text_fields = tuple(found)
        return True

    def item(self, row: RawRow, position: int) -> Item:
        """Return the item of a row; an item without an id gets its 1-based position.

        Raises:
            InputError: the text is missing, or is an object or an array.
        """
        line, fields, raw = row
        names = self.text_fields
        if not names:
            self.choose(list(fields), [fields], line)
            names = self.text_fields
        text = fields.get(names[0]) if len(names) == 1 else self._joined(row)
        if text.__class__ is not str:
            text = self._as_text(names[0], row)
        elif len(text) <= _LONGEST_NULL and text in _NULLS:
            text = ""
        elif not text.isascii():
            text = without_surrogates(text) if text.translate(_INVISIBLE).strip() else ""
        ident = fields.get(self.id_field)
        if ident.__class__ not in _ID_TYPES or ident == "":
            ident = self._other_id(fields, position, line)
        return Item(position, ident, text, fields, line, raw)

    def _joined(self, row: RawRow) -> str:
        return joined_texts({name: self._as_text(name, row) for name in self.text_fields})

    def _as_text(self, name: str, row: RawRow) -> str:
        line, fields, _ = row
        value = _value(fields, name)
        if value is _MISSING:
            if not is_path(name):
                raise self._missing(name, "--text-field", fields, line)
            value = None
        if isinstance(value, list) and (text := _rich_text(value)) is not None:
            return without_surrogates(text)
        if isinstance(value, dict | list):
            kind = "an object" if isinstance(value, dict) else "an array"
            paths = text_paths(value, name)
            hint = f"name what is inside: --text-field {paths[0]}" if paths else "name a column with text"
            raise self._error(f"column {name!r} holds {kind}, not text", line, hint)
        if isinstance(value, str):
            return "" if is_null(value) else without_surrogates(value)
        return "" if value is None else json.dumps(value)

    def _other_id(self, fields: Mapping[str, Any], position: int, line: int) -> str | int | float:
        """The id that a path leads to, else the 1-based position."""
        value = _value(fields, self.id_field)
        if isinstance(value, _ID_TYPES) and not isinstance(value, bool) and value != "":
            return value
        if not self._id_required:
            return position + 1
        if value is _MISSING:
            raise self._missing(self.id_field, "--id-field", fields, line)
        hint = "without --id-field the rows are numbered"
        raise self._error(f"the id column {self.id_field!r} holds no string or number", line, hint)

    def _no_text(self, columns: Sequence[str], sample: Sequence[Mapping[str, Any]], line: int) -> InputError:
        hint = "name the column with the feedback: --text-field NAME"
        if paths := _path_candidates(sample):
            hint = f"name the column with the feedback: --text-field {paths[0]}"
        elif _looks_like_a_row(columns):
            hint = "if the file has no line with the columns' names, put one on top; else --text-field NAME"
        return self._error(f"no column looks like the text; columns seen: {listed(columns)}", line, hint)

    def _missing(self, wanted: str, flag: str, columns: Iterable[str], line: int) -> InputError:
        close = nearest(wanted, columns)
        hint = f"did you mean {flag} {close}?" if close else f"name another one with {flag}"
        return self._error(f"no column {wanted!r}; columns seen: {listed(columns)}", line, hint)

    def _error(self, message: str, line: int, hint: str) -> InputError:
        return InputError(message, path=self._path, line=line, hint=hint)


def is_path(name: str) -> bool:
    """Whether a name may be a path into JSON, such as `data.body` or `comments[0].text`."""
    return "." in name or "[" in name


def _value(fields: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, else what its name leads to as a path such as `data.body` or `comments[0].text`."""
    if name in fields:
        return fields[name]
    return _path_value(dict(fields), re.sub(r"\[(\d+)\]", r".\1", name).split(".")) if is_path(name) else _MISSING


def column_value(fields: Mapping[str, Any], name: str) -> Any:
    """Return what is in a column, or at the end of a path; `None` for nothing."""
    value = _value(fields, name)
    return None if value is _MISSING else value


def joined_texts(texts: Mapping[str, str]) -> str:
    """Return the only text, or all that are not blank with their columns' names as labels."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "\n".join(f"{label(name)}: {text.strip()}" for name, text in texts.items() if text.strip())


def has_column(fields: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a column of this name, or something at the end of this path."""
    return _value(fields, name) is not _MISSING


_DATA = re.compile(r"[\[(]?[\d.,:/\s-]*\d[\d.,:/\s-]*[\])]?")


def _looks_like_a_row(columns: Sequence[str]) -> bool:
    """Whether the names are rather the first row of a file without a header: a number, a date, a sentence."""
    if len(columns) == 1:
        return len(_parts(columns[0])) >= _QUESTION_PARTS - 1 and not columns[0].endswith(("?", ":"))
    return any(_DATA.fullmatch(name) for name in columns)


def label(name: str) -> str:
    """Return a column's name on one line."""
    return " ".join(name.split())


def listed(columns: Iterable[str]) -> str:
    """Return the names for a message, shortened."""
    names = ["".join(char if char.isprintable() else "?" for char in label(name)) for name in columns]
    shown = [name if len(name) <= _SHOWN_LENGTH else name[: _SHOWN_LENGTH - 1] + "…" for name in names[:_SHOWN_COLUMNS]]
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return (", ".join(shown) or "none") + more


def plain_value(value: Any) -> Any:  # noqa: PLR0911 - one for each type
    """A value of a typed input as JSON has it: dates and times as in ISO 8601, decimals as numbers where they fit."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value == value else None  # noqa: PLR0124 - NaN is not equal to itself
    if isinstance(value, datetime | date | time):
        text = value.isoformat()
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        if value.as_tuple().exponent == 0:
            return int(value)
        return number if Decimal(repr(number := float(value))) == value else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_of_bytes(bytes(value))
    if isinstance(value, Mapping):
        return {str(name): plain_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain_value(part) for part in value]
    return str(value)


def _text_of_bytes(data: bytes) -> str:
    # Older programs write text without saying that it is one.
    try:
        return data.decode()
    except UnicodeDecodeError:
        return b64encode(data).decode()


def duration_text(value: timedelta) -> str:
    """A duration as hours, minutes and seconds: `26:03:04`."""
    sign = "-" * (value < timedelta(0))
    seconds, micros = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


def seconds_of_text(text: str) -> float:
    """The seconds of a duration such as `26:03:04`."""
    hours, minutes, seconds = map(float, text.lstrip("-").split(":"))
    return (-1 if text.startswith("-") else 1) * ((hours * 60 + minutes) * 60 + seconds)
