"""More exports: files that are written where they are used, since each of them is short."""

# ruff: noqa: E501, ISC004, RUF001, S608, SIM905 - exports are shown as they are, in many scripts

from __future__ import annotations

from typing import Any

from field.cases.common import THREE, scripted
from field.cases.tables import _LEFT_OUT
from field.model import Answer, Case, Expect, Put, Run
from field.wire import GOOD, GOOD_OLLAMA, always, whole

_TWO = ("two weeks", "love it")
_LATE, _GOOD = "It took two weeks to arrive.", "I love it, thank you so much."
_REFUSED: dict[str, Any] = {
    "exit": 2,
    "rows": 0,
    "answered": 0,
    "summaries": (),
    "talk": 4,
    "absent": ("out.csv", "out.jsonl", "out.csv.journal", "out.jsonl.journal"),
}


def _file(
    case: str,
    kind: str,
    source: str,
    about: str,
    name: str,
    content: str,
    *flags: str,
    encoding: str = "utf-8",
    packed: bool = False,
    output: str = "",
    **expect: Any,
) -> Case:
    """A case with one file, whose two rows say that it took two weeks, and that somebody loves it."""
    suffix = name.removesuffix(".gz").rpartition(".")[2]
    output = output or ("out.jsonl" if suffix in ("jsonl", "json", "txt", "ndjson") or "." not in name else "out.csv")
    expect = {"exit": 0, "rows": 2, "answered": 2, "failed": 0, "summaries": _TWO} | expect
    put = Put(name=name, content=content, encoding=encoding, packed=packed)
    run = Run(args=scripted(name, *flags, output=output), output=output, expect=Expect(**expect))
    return Case(id=f"export-{case}", kind=kind, source=source, about=about, steps=(put, run))


def _column(case: str, source: str, column: str, content: str, *flags: str, name: str = "in.csv", **more: Any) -> Case:
    about = f"Nobody names the column with the text, which is {column}."
    more = {"says": (column,)} | more
    return _file(f"column-{case}", "the text column", source, about, name, content, *flags, **more)


