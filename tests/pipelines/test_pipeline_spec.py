"""Tests of pipeline files: what is accepted, and the one line for each that is not."""

from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mellea_cli.errors import InputError
from mellea_cli.pipelines.default_prompts import PIPELINES
from mellea_cli.pipelines.pipeline_spec import (
    BUILT_IN,
    FieldSpec,
    PipelineSpec,
    StepSpec,
    check_pipeline,
    check_source,
    load_pipeline,
)

EVERYTHING = """\
# Every key of a pipeline file.
extends = "single"
context = '''
Reviews of a "bicycle" shop # not a comment
'''
language = "de"
labels = { positive = "praise", neutral = "neither", negative = "" }

[fields.product]
description = "the product"
nullable = true
max_words = 3

[fields.team]
type = "category"
choices = [
  "billing", # a comment with "marks" and ]
  "delivery",
]

[fields]
price = { type = "number", minimum = 0, maximum = 1e6, nullable = true }
bought = { type = "date", minimum = 2020-01-01, nullable = true }
"größe" = { type = "list", maximum = 3 }

[fields.evidence]
type = "quote"

[[examples]]
text = "The   pump broke on arrival."
answer = { team = "Delivery", evidence = "The pump broke", "größe" = ["L"], bought = 2026-01-31 }

[[examples]]
text = "Fine."
[examples.answer]
team = "billing"
evidence = "Fine"
"größe" = []

[[steps]]
name = "facts"
fields = ["product", "team", "price", "bought", "größe"]
needs = ["analysis"]

[[steps]]
name = "why"
fields = ["evidence"]
needs = ["facts", "analysis"]
when = 'team == "delivery" and not (price is none or sentiment in ["positive"]) or row["Sales channel"] == "web"'
prompt = '''
{{ text | fence }}
{% if product %}They mean {{ product | lower }}, bought {{ row.channel }}.{% endif %}'''
"""


class Malformed(NamedTuple):
    source: str | bytes
    line: int
    words: str
    hint: str = ""


_TEAM = '[fields.team]\ntype = "category"\nchoices = ["billing", "delivery"]\n'
_TWO_STEPS = (
    '[fields.a]\n[fields.b]\n[[steps]]\nname = "one"\nfields = ["a"]\n[[steps]]\nname = "two"\nfields = ["b"]\n'
)

