"""Row model: a linear model that learns from the first answers of a run, and answers the rows that it is sure of.

An audit tells how often it agrees with the full reading, and which rows it may therefore answer. The model gives each
row a score, higher where it is surer, and answers the rows from a threshold on. A random part of all rows is answered
by the full reading in any case, and tells how often both agree. The threshold is the lowest that these rows let pass:

- A threshold passes if the agreement of the rows above it would be as good by chance in at most a small share of all
  cases, were the true agreement below the target. The model may change ten times; together they have `RISK`. This is
  the binomial tail test of "Learn then Test" (A. Angelopoulos, S. Bates, E. Candès, M. Jordan, L. Lei, Annals of
  Applied Statistics 19, 2025), with its fixed sequence of tests: from the surest rows down to the first threshold that
  fails.
- The agreement that was measured has the interval of C. Clopper and E. Pearson (Biometrika 26, 1934), which is exact.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from mellea_cli.errors import UsageError, name_some
from mellea_cli.io.journal import Answers
from mellea_cli.items import Item, Outcome, Row, Success
from mellea_cli.pipelines.default_prompts import shortened
from mellea_cli.pipelines.pipeline import Pipeline
from mellea_cli.requirements.requirement import sentences
from mellea_cli.run.answer_cache import with_answered_by
from mellea_cli.run.batch import Answer, RunIO
from mellea_cli.run.plan import KEY_BYTES, RunPlan

LEARNED = "learned"  # What a row of the row model says in the column `answered_by`
_AUDITED = "audited"

SMALLEST_INPUT = 500  # With no more rows than this, a row model would save less than it costs
_FIRST_FIT = 300
# The next fit is at so many times the answers: nine fits up to the most examples, as the audit divides its risk.
_GROWTH = 1.5
# A change in the rows: so many more are asked before the model takes rows again.
_RELEARN = 100
_MOST_EXAMPLES = 10_000
_MOST_CHARACTERS = 2_000
_FOLDS = 5

# So many rows are drawn for the audit, within these shares; the last one is that of a stream.
_AUDIT_ROWS, _LEAST_SHARE, _MOST_SHARE, _STREAM_SHARE = 300, 0.02, 0.15, 0.05

_BUILT_IN = frozenset({"summary", "sentiment", "issues"})
_SENTIMENT, _URGENCY = "sentiment", "urgency"
_CLAUSE = re.compile(r"[,;]?\s+(?=(?:but|however|although|though|yet|except)\b)", re.IGNORECASE)


# The audit.

RISK = 0.05  # Share of the runs in which a threshold may pass although the agreement is below the target
CONFIDENCE = 0.95  # Of the interval of the agreement that was measured

# The sequence of tests starts at this share of the rows and goes down in such steps.
_START, _STEP = 0.3, 0.05
# The risk is divided among so many readings: each is a chance for a bad threshold to pass.
_READINGS = 10
# A change in the rows is recognised when so bad an agreement would be rarer than this at the target.
_ALARM = 0.01
_DIGEST_BYTES = 8


def exact_interval(hits: int, tries: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The two-sided interval of Clopper and Pearson for a share of which `hits` of `tries` were seen."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, tries - hits + 1, tail)) if hits else 0.0
    return low, float(betaincinv(hits + 1, tries - hits, 1 - tail)) if hits < tries else 1.0


@dataclass(frozen=True, slots=True)
class Compared:
    """A row that both readings have answered.

    Args:
        score: how sure the cheap one is.
        agreed: whether both agree, for each field.
    """

    score: float
    agreed: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class FieldAgreement:
    """What the audit has measured for one field."""

    field: str
    agreement: float  # Share of the audited rows in which both readings agree
    low: float  # Ends of the interval
    high: float


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """What was promised and what was measured."""

    promised: float  # The agreement that every field is to have in the rows without the full reading
    rows: int  # Rows of the output without the full reading
    audited: int  # Rows that would have been without it, and were drawn
    confidence: float = CONFIDENCE
    fields: Sequence[FieldAgreement] = ()

    @property
    def kept(self) -> bool | None:
        """Whether every field was measured at the target or above; `None` without an audited row."""
        return all(one.agreement >= self.promised for one in self.fields) if self.audited else None


def passing_threshold(rows: Sequence[Compared], target: float, risk: float = RISK) -> float:
    """The lowest score from which on the agreement of every field is at least `target`; infinity if there is none.

    Args:
        rows: a random sample of the rows.
        target: the agreement, from 0 to 1.
        risk: the share of the cases in which the result may be wrong.
    """
    from scipy.special import bdtr

    ranked = sorted(rows, key=lambda row: -row.score)
    if not ranked:
        return math.inf
    misses = [0] * len(ranked[0].agreed)
    steps: list[tuple[int, int]] = []  # the number of rows down to each step, and the misses of the worst field
    places = {math.ceil(len(ranked) * _STEP * step) for step in range(1, round(1 / _STEP) + 1)}
    for place, row in enumerate(ranked, 1):
        misses = [number + (not agreed) for number, agreed in zip(misses, row.agreed, strict=True)]
        if place in places:
            steps.append((place, max(misses)))
    best = 0
    for place, most in steps:
        if place < _START * len(ranked):
            continue
        # All fields must hold, so the largest of their p-values counts, without a part of the risk for each.
        if bdtr(most, place, 1 - target) > risk:
            break
        best = place
    return ranked[best - 1].score if best else math.inf


class Audit:
    """Holds a target: draws the rows of the sample, and moves the threshold of the cheap reading.

    Args:
        target: the agreement that is promised.
        fields: the names of the fields that are compared.
        share: the share of the rows that is drawn.
    """

    def __init__(self, target: float, fields: Sequence[str], share: float) -> None:
        self.target = target
        self.threshold = math.inf  # The score from which on a row keeps the cheap answer
        self.changed = False  # Whether the rows have changed so that the sample before says nothing about those to come
        self._fields = tuple(fields)
        self._share = share
        self._sample: list[Compared] = []
        # Audited rows of the present threshold, and for each field those that disagree.
        self._recent = 0
        self._misses = [0] * len(self._fields)
        self._audited = [0] * len(self._fields)
        self._tries = 0

    def draws(self, key: bytes) -> bool:
        """Whether the row with this key is in the sample: at random, and the same in each run."""
        digest = hashlib.blake2b(key, digest_size=_DIGEST_BYTES, person=b"mellea-audit").digest()
        return int.from_bytes(digest) < int(self._share * 256**_DIGEST_BYTES)

    def calibrate(self, sample: Sequence[Compared]) -> None:
        """Set the threshold by a random sample of the rows, where the cheap reading is a new one."""
        self._sample, self.changed = list(sample), False
        self._recent, self._misses = 0, [0] * len(self._fields)
        self.threshold = passing_threshold(self._sample, self.target, RISK / _READINGS)

    def compare(self, row: Compared, *, audited: bool) -> None:
        """Take a drawn row; one that would have kept the cheap answer is audited, and can end the present threshold."""
        from scipy.special import bdtrc

        self._sample.append(row)
        if not audited:
            return
        self.count(row.agreed)
        self._recent += 1
        self._misses = [number + (not agreed) for number, agreed in zip(self._misses, row.agreed, strict=True)]
        worst = max(self._misses, default=0)
        if worst and bdtrc(worst - 1, self._recent, 1 - self.target) < _ALARM:
            self.changed, self.threshold = True, math.inf
            return
        if not all(row.agreed):
            self.threshold = max(self.threshold, passing_threshold(self._sample, self.target, RISK / _READINGS))

    def count(self, agreed: Sequence[bool]) -> None:
        """Count an audited row, also one of an earlier run."""
        self._tries += 1
        self._audited = [number + good for number, good in zip(self._audited, agreed, strict=True)]

    def figures(self, rows: int) -> AuditFigures:
        """What was promised and measured, where so many rows have no full reading."""
        tries = self._tries
        measured = [
            FieldAgreement(name, hits / tries, *exact_interval(hits, tries))
            for name, hits in zip(self._fields, self._audited, strict=True)
            if tries
        ]
        return AuditFigures(self.target, rows, tries, fields=tuple(measured))


# The model.


def require_scikit_learn() -> None:
    """Raise `UsageError` where the library of the row model is not installed; it is not imported."""
    if find_spec("sklearn") is None:
        raise UsageError("--learn needs scikit-learn", hint="pip install 'mellea-cli[learn]'")


def audit_share(rows: int | None) -> float:
    """The share of a run's rows that is drawn for the audit."""
    return _STREAM_SHARE if not rows else min(_MOST_SHARE, max(_LEAST_SHARE, _AUDIT_ROWS / rows))