_COLUMNS = (
    _column(
        "delighted",
        "Delighted's export",
        "Comment",
        "Person ID,Email,Name,Score,Comment,Permalink,Created At,Updated At,Tags,Delighted Source\n"
        f"1,a@example.com,Ann Lee,2,{_LATE},https://delighted.com/r/1,2026-03-01 10:00:00 UTC,,,Email\n"
        f'2,b@example.com,Bo Ek,10,"{_GOOD}",https://delighted.com/r/2,2026-03-01 10:05:00 UTC,,,Email\n',
    ),
    _column(
        "asknicely",
        "AskNicely's export",
        "What is the main reason for your score?",
        "response_id,name,email,answer,answer_label,sent,responded,What is the main reason for your score?,workflow\n"
        f"11,Ann Lee,a@example.com,3,detractor,1709251200,1709254800,{_LATE},open\n"
        f'12,Bo Ek,b@example.com,10,promoter,1709251200,1709254900,"{_GOOD}",closed\n',
    ),
    _column(
        "hotjar",
        "Hotjar's export of a survey",
        "could we do better",
        "Number,User,Date Submitted,Country,Source URL,Device,Browser,OS,Hotjar User ID,"
        "How likely are you to recommend us?,What could we do better?\n"
        f"1,ab12cd,2026-03-01 10:00:00,Germany,https://shop.example/cart?step=2,Desktop,Chrome 122.0.0,Windows 10,"
        f"0aa1-44,3,{_LATE}\n"
        "2,ef34ab,2026-03-01 10:05:00,France,https://shop.example/,Phone,Mobile Safari 17.3,iOS 17.3,0aa1-45,10,"
        f'"{_GOOD}"\n',
    ),
    _column(
        "hotjar-widget",
        "Hotjar's export of feedback",
        "Message",
        "Number,User,Date Submitted,Country,Source URL,Device,Browser,OS,Emotion (1-5),Message,Email\n"
        f"1,ab12cd,2026-03-01 10:00:00,Germany,https://shop.example/a,Desktop,Chrome,Windows,1,{_LATE},\n"
        f'2,ef34ab,2026-03-01 10:05:00,France,https://shop.example/b,Phone,Safari,iOS,5,"{_GOOD}",b@example.com\n',
    ),
    _column(
        "freshdesk",
        "Freshdesk's export of survey results",
        "Survey Comment",
        "Ticket ID,Subject,Status,Priority,Agent,Survey Name,Survey Result,Survey Comment,Full name,Email,Group\n"
        f"71,Where is my parcel and when will it be here?,Closed,Low,Kim,Default,Unhappy,{_LATE},Ann Lee,a@x.example,EU\n"
        f'72,A question about the size of the blue coat,Closed,Low,Kim,Default,Happy,"{_GOOD}",Bo Ek,b@x.example,EU\n',
    ),
    _column(
        "has-comment",
        "survey tools that tell whether there is a comment",
        "Remarks by customer",
        "id,Has Comment,Comment Sent,Comment By,Remarks by customer\n"
        f"1,Yes,No,Ann Lee,{_LATE}\n"
        f'2,Yes,No,Bo Ek,"{_GOOD}"\n',
    ),
    _column(
        "named-but-not-text",
        "helpdesks whose form is called Feedback",
        "Details",
        "Ticket,Feedback,Details\n"
        f'7,Negative,{_LATE}\n8,Positive,"{_GOOD}"\n9,Negative,Nobody answers the phone at the weekend.\n',
        rows=3,
        answered=3,
    ),
    _column(
        "text-size",
        "design tools: names that begin with text",
        "What happened",
        "id,Text Size,Text Color,Message Count,What happened\n"
        f"1,12,red,3,{_LATE}\n"
        f'2,14,blue,1,"{_GOOD}"\n'
        "3,12,red,1,Nobody answers the phone at the weekend.\n"
        "4,12,red,1,The manual is not in the box.\n",
        rows=4,
        answered=4,
    ),
    _column(
        "salesforce-case",
        "Salesforce's export of cases",
        "Description",
        "Case Number,Contact Name,Subject,Description,Status,Owner,Date/Time Opened\n"
        f"00001026,Ann Lee,Parcel came much too late for the party,{_LATE},New,Kim Hall,3/1/2026 10:00 AM\n"
        f'00001027,Bo Ek,A word of thanks to all of you there,"{_GOOD}",New,Kim Hall,3/1/2026 10:05 AM\n',
    ),
    _column(
        "google-business",
        "reviews of a business profile, as a spreadsheet",
        "Comment",
        "Store code,Business name,Reviewer,Rating,Comment,Reply,Date\n"
        f"7,Mill Street Bakery and Coffee House,Ann Lee,2,{_LATE},We are sorry that you had to wait for so long.,1/3/26\n"
        f'7,Mill Street Bakery and Coffee House,Bo Ek,5,"{_GOOD}",Thank you Bo and see you again soon.,2/3/26\n',
    ),
    _column(
        "kobo",
        "KoboToolbox's export, with its trailing technical columns",
        "Any other remarks?",
        "start;end;How old are you?;Any other remarks?;_id;_uuid;_submission_time;_validation_status;_notes;_status\n"
        f"2026-03-01T10:00:00.000+01:00;2026-03-01T10:03:00.000+01:00;31;{_LATE};"
        "41;0aa1-1;2026-03-01T09:03:10;;;submitted_via_web\n"
        f"2026-03-01T11:00:00.000+01:00;2026-03-01T11:03:00.000+01:00;44;{_GOOD};"
        "42;0aa1-2;2026-03-01T10:03:10;;;submitted_via_web\n",
    ),
    _column(
        "limesurvey",
        "LimeSurvey's export with codes and questions",
        "G01Q02",
        '"id. Response ID","submitdate. Date submitted","lastpage. Last page","startlanguage. Start language",'
        '"G01Q01. How was it?","G01Q02. Please tell us what we should change in the shop."\n'
        f'"1","2026-03-01 10:00:00","2","en","2","{_LATE}"\n"2","2026-03-01 10:05:00","2","en","5","{_GOOD}"\n',
    ),
    *(
        _column(
            f"language-{code}",
            "names of the column in several languages",
            name,
            f"id;{title};{name}\n1;{one};{long}\n2;{two};{short}\n",
            summaries=(long[:12], short[:6]),
        )
        for code, title, name, one, two, long, short in (
            (
                "ru",
                "Товар",
                "Отзыв",
                "Чайник",
                "Лампа",
                "Посылка пришла на две недели позже.",
                "Очень доволен покупкой.",
            ),
            ("uk", "Товар", "Коментар", "Чайник", "Лампа", "Посилка прийшла надто пізно.", "Дуже задоволений."),
            ("el", "Προϊόν", "Σχόλια", "Βραστήρας", "Λάμπα", "Το δέμα ήρθε πολύ αργά.", "Είμαι πολύ ευχαριστημένη."),
            ("tr", "Ürün", "Yorum", "Su ısıtıcı", "Lamba", "Paket iki hafta geç geldi.", "Çok memnun kaldım."),
            (
                "cs",
                "Zboží",
                "Komentář",
                "Konvice",
                "Lampa",
                "Balík přišel o dva týdny později.",
                "Jsem velmi spokojen.",
            ),
            (
                "hu",
                "Termék",
                "Megjegyzés",
                "Vízforraló",
                "Lámpa",
                "A csomag két hetet késett.",
                "Nagyon szép, köszönöm.",
            ),
            ("sv", "Vara", "Omdöme", "Kokare", "Lampa", "Paketet kom två veckor för sent.", "Jag är mycket nöjd."),
            ("da", "Vare", "Bemærkninger", "Koger", "Lampe", "Pakken kom to uger for sent.", "Jeg er meget glad."),
            (
                "fi",
                "Tuote",
                "Vapaa palaute",
                "Keitin",
                "Lamppu",
                "Paketti tuli kaksi viikkoa myöhässä.",
                "Olen iloinen.",
            ),
            ("ko", "상품", "고객의견", "주전자", "램프", "택배가 너무 늦게 왔습니다.", "정말 마음에 들어요."),
            ("ar", "المنتج", "تعليق", "غلاية", "مصباح", "وصل الطرد متأخرا جدا عن موعده.", "أنا سعيد جدا بالخدمة."),
            ("he", "מוצר", "תגובה", "קומקום", "מנורה", "החבילה הגיעה באיחור של שבועיים.", "אני מאוד מרוצה מהשירות."),
            ("hi", "उत्पाद", "टिप्पणी", "केतली", "दीपक", "पार्सल दो सप्ताह देर से आया।", "मुझे यह बहुत पसंद है।"),
            ("th", "สินค้า", "ความคิดเห็น", "กา", "ไฟ", "พัสดุมาช้ามากกว่าสองสัปดาห์", "ชอบมากขอบคุณ"),
            ("vi", "Hàng", "Nhận xét", "Ấm", "Đèn", "Hàng giao trễ hai tuần liền.", "Tôi rất thích món này."),
            ("id", "Barang", "Ulasan", "Ketel", "Lampu", "Paket datang dua minggu terlambat.", "Saya sangat suka ini."),
            (
                "ro",
                "Produs",
                "Comentarii",
                "Ceainic",
                "Lampa",
                "Pachetul a venit prea târziu.",
                "Sunt foarte mulțumit.",
            ),
        )
    ),
    *(
        _file(
            f"refused-{case}",
            "the text column",
            source,
            "Several columns hold prose and none is the text: they are named, and none is guessed.",
            "in.csv",
            content,
            **(_REFUSED | {"says": (*says, "--text-field")}),
        )
        for case, source, content, says in (
            (
                "g2",
                "G2's export",
                "Reviewer,Company size,What do you like best about it?,What do you dislike about it?\n"
                "Ann Lee,51-200,The board is easy to read and fast.,Reports take ages to load.\n"
                "Bo Ek,1-50,Support answers within the hour.,The mobile app crashes a lot.\n",
                ("like best", "dislike"),
            ),
            (
                "start-stop",
                "retrospectives: what to start and to stop",
                "Team,Start doing,Stop doing\n"
                "A,Tell us earlier when a parcel is late.,Sending three mails for each order.\n"
                "B,Answer the phone on Saturdays please.,Wrapping single pens in large boxes.\n",
                ("Start doing", "Stop doing"),
            ),
        )
    ),
)