MALFORMED = {
    # Not a file of TOML.
    "empty": Malformed("", 1, "it has no keys", "mellea pipeline new"),
    "comments only": Malformed("# later\n\n", 1, "it has no keys"),
    "not UTF-8": Malformed('context = "a"\ncontext2 = "caf\xe9"\n'.encode("latin-1"), 2, "not in UTF-8", "save it as"),
    "UTF-16": Malformed('context = "a"\n'.encode("utf-16"), 1, "not in UTF-8", "save it as UTF-8"),
    "NUL": Malformed(b'context = "a"\n\0', 2, "it is not TOML"),
    "JSON": Malformed('{"fields": {}}\n', 1, "neither KEY = value nor a [heading]"),
    "YAML": Malformed("fields:\n  product:\n", 1, "a key without = and a value", "KEY ="),
    "no quotation marks": Malformed("[fields.a]\ntype = text\n", 2, "a value that is no TOML", "quotation marks"),
    "no closing mark": Malformed('[fields.a]\ntype = "text\n', 2, "without its closing quotation marks", '"""'),
    "no closing marks": Malformed('[fields.a]\ndescription = """text\nmore\n', 3, "without its closing"),
    "open list": Malformed('[fields.a]\nchoices = ["x"\n[fields.b]\n', 3, "it is not TOML: a list without its ]"),
    "open heading": Malformed('[fields.a\ntype = "text"\n', 1, "it is not TOML"),
    "key twice": Malformed('[fields.a]\ntype = "text"\ntype = "int"\n', 3, "a key is written twice", "remove one"),
    "field twice": Malformed("[fields.a]\n\n[fields.b]\n\n[fields.a]\n", 5, "a table is written twice", "together"),
    "backslash": Malformed('[fields.a]\npattern = "\\d+"\n', 2, "a backslash in a text", "'…'"),
    "no such day": Malformed('[fields.a]\ntype = "date"\nminimum = 2026-02-30\n', 3, "it is not TOML"),
    "huge number": Malformed(f"[fields.a]\ntype = 'int'\nminimum = {'9' * 5000}\n", 3, "it is not TOML"),
    "deep": Malformed("context = " + "[" * 100_000, 1, "nested too deeply"),
    "huge": Malformed("# " + "x" * 1_000_000, 0, "larger than 1 MB"),
    # Keys and the types of their values.
    "unknown key": Malformed('extend = "single"\n', 1, "there is no key 'extend'", "did you mean 'extends'?"),
    "unknown key of a field": Malformed('[fields.a]\n\ntyp = "int"\n', 3, "there is no key 'typ'", "'type'?"),
    "unknown key of a step": Malformed(_TWO_STEPS + 'need = ["one"]\n', 9, "there is no key 'need'", "'needs'?"),
    "unknown key of an example": Malformed(
        '[fields.a]\n[[examples]]\ntext = "x"\nanswers = {}\n', 4, "there is no key 'answers'", "'answer'?"
    ),
    "field outside fields": Malformed('[product]\ntype = "text"\n', 1, "there is no key 'product'", "[fields.product]"),
    "field in one bracket": Malformed(
        "[fields]\nproduct = 'the product'\n", 2, "product must be a table", "[fields.product]"
    ),
    "fields as a list": Malformed('fields = ["a"]\n', 1, "fields must be a table"),
    "example in one bracket": Malformed(
        '[fields.a]\n[examples]\ntext = "x"\n', 2, "examples must be a list", "[[examples]]"
    ),
    "step in one bracket": Malformed('[fields.a]\n[steps]\nname = "x"\n', 2, "steps must be a list", "[[steps]]"),
    "unknown type": Malformed('[fields.a]\ntype = "boolean"\n', 2, "'boolean' is no type", "did you mean 'bool'?"),
    "strange type": Malformed('[fields.a]\ntype = "enum"\n', 2, "'enum' is no type", "did you mean 'category'?"),
    "type is a number": Malformed("[fields.a]\ntype = 1\n", 2, "1 is no type"),
    "unknown pipeline": Malformed('extends = "singel"\n', 1, "'singel' is no built-in pipeline", "'single'?"),
    "bool as text": Malformed('[fields.a]\nnullable = "yes"\n', 2, "nullable must be true or false", ""),
    "bool as a number": Malformed(
        "[fields.a]\none_sentence = 1\n", 2, "true or false, without quotation marks, not a number"
    ),
    "words as text": Malformed('[fields.a]\nmax_words = "5"\n', 2, "max_words must be a whole number, not text"),
    "no words": Malformed("[fields.a]\nmax_words = 0\n", 2, "max_words must be a number from 1 on"),
    "half a word": Malformed("[fields.a]\nmax_words = 1.5\n", 2, "max_words must be a whole number"),
    "context as a list": Malformed(
        'context = [\n"a"]\n[fields.a]\n', 1, "context must be text in quotation marks, not a list"
    ),
    "limit as text": Malformed('[fields.a]\ntype = "int"\nminimum = "1"\n', 3, "minimum must be a number or a date"),
    "answer is missing": Malformed('[[examples]]\ntext = "x"\n[fields.a]\n', 1, "answer is missing", "add answer"),
    "language": Malformed('language = "de, fr"\n[fields.a]\n', 1, "'de, fr' is no language"),
    # Fields.
    "nothing asked": Malformed('context = "Reviews"\n', 1, "there is no field", "[fields.product]"),
    "no choices": Malformed(
        '[fields.a]\ndescription = "x"\ntype = "category"\n', 3, "the type category needs choices", "choices ="
    ),
    "empty choices": Malformed(
        '[fields.a]\ntype = "categories"\nchoices = []\n', 2, "the type categories needs choices"
    ),
    "one choice": Malformed('[fields.a]\ntype = "category"\nchoices = ["x"]\n', 3, "one choice is no choice"),
    "choice twice": Malformed(_TEAM.replace("billing", "delivery"), 3, "choices has 'delivery' twice"),
    "choices differ by case": Malformed(
        '[fields.a]\ntype = "category"\n[fields.a.choices]\nx = ""\nX = ""\n', 5, "'x' and 'X' differ only by case"
    ),
    "choice is a number": Malformed('[fields.a]\ntype = "category"\nchoices = ["x", 1]\n', 3, "choices must be names"),
    "blank choice": Malformed('[fields.a]\ntype = "category"\nchoices = ["x", " "]\n', 3, "' ' cannot be a label"),
    "choices of text": Malformed(
        '[fields.a]\nchoices = ["x", "y"]\n', 2, "choices is for the type category or categories"
    ),
    "pattern of a number": Malformed("[fields.a]\ntype = 'int'\npattern = '1'\n", 3, "pattern is for the type text"),
    "range of a text": Malformed("[fields.a]\nminimum = 1\n", 2, "minimum is for the type int"),
    "bad pattern": Malformed("[fields.a]\n\npattern = '[a-'\n", 3, "pattern is no regular expression"),
    "endless pattern": Malformed(
        "[fields.a]\n\npattern = '(z|zz)+\\d'\n", 3, "pattern backtracks without end on texts such as 'zzzzzzzzzz…'"
    ),
    "bad range": Malformed("[fields.a]\ntype='int'\nminimum = 5\nmaximum = 1\n", 3, "minimum 5 is above maximum 1"),
    "bad dates": Malformed(
        "[fields.a]\ntype='date'\nmaximum = 2025-01-01\nminimum = 2026-01-01\n", 4, "minimum 2026-01-01 is above"
    ),
    "date of a number": Malformed("[fields.a]\ntype='number'\nmaximum = 2025-01-01\n", 3, "must be a number"),
    "number of a date": Malformed("[fields.a]\ntype='date'\nmaximum = 5\n", 3, "must be a date such as"),
    "endless": Malformed("[fields.a]\ntype='number'\nmaximum = inf\n", 3, "maximum must be a finite number"),
    "negative count": Malformed("[fields.a]\ntype='list'\nminimum = -1\n", 3, "from 0 on"),
    "more than there are": Malformed(
        _TEAM.replace('"category"', '"categories"') + "minimum = 3\n", 4, "minimum 3 is more than the 2 choices"
    ),
    "built-in column": Malformed('extends = "single"\n[fields.a]\n[fields.sentiment]\n', 3, "'sentiment' is a column"),
    "name of a variable": Malformed("[fields.text]\n", 1, "which is the row's text in a prompt"),
    "name of a column": Malformed("[fields.Error]\n", 1, "which is the column with the reason"),
    "name with a blank": Malformed('[fields."refund wanted"]\n', 1, "is no name for a field", "[fields.refund_wanted]"),
    "name with a dot": Malformed("[fields.refund.wanted]\ntype='bool'\n", 1, "there is no key 'wanted'"),
    "name of a word": Malformed("[fields.not]\n", 1, "'not' is no name for a field"),
    "names differ by case": Malformed("[fields.a]\n[fields.A]\n", 2, "'a' and 'A' differ only by case"),
    "control character": Malformed('[fields.a]\ndescription = "\\u001b[2J"\n', 2, "a control character (\\x1b)"),
    "labels without a sentiment": Malformed(
        'labels = ["good", "bad"]\n[fields.a]\n', 1, "labels are those of the built-in sentiment", "extends"
    ),
    "one label": Malformed('extends = "single"\nlabels = ["good"]\n', 2, "one label is no choice"),
    # Steps.
    "unknown field of a step": Malformed(
        '[fields.product]\n[[steps]]\nname = "x"\nfields = [\n  "product",\n  "produkt",\n]\n',
        6,
        "no field 'produkt'",
        "'product'?",
    ),
    "field in no step": Malformed('[fields.a]\n[fields.b]\n[[steps]]\nname = "x"\nfields = ["a"]\n', 2, "no step asks"),
    "field in two steps": Malformed(_TWO_STEPS.replace('["b"]', '["b", "a"]'), 8, "is in the step 'one' too"),
    "step without fields": Malformed('[fields.a]\n[[steps]]\nname = "x"\nfields = []\n', 4, "at least one entry"),
    "step without a name": Malformed('[fields.a]\n[[steps]]\nfields = ["a"]\n', 2, "name is missing", "add name"),
    "two steps of a name": Malformed(_TWO_STEPS.replace('"two"', '"one"'), 7, "two steps are named 'one'"),
    "name of a built-in step": Malformed(
        'extends = "single"\n[fields.a]\n[[steps]]\nname = "analysis"\nfields = ["a"]\n',
        4,
        "a built-in step has that name",
    ),
    "unknown step": Malformed(_TWO_STEPS + 'needs = ["on"]\n', 9, "there is no step 'on'", "did you mean 'one'?"),
    "step needs itself": Malformed(_TWO_STEPS + 'needs = ["two"]\n', 9, "the step 'two' needs itself"),
    "circle": Malformed(
        _TWO_STEPS.replace('["a"]\n', '["a"]\nneeds = ["two"]\n') + 'needs = ["one"]\n',
        6,
        "one → two → one",
        "remove one",
    ),
    "unknown field in when": Malformed(
        _TWO_STEPS + "needs = ['one']\nwhen = 'aa == 1'\n", 10, "when uses 'aa', but there is no field 'aa'", "'a'?"
    ),
    "when without needs": Malformed(
        _TWO_STEPS + "when = 'a'\n", 9, "when uses 'a', which the step 'one' asks", 'needs = ["one"]'
    ),
    "when on its own answer": Malformed(_TWO_STEPS + "when = 'b'\n", 9, "which this step itself asks"),
    "when with one =": Malformed(_TWO_STEPS + "needs = ['one']\nwhen = 'a = 1'\n", 10, "when cannot be read"),
    "when with a call": Malformed(
        _TWO_STEPS + "needs = ['one']\nwhen = 'a.upper()'\n", 10, "when cannot call anything"
    ),
    "when with arithmetic": Malformed(_TWO_STEPS + "when = '9 ** 9 ** 9'\n", 9, "when cannot calculate"),
    "prompt with code": Malformed(
        _TWO_STEPS + "prompt = '{{ text.__class__.__mro__ }}'\n", 9, "a part of something other than row", "row.channel"
    ),
    "prompt with a method": Malformed(
        _TWO_STEPS + "prompt = '{{ row.items }}'\n", 9, "prompt has row.items", 'row["items"]'
    ),
    "prompt with a call": Malformed(_TWO_STEPS + "prompt = '{{ cycler(1) }}'\n", 9, "prompt cannot call anything"),
    "prompt with a loop": Malformed(
        _TWO_STEPS + "prompt = '{% for a in text %}{% endfor %}'\n", 9, "prompt cannot have a loop"
    ),
    "prompt with an include": Malformed(
        _TWO_STEPS + "prompt = '{% include \"/etc/passwd\" %}'\n", 9, "cannot read another file"
    ),
    "prompt with an open brace": Malformed(
        _TWO_STEPS + "prompt = '''\n{{ text }}\n{{ row'''\n", 9, "prompt cannot be read in its line 2"
    ),
    "prompt with an unknown filter": Malformed(
        _TWO_STEPS + "prompt = '{{ text | fenced }}'\n", 9, "unknown filter", "'fence'?"
    ),
    "prompt with an unknown name": Malformed(
        _TWO_STEPS + "prompt = '{{ txt }}'\n", 9, "there is no field 'txt'", "'text'?"
    ),
    "blank prompt": Malformed(_TWO_STEPS + "prompt = ' '\n", 9, "prompt is blank"),
    # Examples.
    "example without a text": Malformed('[fields.a]\n[[examples]]\ntext = " "\nanswer = {a = "x"}\n', 3, "has no text"),
    "example of an unknown field": Malformed(
        '[fields.a]\n[[examples]]\ntext = "x"\nanswer = {a = "x", aa = "y"}\n', 4, "there is no field 'aa'", "'a'?"
    ),
    "example without an answer": Malformed(
        '[fields.a]\n[fields.b]\n[[examples]]\ntext = "x"\nanswer = {a = "x"}\n',
        5,
        "the example has no answer for the field b",
        "add b to each answer, write nullable = true in [fields.b], or remove these examples",
    ),
    "examples without an answer": Malformed(
        "[fields.a]\n[fields.b]\n" + 2 * '[[examples]]\ntext = "x"\nanswer = {a = "x"}\n',
        5,
        "2 examples have no answer for the field b",
    ),
    "example with an unknown choice": Malformed(
        _TEAM + '[[examples]]\ntext = "x"\n[examples.answer]\nteam = "sales"\n', 7, "team 'sales' is not one of billing"
    ),
    "second example": Malformed(
        _TEAM + '[[examples]]\ntext = "x"\nanswer.team = "Billing"\n[[examples]]\ntext = "y"\nanswer.team = 5\n',
        9,
        "team 5 is not one of",
    ),
    "example with a strange quote": Malformed(
        '[fields.a]\ntype = "quote"\n[[examples]]\ntext = "It broke."\nanswer = {a = "it broke"}\n',
        5,
        "a is not in the text",
    ),
    "example with a strange number": Malformed(
        "[fields.a]\ntype = 'int'\n[[examples]]\ntext = 'x'\nanswer = {a = 1.5}\n", 5, "a must be a whole number"
    ),
    "example above the maximum": Malformed(
        "[fields.a]\ntype='int'\nmaximum=5\n[[examples]]\ntext='x'\nanswer={a=6}\n", 6, "a must be at most 5"
    ),
    "example with a strange date": Malformed(
        "[fields.a]\ntype='date'\n[[examples]]\ntext='x'\nanswer={a='yesterday'}\n", 5, "a must be a date"
    ),
    "example with many words": Malformed(
        "[fields.a]\nmax_words=1\n[[examples]]\ntext='x'\nanswer={a='x y'}\n", 5, "a has 2 words; use at most 1"
    ),
    "example against the pattern": Malformed(
        "[fields.a]\npattern='[A-Z]+'\n[[examples]]\ntext='x'\nanswer={a='x'}\n", 5, "a 'x' does not match the pattern"
    ),
    "example with sentences": Malformed(
        "[fields.a]\none_sentence=true\n[[examples]]\ntext='x'\nanswer={a='It is. It was.'}\n", 5, "a has 2 sentences"
    ),
    "example with a text for a list": Malformed(
        "[fields.a]\ntype='list'\n[[examples]]\ntext='x'\nanswer={a='x'}\n", 5, "a must be a list of texts"
    ),
    "example with an empty list": Malformed(
        "[fields.a]\ntype='list'\nminimum=1\n[[examples]]\ntext='x'\nanswer={a=[]}\n", 6, "a must have at least 1 entry"
    ),
    "example with an unknown sentiment": Malformed(
        "extends='single'\nlabels=['good','bad']\n[[examples]]\ntext='x'\nanswer={sentiment='positive'}\n",
        5,
        "sentiment 'positive' is not one of good, bad",
    ),
    "example with a text for a bool": Malformed(
        "[fields.a]\ntype='bool'\n[[examples]]\ntext='x'\nanswer={a='yes'}\n", 5, "a must be true or false"
    ),
}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(source: str | bytes) -> Path:
        path = tmp_path / "shop.toml"
        path.write_bytes(source.encode() if isinstance(source, str) else source)
        return path

    return write


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_ends_in_one_line(name: str, written: Any) -> None:
    case = MALFORMED[name]
    path = written(case.source)
    with pytest.raises(InputError) as caught:
        load_pipeline(path)
    place = f"{path}:{case.line}: " if case.line else f"{path}: "
    assert caught.value.message.startswith(place)
    assert case.words in caught.value.message
    assert case.hint in caught.value.hint
    assert (caught.value.message + caught.value.hint).isprintable()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is a folder"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize("name", ["missing.toml", "x" * 5_000, "nul\0"])