@dataclass(frozen=True)
class LearnedFields:
    """What a learned row has of a pipeline's columns.

    Args:
        names: the fields that the model answers.
        columns: all columns of the pipeline.
        has_built_in: whether the built-in fields are among them.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    has_built_in: bool

    @classmethod
    def of(cls, pipeline: Pipeline, wanted: Sequence[str] = ()) -> LearnedFields:
        """The fields of a pipeline; `wanted` are those that the user names, the others are null in learned rows.

        Raises:
            UsageError: a field has no fixed values to learn, or there is none that has.
        """
        from mellea_cli.pipelines.default_prompts import PIPELINES

        built_in = pipeline.name in PIPELINES or any(unit.is_builtin for unit in pipeline.units)
        columns = tuple(column.name for column in pipeline.columns)
        possible = [column.name for column in pipeline.columns if column.is_categorical]
        if built_in:
            possible = [_SENTIMENT, _URGENCY, *possible]
        others = [name for name in columns if name not in possible and not (built_in and name in _BUILT_IN)]
        if unknown := [name for name in wanted if name not in possible]:
            has = f"{name_some(possible)} can be learned" if possible else "no field of this pipeline can be learned"
            raise UsageError(f"--learn-fields: {unknown[0]!r} has no fixed values to learn", hint=has)
        if others and not wanted:
            hint = f"--learn-fields {','.join(possible)} leaves the others empty in learned rows" if possible else ""
            raise UsageError(
                f"--learn: {name_some(others)} cannot be learned: only fields with fixed values can",
                hint=hint or "omit --learn",
            )
        return cls(tuple(wanted or possible), columns, built_in)

    def labels(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The answers of a row as texts, one for each name."""
        issues = values.get("issues")
        found = {_URGENCY: issues.get(_URGENCY) if isinstance(issues, Mapping) else None, **values}
        return tuple(json.dumps(found.get(name), ensure_ascii=False) for name in self.names)

    def values(self, text: str, labels: Sequence[str], tone: Callable[[str], float]) -> dict[str, Any]:
        """The columns of a learned row.

        Args:
            text: the row's text.
            labels: the model's answers, in the order of the names.
            tone: how much more positive than negative a piece of text is.
        """
        found = {name: json.loads(label) for name, label in zip(self.names, labels, strict=True)}
        values: dict[str, Any] = {name: found.get(name) for name in self.columns}
        if self.has_built_in:
            sentiment = found.get(_SENTIMENT)
            praise, complaint = _facts(text, sentiment, tone)
            urgency = "low" if sentiment == "positive" else found.get(_URGENCY)
            whole = " ".join(text.split())
            values["summary"] = shortened({"summary": whole}).get("summary", whole)
            values["sentiment"] = sentiment
            values["issues"] = {"main_complaint": complaint, "positive_aspect": praise, _URGENCY: urgency}
        return values