_JSON_ROWS = f'[{{"id": 1, "text": "{_LATE}"}}, {{"id": 2, "text": "{_GOOD}"}}]'
_ROW_1, _ROW_2 = f'{{"id": 1, "text": "{_LATE}"}}', f'{{"id": 2, "text": "{_GOOD}"}}'


def _json(case: str, source: str, about: str, content: str, *flags: str, name: str = "in.json", **more: Any) -> Case:
    return _file(f"json-{case}", "forms of JSON", source, about, name, content, *flags, **more)


_APPLE = (
    '{"data": [{"type": "customerReviews", "id": "a1", "attributes": {"rating": 2, "title": "Late", "body": "'
    + _LATE
    + '", "reviewerNickname": "ann", "territory": "DEU"}}, {"type": "customerReviews", "id": "a2", "attributes": '
    '{"rating": 5, "title": "Good", "body": "' + _GOOD + '", "reviewerNickname": "bo", "territory": "FRA"}}], '
    '"included": [{"type": "customerReviewResponses", "id": "r1", "attributes": {"responseBody": "We are sorry."}}], '
    '"links": {"self": "https://api.example/1"}, "meta": {"paging": {"total": 2, "limit": 50}}}'
)
_RSS = (
    '{"feed": {"author": {"name": {"label": "iTunes Store"}}, "entry": [{"author": {"name": {"label": "ann"}}, '
    '"im:rating": {"label": "2"}, "id": {"label": "1"}, "title": {"label": "Late"}, "content": {"label": "'
    + _LATE
    + '", "attributes": {"type": "text"}}}, {"author": {"name": {"label": "bo"}}, "im:rating": {"label": "5"}, '
    '"id": {"label": "2"}, "title": {"label": "Good"}, "content": {"label": "' + _GOOD + '", "attributes": '
    '{"type": "text"}}}], "link": [{"attributes": {"rel": "alternate"}}, {"attributes": {"rel": "self"}}]}}'
)
_TAKEOUT = (
    '{"type": "FeatureCollection", "features": [\n{"geometry": {"coordinates": [13.4, 52.5], "type": "Point"}, '
    '"properties": {"date": "2026-03-01T10:00:00Z", "five_star_rating_published": 2, "google_maps_url": '
    '"https://maps.example/1", "location": {"name": "Mill Street Bakery"}, "review_text_published": "'
    + _LATE
    + '"}, "type": "Feature"},\n{"geometry": {"coordinates": [13.5, 52.6], "type": "Point"}, "properties": '
    '{"date": "2026-03-02T10:00:00Z", "five_star_rating_published": 5, "review_text_published": "'
    + _GOOD
    + '"}, "type": "Feature"}]}\n'
)