def test_a_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no such file|it cannot be read"):
        load_pipeline(tmp_path / name)


def test_every_key_is_read(written: Any) -> None:
    spec = load_pipeline(written(EVERYTHING))
    assert list(spec.fields) == ["product", "team", "price", "bought", "größe", "evidence"]
    assert spec.fields["team"].choices == {"billing": "", "delivery": ""}
    assert spec.fields["bought"].minimum == date(2020, 1, 1)
    assert spec.labels == {"positive": "praise", "neutral": "neither", "negative": ""}
    assert spec.steps[1].row_columns == ("channel", "Sales channel")


def test_line_ends_and_a_mark_of_the_encoding_do_not_matter(written: Any) -> None:
    source = EVERYTHING.replace("\n", "\r\n").encode("utf-8-sig")
    assert load_pipeline(written(source)) == load_pipeline(written(EVERYTHING))


def test_a_built_in_pipeline_alone_is_a_pipeline(written: Any) -> None:
    assert load_pipeline(written('extends = "steps"')).built_in_fields == (
        "summary",
        "positive_aspect",
        "main_complaint",
        "urgency",
        "sentiment",
    )


def test_the_built_in_fields_are_those_of_the_pipelines() -> None:
    found = {
        name: {step.name: tuple(step.output.type_.model_fields) for step in pipeline.steps}
        for name, pipeline in PIPELINES.items()
    }
    assert found == BUILT_IN