def _facts(text: str, sentiment: Any, tone: Callable[[str], float]) -> tuple[str | None, str | None]:
    """Praise and complaint of a learned row: its most positive and its most negative sentence."""
    if sentiment not in ("positive", "negative", "mixed"):
        return None, None
    pieces = sentences(" ".join(text.split()))
    if len(pieces) == 1:
        pieces = _CLAUSE.split(pieces[0])
    if sentiment == "mixed" and len(pieces) < 2:
        return None, None  # one clause cannot be divided into praise and complaint
    ranked = sorted(pieces, key=tone) if len(pieces) > 1 else pieces
    facts = {"main_complaint": ranked[0], "positive_aspect": ranked[-1]}
    facts |= shortened(facts)
    praise, complaint = facts["positive_aspect"], facts["main_complaint"]
    return None if sentiment == "negative" else praise, None if sentiment == "positive" else complaint


@dataclass(frozen=True, slots=True)
class Guess:
    """What the model says about a text: an answer for each field, and how sure it is of the least sure one."""

    labels: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class _Classifier:
    """A linear classifier: one binary model for each class, their chances together 1."""

    classes: Sequence[str]
    weights: Any = None  # Features by classes; `None` where there is only one class
    bias: Any = 0.0

    @classmethod
    def fit(cls, matrix: Any, labels: Any) -> _Classifier:
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        classes = sorted(set(labels))
        if len(classes) == 1:
            return cls(classes)
        weights, bias = [], []
        for name in classes if len(classes) > 2 else classes[1:]:
            # On sparse rows this solver takes a tenth of the time of a joint model of all classes.
            model = LogisticRegression(C=10.0, solver="liblinear", dual=True, max_iter=100, random_state=0)
            model.fit(matrix, labels == name)
            weights.append(model.coef_[0])
            bias.append(model.intercept_[0])
        return cls(classes, np.array(weights).T, np.array(bias))

    def chances(self, matrix: Any) -> Any:
        """The chance of each class, by row."""
        import numpy as np

        if self.weights is None:
            return np.ones((matrix.shape[0], 1))
        chances = 1.0 / (1.0 + np.exp(-(matrix @ self.weights + self.bias)))
        if len(self.classes) == 2:
            return np.hstack([1.0 - chances, chances])
        return chances / chances.sum(axis=1, keepdims=True)