_JSON = (
    _json("data", 'APIs: {"data": [...]}', "The rows stand under data.", f'{{"data": {_JSON_ROWS}}}', says=("data",)),
    _json(
        "data-meta",
        "JSON:API",
        "There are links and counts next to the rows.",
        f'{{"links": {{"next": null}}, "meta": {{"count": 2, "pages": [1]}}, "data": {_JSON_ROWS}}}',
    ),
    _json(
        "app-store-connect",
        "App Store Connect's API, customerReviews with include=response",
        "Rows and replies stand in two lists: the path tells which one is meant.",
        _APPLE,
        "--text-field",
        "attributes.body",
    ),
    _json(
        "app-store-connect-path-from-the-top",
        "App Store Connect's API",
        "The path begins at the top of the file.",
        _APPLE,
        "--text-field",
        "data.attributes.body",
        exit=(0, 2),
        rows=None,
        answered=None,
        summaries=(),
        says=("attributes.body",),
    ),
    _json(
        "app-store-connect-unnamed",
        "App Store Connect's API",
        "Nobody names the path: it is found, or one line names it.",
        _APPLE,
        exit=(0, 2),
        rows=None,
        answered=None,
        summaries=(),
        says=("attributes.body",),
    ),
    _json(
        "app-store-rss",
        "Apple's feed of customer reviews",
        "The rows are entries of a feed, which has a list of links as well.",
        _RSS,
        "--text-field",
        "content.label",
    ),
    _json(
        "takeout",
        "Google Takeout, Reviews.json",
        "The rows are the features of a map.",
        _TAKEOUT,
        "--text-field",
        "properties.review_text_published",
    ),
    _json(
        "takeout-unnamed",
        "Google Takeout, Reviews.json",
        "Nobody names the path: it is found, or one line names it.",
        _TAKEOUT,
        exit=(0, 2),
        rows=None,
        answered=None,
        summaries=(),
        says=("properties.review_text_published",),
    ),
    _json(
        "places",
        "Google's Places API",
        "The text is an object that holds the text.",
        '{"reviews": [{"rating": 2, "text": {"text": "' + _LATE + '", "languageCode": "en"}}, {"rating": 5, "text": '
        '{"text": "' + _GOOD + '", "languageCode": "en"}}]}',
        exit=(0, 2),
        rows=None,
        answered=None,
        summaries=(),
        says=("text.text",),
    ),
    _json(
        "elasticsearch",
        "Elasticsearch, the answer of a search",
        "The rows are two levels deep.",
        '{"took": 3, "timed_out": false, "_shards": {"total": 1}, "hits": {"total": {"value": 2}, "hits": ['
        f'{{"_index": "r", "_id": "1", "_source": {_ROW_1}}}, {{"_index": "r", "_id": "2", "_source": {_ROW_2}}}]}}}}',
        "--text-field",
        "_source.text",
    ),
    _json(
        "typeform-api",
        "Typeform's API, responses",
        "The answers are a list inside each row.",
        '{"total_items": 2, "page_count": 1, "items": [{"token": "a", "answers": [{"type": "number", "number": 2}, '
        '{"type": "text", "text": "' + _LATE + '"}]}, {"token": "b", "answers": [{"type": "number", "number": 5}, '
        '{"type": "text", "text": "' + _GOOD + '"}]}]}',
        "--text-field",
        "answers.1.text",
    ),
    _json(
        "pages",
        "paged APIs, each page appended to a file",
        "Each line is a page with its rows in a list.",
        f'{{"tickets": [{_ROW_1}], "next_page": "https://x.example/2"}}\n{{"tickets": [{_ROW_2}], "next_page": null}}\n',
    ),
    _json(
        "arrays",
        "paged APIs, each page appended to a file",
        "The pages are arrays, one after the other.",
        f"[{_ROW_1}]\n[{_ROW_2}]\n",
    ),
    _json(
        "firehose",
        "Amazon Data Firehose: records without line ends",
        "The objects stand one after the other on one line.",
        _ROW_1 + _ROW_2,
        name="stream-2026-03-01-10",
    ),
    _json(
        "firehose-jsonl",
        "Amazon Data Firehose: records without line ends",
        "The same under a name for JSON lines.",
        _ROW_1 + _ROW_2 + "\n",
        name="in.jsonl",
    ),
    _json(
        "array-as-jsonl",
        "editors that put commas behind each line",
        "An array under a name for JSON lines.",
        f"[\n{_ROW_1},\n{_ROW_2}\n]\n",
        name="in.jsonl",
    ),
    _json(
        "comma-lines",
        "arrays whose brackets were cut off",
        "Each line ends with a comma.",
        f"{_ROW_1},\n{_ROW_2},\n",
        name="in.jsonl",
    ),
    _json(
        "powershell",
        "PowerShell 5: ConvertTo-Json > file",
        "The file is UTF-16.",
        _JSON_ROWS.replace("}, {", "},\r\n    {"),
        encoding="utf-16",
    ),
    _json("mark", "", "JSON lines with a mark.", f"{_ROW_1}\n{_ROW_2}\n", name="in.jsonl", encoding="utf-8-sig"),
    _json(
        "packed",
        "",
        "The same, compressed, and named after its table.",
        f"{_ROW_1}\n{_ROW_2}\n",
        name="part-0000.gz",
        output="out.jsonl",
        packed=True,
    ),
    _json(
        "nan",
        "Python's json.dumps",
        "An array with NaN and an infinity.",
        f'[{{"score": NaN, "text": "{_LATE}"}}, {{"score": -Infinity, "text": "{_GOOD}"}}]',
    ),
    _json(
        "mongoexport",
        "MongoDB's mongoexport",
        "Ids and dates are objects.",
        '{"_id": {"$oid": "65e1"}, "at": {"$date": "2026-03-01T10:00:00Z"}, "stars": {"$numberInt": "2"}, "comment": "'
        + _LATE
        + '"}\n{"_id": {"$oid": "65e2"}, "at": {"$date": "2026-03-01T10:05:00Z"}, "comment": "'
        + _GOOD
        + '"}\n',
        name="in.jsonl",
    ),
    _json(
        "loose",
        "Amazon review data (2014), loose JSON",
        "Each line is what Python prints for a dict.",
        "{'reviewerID': 'A1', 'helpful': [0, 0], 'reviewText': \"" + _LATE + "\", 'verified': True, 'vote': None}\n"
        "{'reviewerID': 'A2', 'helpful': [1, 2], 'reviewText': '" + _GOOD + "', 'verified': False, 'vote': None}\n",
        says=("reviewText",),
    ),
    _json(
        "strings",
        "a list of texts",
        "The array holds strings: they are the texts, or one line says what is expected.",
        f'["{_LATE}", "{_GOOD}"]',
        exit=(0, 2),
        rows=None,
        answered=None,
        summaries=(),
        talk=10,
    ),
    _json(
        "list-of-texts",
        "Jira and forum APIs: several comments in a list",
        "The column holds a list: one line names what is inside.",
        f'{{"id": 1, "comments": ["{_LATE}", "Still late."]}}\n{{"id": 2, "comments": ["{_GOOD}"]}}\n',
        "--text-field",
        "comments",
        name="in.jsonl",
        **(_REFUSED | {"says": ("comments.0",)}),
    ),
)


def _table(
    case: str, kind: str, source: str, about: str, content: str, *flags: str, name: str = "in.csv", **more: Any
) -> Case:
    return _file(f"table-{case}", kind, source, about, name, content, *flags, **more)


_MERGED = f'Customer,,Feedback,\nid,name,stars,comment\n1,Ann Lee,2,{_LATE}\n2,Bo Ek,5,"{_GOOD}"\n'

