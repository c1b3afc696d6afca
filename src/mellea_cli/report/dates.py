"""Dates of a column in any form, and the time buckets of a trend.

A date such as 03/04/2026 does not say which number is the month. Both readings are kept until the end: a single value
like 25/12/2026 decides for the whole column.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Literal

Bucket = Literal["day", "week", "month", "quarter", "year"]

# Columns that are taken as the date when the user names none, in English, German, French, Spanish, Italian, Portuguese
# and Dutch. First those that say when the feedback was written; names are compared as `_plain` makes them.
_DATE_COLUMNS = (
    *("created at", "date", "created", "timestamp", "submitted at", "date submitted", "submit date", "submission date"),
    *("created on", "date created", "creation date", "response date", "review date", "recorded date", "received at"),
    *("erstellt am", "datum", "erstellungsdatum", "eingegangen am", "eingangsdatum", "abgegeben am", "bewertungsdatum"),
    *("zeitstempel", "horodateur", "cree le", "date de creation", "date de reponse", "soumis le", "date d envoi"),
    *("creado el", "fecha", "fecha de creacion", "fecha de envio", "fecha de respuesta", "marca temporal"),
    *("creato il", "data", "data di creazione", "data di invio", "data creazione", "informazioni cronologiche"),
    *("criado em", "data de criacao", "data de envio", "data da resposta", "carimbo de data hora"),
    *("aangemaakt op", "gemaakt op", "aanmaakdatum", "ingezonden op", "datum aangemaakt", "tijdstempel"),
    *("datetime", "date time", "datum uhrzeit", "date et heure", "fecha y hora", "data e ora", "data e hora"),
    *("datum en tijd", "time", "day", "zeitpunkt", "zeit", "tag", "jour", "dia", "giorno", "dag"),
)
_RANKS = {name: rank for rank, name in enumerate(_DATE_COLUMNS)}
_LONGEST_DATE = 40


def date_rank(column: str) -> int | None:
    """The place of a column among those that are called like a date, the likeliest first; `None` for any other."""
    return _RANKS.get(_plain(column))


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    """A column's name without case, accents, signs and repeated white space."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # such as `createdAt`
    letters = (one for one in unicodedata.normalize("NFKD", name) if not unicodedata.combining(one))
    return " ".join(re.sub(r"[\W_]+", " ", "".join(letters)).split()).casefold()


def looks_like_date(value: Any) -> bool:
    """Whether a text is a date in some form; a number alone may be anything."""
    text = value.strip() if isinstance(value, str) else ""
    is_likely = 6 <= len(text) <= _LONGEST_DATE and not text.isalpha() and not re.fullmatch(r"[\d.,]*", text)
    return (is_likely or _NUMERIC.fullmatch(text) is not None) and read_day(text) is not None


_NUMERIC = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?:[ T,].*)?")
_YEAR_FIRST = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[ T].*)?")
_WITH_MONTH_NAME = ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%Y-%m")
_EARLIEST, _LATEST = 1970, 2200
_MOST_BUCKETS = 40
_CACHED_VALUES = 50_000

Ambiguous = tuple[int, int, int]  # First number, second number, year: one of the first two is the month


def read_day(value: Any) -> date | Ambiguous | None:
    """Read a day; `None` when it is no date, three numbers when its month is ambiguous.

    A value is ISO 8601, seconds or milliseconds since 1970, `31.12.2026`, `12/31/2026`, `31 Dec 2026`, or the date line
    of a mail. A time and a zone may follow; the day is the one that is written there.
    """
    if isinstance(value, bool) or value is None:
        return None
    text = str(value).strip()
    if not text:
        return None
    day = _iso(text) or _numeric(text) or _epoch(text) or _with_month_name(text)
    year = day.year if isinstance(day, date) else day[2] if day else 0
    return day if _EARLIEST <= year <= _LATEST else None


def _iso(text: str) -> date | None:
    try:
        if len(text) >= 10 and text[4] == "-":
            return datetime.fromisoformat(text).date()
        if len(text) == 8 and text.isdigit() and text[:2] in ("19", "20", "21"):
            return date.fromisoformat(text)
    except ValueError:
        pass
    if match := re.match(r"(\d{4}-\d{2}-\d{2})[ T]", text):  # such as `2026-01-02 03:04:05 UTC`
        text = match[1]
    match = _YEAR_FIRST.fullmatch(text)
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else date.fromisoformat(text)
    except ValueError:
        return None


def _numeric(text: str) -> date | Ambiguous | None:
    if not (match := _NUMERIC.fullmatch(text)):
        return None
    first, mark, second, year = int(match[1]), match[2], int(match[3]), int(match[4])
    if mark == ".":  # countries that write dots put the day first
        return _date_or_none(year, second, first)
    if first == second or max(first, second) > 12:
        return (first, second, year) if _date_or_none(year, min(first, second), max(first, second)) else None
    return first, second, year