def test_all_problems_come_in_the_order_of_their_lines(written: Any) -> None:
    spec, problems = check_pipeline(written("[fields.b]\nminimum = 1\n[fields.a]\ntype = 'category'\n"))
    assert spec is not None
    assert [(one.line, one.place) for one in problems] == [(2, "fields.b.minimum"), (4, "fields.a.type")]


def test_an_unknown_key_is_found_on_every_line_where_one_can_stand() -> None:
    lines = EVERYTHING.split("\n")
    found = 0
    for at in range(len(lines) + 1):
        _, problems = check_source("\n".join([*lines[:at], "zzz = 1", *lines[at:]]))
        if named := [problem.line for problem in problems if "'zzz'" in problem.message]:
            assert named == [at + 1]
            found += 1
    assert found > 35


@given(st.integers(0, len(EVERYTHING)), st.integers(0, 30), st.text(max_size=5))
@example(EVERYTHING.index('"facts"') + 1, 0, "\x80")
@example(EVERYTHING.index('"facts"') + 1, 5, "")
def test_a_damaged_file_is_accepted_or_named_with_a_line(at: int, cut: int, added: str) -> None:
    source = EVERYTHING[:at] + added + EVERYTHING[at + cut :]
    _, problems = check_source(source)
    assert all(1 <= problem.line <= source.count("\n") + 1 for problem in problems)
    assert all((problem.message + problem.hint).isprintable() for problem in problems)