_TABLES = (
    _table(
        "merged-groups",
        "extra header rows",
        "sheets with merged cells above the header",
        "The first row has groups, the second one the names.",
        _MERGED,
        says=("comment", _LEFT_OUT),
    ),
    _table(
        "blank-lines-above",
        "lines above the header",
        "Excel, whose table does not begin in the first row",
        "Rows of delimiters stand above the header.",
        f',,,\r\n,,,\r\nid,stars,comment,\r\n1,2,{_LATE},\r\n2,5,"{_GOOD}",\r\n',
        says=("comment",),
    ),
    _table(
        "blank-first-column",
        "empty columns",
        "Excel, whose table does not begin in the first column",
        "The first column is empty.",
        f";;\n;id;comment\n;1;{_LATE}\n;2;{_GOOD}\n",
        says=("comment",),
    ),
    _table(
        "totals-above",
        "lines above the header",
        "reports with their total at the top",
        "The number of rows stands above the header.",
        f'Total responses,2\nAverage score,3.5\n\nid,stars,comment\n1,2,{_LATE}\n2,5,"{_GOOD}"\n',
        says=("comment", _LEFT_OUT),
    ),
    _table(
        "column-letters",
        "extra header rows",
        "sheets printed with their column letters",
        "Letters of the columns stand above the header.",
        f'A,B,C\nid,stars,comment\n1,2,{_LATE}\n2,5,"{_GOOD}"\n',
        says=("comment", _LEFT_OUT),
    ),
    _table(
        "mark-in-quotes",
        "byte order marks",
        "tilo/smarter_csv#219",
        "A second mark stands before a quoted name.",
        f'\ufeff"id","comment"\n"1","{_LATE}"\n"2","{_GOOD}"\n',
        "--id-field",
        "id",
        encoding="utf-8-sig",
        columns=("id", "comment"),
    ),
    _table(
        "mark-inside-quotes",
        "byte order marks",
        "tools that quote what they read",
        "The mark stands inside the quotes of the first name.",
        f'"\ufeffid","comment"\n"1","{_LATE}"\n"2","{_GOOD}"\n',
        "--id-field",
        "id",
        columns=("id", "comment"),
    ),
    _table(
        "blank-before-quote",
        "quotes",
        "a blank behind each comma",
        "Cells are quoted, and a blank stands before each quote.",
        f'id, comment, stars\n1, "It took two weeks, or more.", 2\n2, "{_GOOD}", 5\n',
        columns=("id", "comment", "stars"),
    ),
    _table(
        "single-column",
        "one column",
        "a list of texts with commas",
        "The only column is not quoted, and its texts have commas.",
        "comment\nIt took two weeks, or more\nI love it, really, thank you\nGood, but late\n",
        rows=3,
        answered=3,
    ),
    _table(
        "single-column-quoted",
        "one column",
        "a list of texts in quotes",
        "The only column is quoted, and its texts have line breaks.",
        f'"Feedback"\r\n"{_LATE}\r\nNever again."\r\n"{_GOOD}"\r\n',
    ),
    _table(
        "semicolons-in-text",
        "delimiters",
        "vincentlaucsb/csv-parser#140",
        "Commas separate, and every text has semicolons.",
        "id,comment\n1,It took two weeks; no call; no mail; nothing\n2,I love it; thank you; bye; see you\n",
    ),
    _table(
        "commas-in-text",
        "delimiters",
        "Keyang/node-csvtojson#479",
        "Semicolons separate, and every text has commas and no quotes.",
        "id;comment\n1;It took two weeks, no call, no mail\n2;I love it, thank you, bye\n",
    ),
    _table(
        "decimal-commas-tabs",
        "delimiters",
        "mholt/PapaParse#1005",
        "Tabs separate, and numbers have decimal commas.",
        f"id\tscore\tshare\tcomment\n1\t2,5\t0,5\t{_LATE}\n2\t4,5\t0,7\t{_GOOD}\n",
        name="in.txt",
    ),
    _table(
        "caret",
        "delimiters",
        "mainframe exports",
        "The user says that carets separate.",
        f"id^comment\n1^{_LATE}\n2^{_GOOD}\n",
        "--delimiter",
        "^",
        columns=("id", "comment"),
    ),
    _table(
        "control-a",
        "delimiters",
        "Hive's text files",
        "The user says that Ctrl-A separates.",
        f"id\x01comment\n1\x01{_LATE}\n2\x01{_GOOD}\n",
        "--delimiter",
        "\x01",
        columns=("id", "comment"),
    ),
    _table(
        "r-spaces",
        "delimiters",
        "R: write.table",
        "Blanks separate quoted cells, and each row has a name.",
        f'"id" "comment"\n"1" 1 "{_LATE}"\n"2" 2 "{_GOOD}"\n',
        "--delimiter",
        "space",
        name="in.txt",
        columns=("comment",),
    ),
    _table(
        "r-csv",
        "empty cells",
        "R: write.csv",
        "R quotes texts only, and writes NA.",
        f'"","id","comment"\n"1",1,"{_LATE}"\n"2",2,"{_GOOD}"\n"3",3,NA\n',
        rows=3,
    ),
    _table(
        "markdown",
        "rules below the header",
        "tables of a wiki",
        "The table is written with bars and a rule.",
        f"| id | comment |\n|----|---------|\n| 1 | {_LATE} |\n| 2 | {_GOOD} |\n",
        name="in.txt",
    ),
    _table(
        "psql",
        "rules below the header",
        "psql, its table on the screen",
        "A rule below the header, and the number of rows at the end.",
        f" id |             comment\n----+----------------------------------\n  1 | {_LATE}\n  2 | {_GOOD}\n(2 rows)\n\n",
        name="in.txt",
        columns=("id", "comment"),
    ),
    _table(
        "sqlplus",
        "rules below the header",
        "Oracle's SQL*Plus: set markup csv, spool",
        "The prompt and the number of rows stand around the table.",
        f'SQL> select id, comment_text from reviews;\n\n"ID","COMMENT_TEXT"\n1,"{_LATE}"\n2,"{_GOOD}"\n\n'
        "2 rows selected.\n\nSQL> spool off\n",
        says=("COMMENT_TEXT",),
    ),
    _table(
        "mysql-batch",
        "empty cells",
        "mysql --batch",
        "Tabs, NULL, and escapes for line breaks.",
        f"id\tname\tcomment\n1\tNULL\t{_LATE}\\nNever again.\n2\tBo\t{_GOOD}\n3\tCy\tNULL\n",
        name="in.tsv",
        rows=3,
    ),
    _table(
        "copy",
        "backslash escapes",
        "PostgreSQL: COPY ... WITH HEADER",
        "Tabs, \\N, lone quotes and the mark of the end.",
        f'id\tcomment\tname\n1\tIt took two weeks for a 15" screen.\t\\N\n2\t{_GOOD}\t"Bo"\n3\t\\N\tCy\n\\.\n',
        name="in.tsv",
        rows=3,
    ),
    _table(
        "redshift",
        "backslash escapes",
        "Amazon Redshift: UNLOAD ... HEADER ESCAPE",
        "Bars separate, and a backslash escapes a bar in a text.",
        "id|comment|stars\n1|It took two weeks \\| or more.|2\n2|I love it, thank you.|5\n",
        name="reviews_000",
        summaries=("two weeks | or more", "love it"),
    ),
    _table(
        "snowflake",
        "empty cells",
        "Snowflake: COPY INTO ... OVERWRITE HEADER",
        "The file is compressed, and nothing is written as \\\\N.",
        f'ID,COMMENT_TEXT\n1,"{_LATE}"\n2,"{_GOOD}"\n3,\\N\n',
        name="data_0_0_0.csv.gz",
        packed=True,
        rows=3,
        says=("COMMENT_TEXT",),
    ),
    _table(
        "spaces-as-null",
        "empty cells",
        "exports of fixed width",
        "A text of blanks is none.",
        f'id,comment\n1,{_LATE}\n2,"{_GOOD}"\n3,   \n4,\u00a0\n',
        rows=4,
    ),
    _table(
        "excel-short-rows",
        "ragged rows",
        "support.microsoft.com: column delimiters are missing in a text file",
        "Excel leaves out delimiters at the end of rows where nothing follows.",
        "id,comment,answered,by\n"
        + "".join(f"{n},This is remark number {n} on the service.,yes,Kim\n" for n in range(1, 9))
        + f'9,{_LATE}\n10,"{_GOOD}"\n',
        rows=10,
        answered=10,
        summaries=(),
    ),
    _table(
        "broken-line",
        "ragged rows",
        "unquoted line breaks in a text",
        "A line break cuts a row into two: they are refused, not padded.",
        f"id,comment,stars\n1,{_LATE},2\n2,I love it\nand I tell everybody,5\n",
        **(_REFUSED | {"says": ("in.csv:3",)}),
    ),
    _table(
        "one-cell-too-many",
        "ragged rows",
        "a text with a comma and no quotes",
        "A text with a comma is not quoted: the line is named.",
        f"id,comment,stars\n1,{_LATE},2\n2,I love it, really,5\n",
        **(_REFUSED | {"says": ("in.csv:3", "quotes")}),
    ),
    _table(
        "one-cell-too-many-skipped",
        "ragged rows",
        "the same with --on-bad-row skip",
        "The bad row is left out, and that is said.",
        f"id,comment,stars\n1,{_LATE},2\n2,I love it, really,5\n3,{_GOOD[:9]},5\n",
        "--on-bad-row",
        "skip",
        exit=(0, 3),
        says=("in.csv:3",),
    ),
    _table(
        "xls-with-tabs",
        "names that mislead",
        "web programs that call a text file .xls",
        "A table with tabs is called .xls.",
        f"id\tcomment\n1\t{_LATE}\n2\t{_GOOD}\n",
        name="in.xls",
    ),
    _table(
        "xls-with-html",
        "names that mislead",
        "web programs that call a page .xls",
        "A page is called .xls: one line says what it is.",
        f"<html><body><table><tr><td>id</td><td>comment</td></tr>\n<tr><td>1</td><td>{_LATE}</td></tr></table></html>\n",
        name="in.xls",
        **(_REFUSED | {"says": ("HTML",)}),
    ),
    _table(
        "csv-with-jsonl",
        "names that mislead",
        "a file with the wrong name",
        "JSON lines are called .csv: they are read, or one line says so.",
        f"{_ROW_1}\n{_ROW_2}\n",
        exit=(0, 2),
        rows=None,
        answered=None,
        summaries=(),
        says=(("json",),),
    ),
    _table(
        "yaml",
        "names that mislead",
        "",
        "YAML is no table: one line says so.",
        f"- id: 1\n  text: {_LATE}\n- id: 2\n  text: {_GOOD}\n",
        name="in.yaml",
        **_REFUSED,
    ),
    _table(
        "quote-all-crlf",
        "the output's dialect",
        "LibreOffice: quote all text cells",
        "Bars, quotes and CRLF stay.",
        f'"id"|"comment"\r\n"1"|"{_LATE}"\r\n"2"|"{_GOOD}"\r\n',
        starts=b'"id"|"comment"|"summary"|',
    ),
    _table(
        "utf-16-semicolons",
        "the output's dialect",
        "Excel: UTF-16 and semicolons",
        "The output has a mark and semicolons.",
        f"id;comment\r\n1;{_LATE}\r\n2;{_GOOD}\r\n",
        encoding="utf-16",
        starts=b"\xef\xbb\xbfid;comment;summary;",
    ),
    _table(
        "upper-lower",
        "clashing names",
        "databases: SUMMARY and Summary",
        "Two names differ only by case, and both are like an added one.",
        f'id,comment,SUMMARY,Summary\n1,{_LATE},a,b\n2,"{_GOOD}",c,d\n',
        columns=("SUMMARY", "Summary", "mellea_summary"),
        cells=((0, "SUMMARY", "a"), (1, "Summary", "d")),
    ),
    _table(
        "own-output",
        "clashing names",
        "the output of a run as the input of another",
        "The input has all our columns, and one with the prefix.",
        f'id,comment,summary,mellea_summary,sentiment,error\n1,{_LATE},x,y,z,\n2,"{_GOOD}",x,y,z,\n',
        columns=("summary", "mellea_summary", "mellea_summary_2", "mellea_sentiment"),
        answered=None,
        cells=((0, "summary", "x"), (1, "mellea_summary", "y")),
        summaries=(),
    ),
)