def _epoch(text: str) -> date | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    if seconds > 1e11:
        seconds /= 1000
    if not 1e8 < seconds < 7e9:  # a smaller number is more likely a count or a year
        return None
    return datetime.fromtimestamp(seconds, UTC).date()


def _with_month_name(text: str) -> date | None:
    for form in _WITH_MONTH_NAME:
        try:
            return datetime.strptime(text, form).date()  # noqa: DTZ007 - only the day is needed
        except ValueError:
            continue
    try:
        return parsedate_to_datetime(text).date()
    except (ValueError, TypeError, IndexError):
        return None


def _date_or_none(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def resolve_order(day: date | Ambiguous | None, *, month_first: bool) -> date | None:
    """The day, once the order of day and month is known; `None` when there is no such day."""
    if day is None or isinstance(day, date):
        return day
    first, second, year = day
    return _date_or_none(year, first, second) if month_first else _date_or_none(year, second, first)


@dataclass
class DayCounts:
    """Judgements counted by day, while the order of day and month may be open."""

    by_day: defaultdict[date | Ambiguous, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    empty: int = 0  # Rows without a value in the column
    unreadable: int = 0  # Rows with a value that is no date
    samples: list[str] = field(default_factory=list)  # The first few values that are no dates
    first_is_day: int = 0
    first_is_month: int = 0
    _cache: dict[Any, date | Ambiguous | None] = field(default_factory=dict)

    def add(self, value: Any, judgement: str) -> None:
        if value is None or (isinstance(value, str) and not value.strip()):
            self.empty += 1
            return
        key = value if isinstance(value, str | int | float) else str(value)
        if key not in self._cache:
            if len(self._cache) > _CACHED_VALUES:
                self._cache.clear()
            self._cache[key] = read_day(value)
        day = self._cache[key]
        if day is None:
            self.unreadable += 1
            if len(self.samples) < 3:
                self.samples.append(str(value)[:40])
            return
        if not isinstance(day, date):
            self.first_is_day += day[0] > 12
            self.first_is_month += day[1] > 12
        self.by_day[day][judgement] += 1

    @property
    def ambiguous(self) -> bool:
        """Whether there are dates whose month no other date of the column decides."""
        open_dates = any(not isinstance(day, date) and day[0] != day[1] for day in self.by_day)
        return open_dates and not self.first_is_day and not self.first_is_month

    @property
    def month_first(self) -> bool:
        """Whether the dates with one reading, such as 12/25/2026, put the month first."""
        return self.first_is_month > self.first_is_day

    def resolved(self, *, month_first: bool) -> dict[date, Counter[str]]:
        """The counts by day, oldest first, without values that are no day in this order."""
        found: dict[date, Counter[str]] = {}
        for day, counts in self.by_day.items():
            if (resolved := resolve_order(day, month_first=month_first)) is not None:
                found.setdefault(resolved, Counter()).update(counts)
        return dict(sorted(found.items()))

    @property
    def rows(self) -> int:
        """Rows whose value looks like a date, in whichever order."""
        return sum(counts.total() for counts in self.by_day.values())


def fitting_bucket(first: date, last: date) -> Bucket:
    """The bucket size for a period: days up to five weeks, weeks up to half a year, then months or longer."""
    days = (last - first).days + 1
    if days <= 35:
        return "day"
    if days <= 190:
        return "week"
    if days <= 31 * _MOST_BUCKETS:
        return "month"
    return "quarter" if days <= 92 * _MOST_BUCKETS else "year"


_MONTHS: Mapping[Bucket, int] = {"month": 1, "quarter": 3, "year": 12}


def bucket_start(day: date, bucket: Bucket) -> date:
    """The first day of a day's bucket; weeks begin on Monday."""
    if bucket in ("day", "week"):
        return day if bucket == "day" else day - timedelta(days=day.weekday())
    months = _MONTHS[bucket]
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def buckets(first: date, last: date, bucket: Bucket) -> Iterator[date]:
    """The first day of every bucket of a period, empty ones included."""
    start = bucket_start(first, bucket)
    while start <= last:
        yield start
        step = {"day": 1, "week": 7, "month": 32, "quarter": 100, "year": 370}[bucket]
        start = bucket_start(start + timedelta(days=step), bucket)


def bucket_name(start: date, bucket: Bucket) -> str:
    """The name of a bucket: `2026-10-05`, `2026-W41`, `2026-10`, `2026-Q4`, `2026`."""
    match bucket:
        case "day":
            return start.isoformat()
        case "week":
            year, week, _ = start.isocalendar()
            return f"{year}-W{week:02d}"
        case "month":
            return f"{start:%Y-%m}"
        case "quarter":
            return f"{start.year}-Q{(start.month + 2) // 3}"
        case "year":
            return str(start.year)