_TEXT = FieldSpec()
_CASES: list[tuple[FieldSpec, Any, str | None]] = [
    (FieldSpec(nullable=True), None, None),
    (_TEXT, None, "is missing"),
    (_TEXT, "  ", "must be text"),
    (FieldSpec(type="quote"), "broke on  arrival", None),
    (FieldSpec(type="quote"), "broke at arrival", "is not in the text, letter by letter"),
    (FieldSpec(type="category", choices={"a": "", "b": ""}), " A ", None),
    (FieldSpec(type="categories", choices={"a": "", "b": ""}), ["b", "a"], None),
    (FieldSpec(type="categories", choices={"a": "", "b": ""}), ["a", "A"], "has a choice twice"),
    (FieldSpec(type="categories", choices={"a": "", "b": ""}), "a", "must be a list of choices"),
    (FieldSpec(type="int"), 3.0, None),
    (FieldSpec(type="int"), True, "must be a whole number"),
    (FieldSpec(type="int"), float("inf"), "must be a whole number"),
    (FieldSpec(type="number"), float("nan"), "must be a number"),
    (FieldSpec(type="date", minimum=date(2026, 1, 1)), "2026-01-01", None),
    (FieldSpec(type="date", minimum=date(2026, 1, 1)), "2025-12-31", "must be at least 2026-01-01"),
    (FieldSpec(type="date"), "2026-02-30", "must be a date such as 2026-01-31"),
    (FieldSpec(type="date"), "20260101", "must be a date such as 2026-01-31"),
    (FieldSpec(type="list", maximum=2, max_words=1), ["a", "b"], None),
    (FieldSpec(type="list", maximum=2), ["a", "b", "c"], "must have at most 2 entries"),
    (FieldSpec(type="list", max_words=1), ["a", "b c"], "has 2 words; use at most 1"),
    (FieldSpec(pattern="[A-Z]{2}-\\d+"), "AB-12", None),
    (FieldSpec(pattern="[A-Z]{2}-\\d+"), "AB-12.", "'AB-12.' does not match the pattern [A-Z]{2}-\\d+"),
]