def _encoded(case: str, encoding: str, wanted: tuple[str, ...], text: str, source: str, *, flag: str = "") -> Case:
    """A table in an encoding that nothing in it names: read, and said, or one line with the flag."""
    content = f"id;Text\n1;{text}\n2;{text[::-1]} 2\n"
    flags = ("--encoding", flag) if flag else ()
    more: dict[str, Any] = (
        {"summaries": (text[:5],)} if flag else _REFUSED | {"says": (wanted, "--encoding"), "exit": 2}
    )
    about = f"A file in {encoding}; " + ("the user names it." if flag else "one line names the flag.")
    return _table(case, "encodings", source, about, content, *flags, encoding=encoding, **more)


_RU = "Посылка пришла на две недели позже обещанного срока, никто не извинился"
_JA = "荷物が二週間も遅れて届きました。とても残念です。電話にも誰も出ませんでした"
_ZH = "包裹晚到了两个星期，非常失望。打电话也没有人接听，希望改进服务质量"
_PL = "Paczka przyszła dwa tygodnie później, a obsługa nie przeprosiła za zwłokę ani słowem"
_MAC = "Le colis est arrivé très tard et personne n’a répondu à mes appels répétés, c’est gênant"

_ENCODINGS = (
    _encoded("cp1251", "cp1251", ("cp1251",), _RU, "Excel's export in a Russian locale"),
    _encoded("cp1251-named", "cp1251", (), _RU, "Excel's export in a Russian locale", flag="cp1251"),
    _encoded("shift-jis", "shift_jis", ("shift-jis", "cp932"), _JA, "Excel's export in a Japanese locale"),
    _encoded("shift-jis-named", "cp932", (), _JA, "Excel's export in a Japanese locale", flag="Shift_JIS"),
    _encoded("gbk", "gbk", ("gb18030", "gbk"), _ZH, "Excel's export in a Chinese locale"),
    _encoded("gbk-named", "gbk", (), _ZH, "Excel's export in a Chinese locale", flag="GBK"),
    _encoded("cp1250", "cp1250", ("cp1250",), _PL, "Excel's export in a Polish locale"),
    _encoded("mac-roman", "mac_roman", ("mac-roman", "mac_roman", "macroman"), _MAC, "Excel's CSV (Macintosh)"),
    _encoded("mac-roman-named", "mac_roman", (), _MAC, "Excel's CSV (Macintosh)", flag="macroman"),
    _table(
        "utf-16-unmarked",
        "encodings",
        "iconv -t UTF-16LE",
        "UTF-16 without a mark: one line names the flag.",
        f"id,comment\n1,{_LATE}\n",
        encoding="utf-16-le",
        **(_REFUSED | {"says": ("--encoding utf-16-le",)}),
    ),
    _table(
        "utf-16-big",
        "encodings",
        "Java: UTF-16",
        "UTF-16 in the other order.",
        f'\ufeffid,comment\n1,{_LATE}\n2,"{_GOOD}"\n',
        encoding="utf-16-be",
        says=("comment",),
    ),
    _table(
        "utf-16-packed",
        "encodings",
        "Play Console's reports in a bucket",
        "UTF-16, compressed.",
        f'id,Review Title,Review Text\n1,,{_LATE}\n2,,"{_GOOD}"\n',
        encoding="utf-16",
        packed=True,
        name="reviews.csv.gz",
        says=("Review Text",),
    ),
)