class RowModel:
    """TF-IDF of words and of pieces of words, and a logistic regression for each field. Make it with `RowModel.fit`."""

    def __init__(self, vectorizers: Sequence[Any], fields: Sequence[_Classifier]) -> None:
        self._vectorizers = vectorizers
        self._fields = fields

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[Sequence[str]]) -> tuple[RowModel, list[Guess]]:
        """Fit a model to texts and their labels.

        Returns:
            The model, and for each text what a model says about it that has not seen it.
        """
        import numpy as np
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.model_selection import KFold

        start = [text[:_MOST_CHARACTERS] for text in texts]
        vectorizers = [
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\b\w+\b|[!?]").fit(start),  # noqa: S106 - no secret
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=30_000).fit(start),
        ]
        matrix = _matrix(vectorizers, start)
        columns = [np.array(column, dtype=object) for column in zip(*labels, strict=True)]
        unseen: dict[int, Guess] = {}
        for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(matrix):
            part = [_Classifier.fit(matrix[train], column[train]) for column in columns]
            unseen.update(zip(test, _guesses(part, matrix[test]), strict=True))
        model = cls(vectorizers, [_Classifier.fit(matrix, column) for column in columns])
        return model, [unseen[place] for place in range(len(texts))]

    def guess(self, text: str) -> Guess:
        """What the model says about a text."""
        return self.guesses([text])[0]

    def guesses(self, texts: Sequence[str]) -> list[Guess]:
        """What the model says about each of some texts."""
        return _guesses(self._fields, _matrix(self._vectorizers, texts))

    def tone(self, field: int, piece: str) -> float:
        """How much more positive than negative a piece of a text is, by the classifier of the sentiment."""
        classifier = self._fields[field]
        chances = dict(zip(classifier.classes, classifier.chances(_matrix(self._vectorizers, [piece]))[0], strict=True))
        return float(chances.get(json.dumps("positive"), 0.0) - chances.get(json.dumps("negative"), 0.0))