@pytest.mark.parametrize(("field", "answer", "problem"), _CASES)
def test_an_answer_is_checked(field: FieldSpec, answer: Any, problem: str | None) -> None:
    assert field.problem(answer, "It broke on\narrival.") == problem


def test_a_pattern_gives_up_on_an_answer() -> None:
    """One whose trouble is not seen before costs a moment, and the answer is refused."""
    field = FieldSpec(pattern=r"(?:[^,;]|[^,;]{2})+[,;]")
    text = "-" * 200
    assert (
        field.problem(text, "")
        == f"{text!r} cannot be compared with the pattern {field.pattern} in time: it backtracks too much"
    )


@pytest.mark.parametrize(
    ("pattern", "text"), [(r"\w+", "Größe"), (r"(?i)(?!no)\w+ \d{1,3}", "Pump 12"), (r"(.)\1", "aa")]
)
def test_patterns_are_those_of_python(pattern: str, text: str) -> None:
    """Letters of all languages, look-ahead and back-references."""
    assert not list(PipelineSpec(fields={"a": FieldSpec(pattern=pattern)}).problems())
    assert FieldSpec(pattern=pattern).problem(text, "") is None


def test_a_pipeline_from_python_is_checked_too() -> None:
    spec = PipelineSpec(fields={"a": FieldSpec(type="category")}, steps=[StepSpec(name="one", fields=["b"])])
    assert [one.place for one in spec.problems()] == ["fields.a.type", "steps[1].fields[1]", "fields.a"]