def _request(case: str, source: str, about: str, expect: Expect, *, name: str = "replies.jsonl", **answer: Any) -> Case:
    base = ("summarise", THREE, "-o", "out.jsonl", "-b", "openai", "-m", "m", "--base-url", "{url}/v1", "-c", "1")
    return Case(
        id=f"import-{case}",
        kind="--import-batch",
        source=source,
        about=about,
        steps=(
            Run(args=(*base, "--export-batch", "requests.jsonl"), output="none", expect=Expect(requests=0)),
            Answer(requests="requests.jsonl", name=name, **answer),
            Run(args=(*base, "--import-batch", name), expect=expect),
        ),
        files=(THREE,),
        rules=always(GOOD),
    )


_PAID = Expect(answered=3, failed=0, requests=0)
_FAILED = Expect(exit=(0, 3), answered=3, requests=3)

_IMPORTS = (
    _request("utf-16", "PowerShell: > replies.jsonl", "The file was written again as UTF-16.", _PAID, form="utf-16"),
    _request("array", "jq -s", "The replies are elements of an array.", _PAID, form="array", name="replies.json"),
    _request(
        "empty",
        "a batch without answers",
        "The file is empty: nothing is asked.",
        Expect(exit=2, requests=0, says=("replies.jsonl",), talk=4),
        form="empty",
    ),
    _request(
        "vllm",
        "vLLM: run-batch",
        "The response has no status.",
        _PAID,
        line=lambda name, text: {
            "id": "v",
            "custom_id": name,
            "response": {"request_id": "r", "body": whole(text)},
            "error": None,
        },
    ),
    _request(
        "fireworks",
        "Fireworks, batch inference",
        "The response is the answer itself.",
        _PAID,
        line=lambda name, text: {"custom_id": name, "response": whole(text)},
    ),
    _request(
        "anthropic",
        "Anthropic, message batches",
        "The result is a message with blocks.",
        _PAID,
        line=lambda name, text: {
            "custom_id": name,
            "result": {
                "type": "succeeded",
                "message": {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "model": "m",
                    "stop_reason": "end_turn",
                    "content": [{"type": "text", "text": text}],
                    "usage": {"input_tokens": 700, "output_tokens": 60},
                },
            },
        },
    ),
    _request(
        "gemini",
        "Gemini, batch mode",
        "The lines have keys of another API: nothing is asked.",
        Expect(exit=2, requests=0, says=("replies.jsonl",), talk=4),
        line=lambda name, text: {"key": name, "response": {"candidates": [{"content": {"parts": [{"text": text}]}}]}},
    ),
    _request(
        "errors",
        "OpenAI, the errors file of a batch",
        "No request has an answer: the rows are asked live.",
        _FAILED,
        line=lambda name, _: {
            "id": "b",
            "custom_id": name,
            "response": {
                "status_code": 500,
                "body": {"error": {"message": "The server had an error", "type": "server_error"}},
            },
            "error": None,
        },
    ),
    _request(
        "expired",
        "OpenAI, an expired batch",
        "The requests were not done in time: the rows are asked live.",
        _FAILED,
        line=lambda name, _: {
            "id": "b",
            "custom_id": name,
            "response": None,
            "error": {
                "code": "batch_expired",
                "message": "This request could not be executed before the completion window",
            },
        },
    ),
    _request(
        "foreign",
        "another program's batch",
        "The names are another program's: nothing is asked.",
        Expect(exit=2, requests=0, says=("replies.jsonl",), talk=4),
        line=lambda _, text: {
            "id": "b",
            "custom_id": "request-1",
            "response": {"status_code": 200, "body": whole(text)},
        },
    ),
    _request(
        "some-foreign",
        "glued files",
        "Lines of another program stand among the replies.",
        _PAID,
        others=('{"custom_id": "request-1", "response": {"status_code": 200, "body": {}}}', "", "not JSON"),
    ),
)