def _matrix(vectorizers: Sequence[Any], texts: Sequence[str]) -> Any:
    from scipy.sparse import hstack

    start = [text[:_MOST_CHARACTERS] for text in texts]
    return hstack([vectorizer.transform(start) for vectorizer in vectorizers], format="csr")


def _guesses(fields: Sequence[_Classifier], matrix: Any) -> list[Guess]:
    labels: list[list[str]] = [[] for _ in range(matrix.shape[0])]
    scores = [1.0] * len(labels)
    for classifier in fields:
        for row, chances in enumerate(classifier.chances(matrix)):
            best = int(chances.argmax())
            labels[row].append(classifier.classes[best])
            scores[row] = min(scores[row], float(chances[best]))
    return [Guess(tuple(said), score) for said, score in zip(labels, scores, strict=True)]


@dataclass(slots=True)
class _Example:
    text: str
    labels: tuple[str, ...]
    is_random: bool  # Whether it was asked for a reason that says nothing about the row


@dataclass
class RowLearner:
    """Answers the rows of a run that a row model is sure of, and lets the full reading answer the others."""

    plan: RunPlan
    fields: LearnedFields
    audit: Audit
    rows: int = 0  # Rows of the output that the model has answered
    audited: dict[bytes, list[bool]] = field(default_factory=dict)
    """Audited rows that are not in the journal yet: for each key whether the fields agree."""
    _examples: list[_Example] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)
    _next_fit: float = _FIRST_FIT
    _model: RowModel | None = None
    _taking: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def run_io(self, run_io: RunIO) -> RunIO:
        """The ends of the run with learned answers: read by this model, kept in the journal under keys of their own."""
        if run_io.total is not None and run_io.total <= SMALLEST_INPUT:
            self._next_fit = math.inf

        def to_row(item: Item, outcome: Outcome) -> Row:
            return run_io.to_row(item, self._observed(item, outcome))

        return replace(run_io, reading=self.read, to_row=to_row, answers=_LearnedAnswers(run_io.answers, self))

    def figures(self) -> AuditFigures:
        """What was promised and measured."""
        return self.audit.figures(self.rows)

    async def read(self, ask: Answer, item: Item) -> Outcome | None:
        """Answer an item by the model if it is sure, else by `ask`."""
        if item.known or not item.text.strip():
            return await ask(item)
        if self._is_due():
            await self._fit()
        if self._model is None:
            return await ask(item)
        key = self.plan.key(item.text, item.id, item.fields)
        guess = self._model.guess(item.text)
        sure, drawn = guess.score >= self.audit.threshold, self.audit.draws(key)
        if sure and not drawn:
            return self._answer(item.text, self._model, guess)
        outcome = await ask(item)
        if drawn and isinstance(outcome, Success):
            labels = self.fields.labels(outcome.values)
            agreed = tuple(said == right for said, right in zip(guess.labels, labels, strict=True))
            self.audit.compare(Compared(guess.score, agreed), audited=sure)
            if sure:
                self.audited[key[:KEY_BYTES]] = list(agreed)
            if self.audit.changed:
                self._learn_again()
        return outcome

    def _answer(self, text: str, model: RowModel, guess: Guess) -> Success:
        names = self.fields.names
        tone = partial(model.tone, names.index(_SENTIMENT)) if _SENTIMENT in names else lambda _: 0.0
        return Success(self.fields.values(text, guess.labels, tone), attempts=0, answered_by=LEARNED)

    def _observed(self, item: Item, outcome: Outcome) -> Outcome:
        """Learn from an answer of the full reading; the outcome with the column that says what has answered."""
        if not isinstance(outcome, Success):
            return outcome
        if outcome.answered_by == LEARNED:
            self.rows += 1
            self._taking = True  # also in a run that continues one
        elif outcome.attempts and len(self._examples) < _MOST_EXAMPLES:
            key = self.plan.key(item.text, item.id, item.fields)
            if key not in self._seen:
                self._seen.add(key)
                is_random = not self._taking or self.audit.draws(key)
                self._examples.append(_Example(item.text, self.fields.labels(outcome.values), is_random))
        return with_answered_by(outcome)

    def _is_due(self) -> bool:
        return len(self._examples) >= self._next_fit

    async def _fit(self) -> None:
        """Fit a model to the answers so far; the rows wait for it, as that takes less time than asking them."""
        async with self._lock:
            if not self._is_due():
                return
            examples = list(self._examples)
            texts, labels = [one.text for one in examples], [one.labels for one in examples]
            model, guesses = await asyncio.to_thread(RowModel.fit, texts, labels)
            sample = [
                Compared(
                    guess.score, tuple(said == right for said, right in zip(guess.labels, one.labels, strict=True))
                )
                for one, guess in zip(examples, guesses, strict=True)
                if one.is_random
            ]
            self._model = model
            self.audit.calibrate(sample)
            self._taking = self._taking or self.audit.threshold <= 1.0
            self._next_fit = int(len(examples) * _GROWTH)

    def _learn_again(self) -> None:
        """Ask rows again after a change in them: what was random before says nothing about those to come."""
        self.audit.changed = self._taking = False
        del self._examples[: len(self._examples) - _MOST_EXAMPLES // 2]  # room for the rows to come
        for one in self._examples:
            one.is_random = False
        self._next_fit = len(self._examples) + _RELEARN


class _LearnedAnswers:
    """Answers of which the learned ones have keys of their own, so that a run without the row model asks these rows.

    Under the same key stands for an audited row whether both readings agree.
    """

    def __init__(self, answers: Answers, learner: RowLearner) -> None:
        self._answers = answers
        self._learner = learner
        # Answers that were learned for another promise are not used.
        facts = json.dumps([learner.audit.target, *learner.fields.names]).encode()
        self._mark = hashlib.blake2b(facts, digest_size=KEY_BYTES, person=b"mellea-learned").digest()
        self._counted: set[bytes] = set()
        self.mark = answers.mark
        self.facts = answers.facts
        self.note_facts = answers.note_facts
        self.close = answers.close

    def _own(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, digest_size=KEY_BYTES, key=self._mark).digest()

    def lookup(self, key: bytes) -> Outcome | None:
        found, own = self._answers.lookup(key), self._answers.lookup(self._own(key))
        if not isinstance(own, Success):
            return found
        if isinstance(found, Success):
            if own.answered_by == _AUDITED and key not in self._counted:
                self._counted.add(key)
                self._learner.audit.count(own.values["agreed"])
            return found
        return own if own.answered_by == LEARNED else found

    def stored_after(self, mark: int, key: bytes) -> bool:
        return self._answers.stored_after(mark, key) or self._answers.stored_after(mark, self._own(key))

    def commit(self, records: Sequence[tuple[bytes, Outcome]]) -> None:
        stored: list[tuple[bytes, Outcome]] = []
        for key, outcome in records:
            if isinstance(outcome, Success) and outcome.answered_by == LEARNED:
                stored.append((self._own(key), outcome))
                continue
            stored.append((key, outcome))
            if (agreed := self._learner.audited.pop(key, None)) is not None:
                self._counted.add(key)
                stored.append((self._own(key), Success({"agreed": agreed}, attempts=0, answered_by=_AUDITED)))
        self._answers.commit(stored)