_PHONES = (
    "+1 (415) 555-2671|(415) 555-2671|415.555.2671|1-800-555-0199|+44 20 7946 0958|07700 900123|030/901820|06 12 34 56 78"
    "|06-12345678|+34 612 34 56 78|340 123 4567|079 123 45 67|512-345-678|0721.234.567|8 (912) 345-67-89|8-912-345-67-89"
    "|+380 50 123 45 67|0 532 123 45 67|(11) 91234-5678|11 91234-5678|090-1234-5678|010-1234-5678|138 0013 8000"
    "|138-0013-8000|98765 43210|+91 98765 43210|0812-3456-7890|(02) 9876 5432|0412 345 678|050-1234567|011 44 20 7946 0958"
    "|móvil 612345678|celular: 5512345678|cellulare 3401234567|тел. 89123456789|телефон 89123456789|电话 13800138000"
    "|手机13800138000|電話：0312345678|휴대폰 01012345678|τηλ. 6912345678|puh. 0401234567|tlf. 20123456|GSM 0470123456"
    "|＋81 90 1234 5678|+49 (0)171/2345678|WhatsApp 4915112345678"
).split("|")
_NO_PHONES = (
    "2024-03-05|05.03.2024|2024-03-05T10:15:22Z|01/2024-12/2024|1,234,567.89|1.234.567,89|1 234 567,89 €|1 234 567 kr"
    "|20 000 000 Ft|2 000 000 Kč|12 500 000 VND|300 000 000 ₫|100 000 000 users|10 000 000 views|R$ 1.250.000,00"
    "|₹12,34,567|10.15.7.1|v2.14.3|10.0.19045.3803|build 20240305.1|order 123-4567890-1234567|Order #4155552671"
    "|order number 4155552671|ticket 0123456789|case 00123456|INV-2024-000123|Bestellung 4711 0815 22|Bestellnummer 012345678"
    "|EAN 4006381333931|ISBN 978-3-16-148410-0|IMEI 490154203237518|1Z999AA10123456784|model 0123-456-789"
    "|part no. 070-123-456|Art.-Nr. 100 200 300|serial 012345678901|account 0123456789|pedido 0123456789|commande n° 0123456789"
    "|48.8566, 2.3522|1709630122000|12345-6789|2019 2020 2021|A4 210 x 297 mm|rated 10/10 10/10|CVE-2024-123456"
    "|SKU 0123456789|ID 0123456789|заказ 0123456789|订单号 13800138000|注文番号 090-1234-5678"
).split("|")


def _masks(case: str, about: str, texts: list[str], **expect: Any) -> Case:
    rows = "".join(f'{{"text": "Please note {text} as I said."}}\n' for text in texts)
    args = ("summarise", "in.jsonl", "-o", "out.jsonl", "-b", "ollama", "-m", "m", "--base-url", "{url}", "-c", "1")
    run = Run(args=(*args, "--redact"), expect=Expect(requests=len(texts), **expect), seconds=240)
    return Case(
        id=f"redact-{case}",
        kind="--redact",
        source="phone numbers and other numbers as people write them",
        about=about,
        steps=(Put(name="in.jsonl", content=rows), run),
        rules=always(GOOD_OLLAMA),
    )


_REDACT = (
    _masks(
        "phones",
        "Phone numbers of many countries do not leave.",
        _PHONES,
        never=tuple({"text": [f"{text} as I"]} for text in _PHONES),
    ),
    _masks(
        "numbers",
        "Dates, amounts, versions and numbers of orders and things leave as they are.",
        _NO_PHONES,
        sends=tuple({"text": [text]} for text in _NO_PHONES),
    ),
    _masks(
        "addresses",
        "E-mail addresses, accounts and cards of several forms do not leave.",
        [
            "jo+x@mail.example.co.uk",
            "jo@bücher.example",
            "mailto:jo@example.com",
            "DE89370400440532013000",
            "de89 3704 0044 0532 0130 00",
            "FR14 2004 1010 0505 0001 3M02 606",
            "4111-1111-1111-1111",
            "5555555555554444",
            "3782 822463 10005",
            "IP 203.0.113.7",
        ],
        never=tuple(
            {"text": [text]}
            for text in (
                "jo+x@",
                "jo@b",
                "jo@e",
                "0532013000",
                "0532 0130",
                "3M02 606",
                "1111-1111",
                "5555555555",
                "822463 1",
                "203.0.113",
            )
        ),
    ),
)

CASES: tuple[Case, ...] = (*_COLUMNS, *_JSON, *_TABLES, *_ENCODINGS, *_IMPORTS, *_REDACT)
