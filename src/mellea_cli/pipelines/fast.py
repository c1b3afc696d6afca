"""The pipeline `fast`: a text's clauses, one word for each, read off the log-probabilities of a small model.

The small model reads each clause of a text, and writes one token. Its log-probabilities of the labels go into a softmax
regression, whose probability of the chosen label is the confidence; `benchmarks/fit.py` fits its coefficients. The
default model reads the least sure texts once more. Complaint and praise are the strongest clauses as they stand;
summary and urgency follow from rules.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mellea_cli.pipelines.default_prompts import ISSUE_LENGTH, SUMMARY_LENGTH, SUMMARY_WORDS, cut, lone_sentence
from mellea_cli.pipelines.pipeline import Column, Example, LabelReading, OutputType, Pipeline, Prompt, Step
from mellea_cli.requirements.requirement import sentences

_SYSTEM = "You label customer feedback in one word: positive, negative, mixed or neutral."
_EXAMPLES = (
    ("We love the new editor.", "positive"),
    ("Billed twice, and nobody answers.", "negative"),
    ("Great food, but a long wait.", "mixed"),
    ("I bought it in May for my sister.", "neutral"),
    ("The technician came on a Sunday and stayed until it worked.", "positive"),
    ("It stopped working after a week.", "negative"),
    ("Kind staff, dirty room.", "mixed"),
    ("Promised a call back, still waiting.", "negative"),
    ("Does what it says.", "positive"),
    ("Could be faster.", "negative"),
    ("Then I compared it with the other models:", "neutral"),
    ("No complaints at all.", "positive"),
    ("I wish it had a timer.", "negative"),
    ("Nice idea, poorly made.", "mixed"),
)
# No mark around the text: of the answer only the probabilities of four words are read, so a text cannot instruct.
_PROMPT = Prompt(_SYSTEM, "{{ text }}", tuple(Example((("text", text),), label) for text, label in _EXAMPLES))

_CUT = re.compile(
    r"""
    (?<=[.!?\u2026])["'\u201d\u2019)\]]*\s+                     # the end of a sentence
    | (?<=[\u3002\uff01\uff1f])
    | \s*[\r\n]+\s*
    | ;\s+ | \s+[-\u2013\u2014]+\s+
    | \s*,?\s+(?=(?:but|however|although|though|except|whereas|despite|unfortunately|sadly|pity|shame
        |aber|jedoch|obwohl|leider|doch|mais|cependant|malheureusement|pourtant|pero|aunque|lamentablemente
        |ma|per\u00f2|maar|helaas)\b)
    | ,\s+(?=(?:only|yet|while|just|otherwise|shame|nur|seulement|solo)\b)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CONTRAST = re.compile(
    r"\W*(?:while|although|though|even though|despite|obwohl|bien que|aunque|hoewel)\b", re.IGNORECASE
)
_COMMA_WORDS = 20  # Words of a text of one clause that is cut at its commas
_MOST_CLAUSES = 12
_SHORT_CLAUSE = 8  # Characters of a single word that is no clause of its own


def clauses(text: str) -> list[str]:
    """Cut a text at ends of sentences and at words such as but, however and although; at most 12 parts.

    A text of one short clause is cut at its commas.
    """
    found: list[str] = []
    for part in _CUT.split(text.strip()):
        clause = (part or "").strip(" ,")
        if not re.search(r"\w", clause):
            continue
        if found and (_is_fragment(clause) or _is_fragment(found[-1])):
            found[-1] += f" {clause}"
        else:
            found.append(clause)
    found = [half for clause in found for half in _halves(clause)]
    if len(found) == 1 and len(found[0].split()) <= _COMMA_WORDS:
        listed = re.split(r",\s+", found[0])
        found = listed if all(len(one.split()) > 1 for one in listed) else found
    while len(found) > _MOST_CLAUSES:
        place = min(range(len(found) - 1), key=lambda place: len(found[place]) + len(found[place + 1]))
        found[place : place + 2] = [f"{found[place]} {found[place + 1]}"]
    return found or [text.strip()]


def _halves(clause: str) -> list[str]:
    """The clause, cut at the comma that ends a contrast at its beginning, as in "While the food was good, …"."""
    cut_at = clause.find(", ") if _CONTRAST.match(clause) else -1
    return [clause] if cut_at < 0 else [clause[:cut_at], clause[cut_at + 2 :]]


def _is_fragment(clause: str) -> bool:
    return len(clause) < _SHORT_CLAUSE and len(clause.split()) < 2


LABELS = ("positive", "negative", "mixed", "neutral")
"""The words that the model writes. A text's sentiment is one of the first three."""
SENTIMENTS = LABELS[:3]

Logprobs = Sequence[float]  # Log-probabilities of the labels, in their order


@dataclass(frozen=True, slots=True)
class Reading:
    """A sentiment and its probability."""

    label: str
    confidence: float


def polarity(logprobs: Logprobs) -> float:
    """Log-odds of positive against negative."""
    return logprobs[0] - logprobs[1]


def _against(logprobs: Logprobs, label: int) -> float:
    """Log-odds of another label against positive and negative together."""
    high, low = max(logprobs[:2]), min(logprobs[:2])
    return logprobs[label] - high - math.log1p(math.exp(low - high))


def _squash(value: float) -> float:
    """Extreme log-odds say no more than large ones."""
    return 6 * math.tanh(value / 6)


def features(clauses: Sequence[Logprobs]) -> list[float]:
    """The features of a text from the readings of its clauses."""
    polarities = [_squash(polarity(one)) for one in clauses]
    best, worst = max(polarities), min(polarities)
    return [
        best,
        worst,
        max(0.0, min(best, -worst)),  # both signs
        sum(polarities) / len(polarities),
        max(_squash(_against(one, 2)) for one in clauses),
        min(_squash(_against(one, 3)) for one in clauses),
        float(len(clauses) > 1),
    ]


def features_of_second_look(first: Sequence[float], whole: Logprobs) -> list[float]:
    """The features of a text that both models have read; `first` has the first classifier's log-probabilities."""
    return [*first, _squash(polarity(whole)), _squash(_against(whole, 2)), _squash(_against(whole, 3))]


def log_softmax(weights: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Log-probabilities of the sentiments. Each row of `weights` has a label's coefficients, and its intercept last."""
    scores = [row[-1] + sum(weight * value for weight, value in zip(row, values, strict=False)) for row in weights]
    most = max(scores)
    total = most + math.log(sum(math.exp(score - most) for score in scores))
    return [score - total for score in scores]


def read(clauses: Sequence[Logprobs], whole: Logprobs | None = None) -> Reading:
    """The sentiment of a text.

    Args:
        clauses: what the small model says of each clause.
        whole: what the default model says of the whole text; `None` where it was not asked.
    """
    fitted = coefficients()
    found = log_softmax(fitted["first"], features(clauses))
    if whole is not None:
        found = log_softmax(fitted["second"], features_of_second_look(found, whole))
    best = max(range(len(SENTIMENTS)), key=lambda place: found[place])
    return Reading(SENTIMENTS[best], math.exp(found[best]))


@cache
def coefficients() -> dict[str, Any]:
    """The coefficients that `benchmarks/fit.py` has written."""
    fitted: dict[str, Any] = json.loads(Path(__file__).with_name("fast.json").read_text(encoding="utf-8"))
    return fitted


def _reading(answers: Mapping[str, Any]) -> Reading:
    looked = answers.get("second_look")
    return read([one.logprobs for one in answers["clauses"]], looked[0].logprobs if looked else None)


def _is_unsure(variables: Mapping[str, Any]) -> bool:
    below: float = coefficients()["second_look_below"]
    return _reading({"clauses": variables["clauses"]}).confidence < below


_LEADING = re.compile(
    r"(?:but|however|although|though|and|yet|only|while|aber|jedoch|mais|pero)\b[\s,]*(?=\w)", re.IGNORECASE
)


def _phrase(clause: str) -> str:
    """A clause as it stands, without the word that joins it to the one before."""
    bare = _LEADING.sub("", clause, count=1) if _LEADING.match(clause) else clause
    return cut(bare.strip().rstrip(".;,"), ISSUE_LENGTH)


# What makes a complaint urgent: safety, money, lost data or access, and a customer who leaves.
_URGENT = re.compile(
    r"""\b(?:
    injur\w+ | hurt(?:s|ing)?\s+(?:my|him|her|us)\w* | burn(?:ed|t|s)?\s+(?:my|me|him|her|us|a\s+mark|through|down)
    | caught\s+fire | fire\s+hazard
    | electric\s+shock | poison\w* | allerg\w+ | ambulance | unsafe | dangerous | hazard\w*
    | bed\s?bugs | rats | hospitali[sz]ed | bullied | overdose | wrong\s+(?:dose|medicine|tablets)
    | (?:charged|billed|debited|paid)\s+(?:me\s+|us\s+)?(?:twice|double|two\s+times|again) | twice\s+(?:billed|charged)
    | double[\s-](?:charged|billed) | money\s+back | refund(?!\s+was|\s+came|\s+in) | fraud\w* | scam\w* | stole[n]?
    | took\s+(?:the\s+)?\S*\s*(?:euros?|dollars?|pounds?|money|fee) | still\s+(?:billing|charging)
    | (?:lost|deleted|erased|wiped|vanished|disappeared)\s+(?:all|my|our|the|every)\w*
    | (?:notes|data|photos|files|playlists|drafts|presets|documents?|account|invoices|orders|messages|mails|records)
      \s+(?:\w+\s+){0,3}?(?:are|is|were|was)?\s*(?:all\s+)?(?:gone|lost|vanished|deleted|hacked)
    | hacked | data\s+breach | locked\s+out | read\s+my\s+private
    | (?:cannot|can't|can\s+not|could\s+not|couldn't|unable\s+to|error\s.{0,60}\stry\s+to)\s+(?:log|sign)\s*in
    | passwords?\s+(?:is|are)\s+(?:written|visible|stored|shown)
    | api\s+key | of\s+other\s+customers | another\s+(?:customer|user|patient)'s
    | mov(?:e|ing)\s+to\s+(?:your|a|another)\s+(?:competitor|bank|provider|company) | (?:not|n't)\s+lock | spark(?:s|ed)
    | in\s+pain
    | login\s+from | (?:can|could)\s+still\s+(?:log|sign)\s+in | euros?\s+back | (?:all|every)\s+\w+\s+(?:are|is)\s+down
    | (?:i\s+am|i'm|we\s+are|we're|are|am)\s+(?:leaving|cancel\w+|switching|moving\s+(?:to\s+another|away)|done\s+with)
    | will\s+(?:cancel|leave|switch|sue) | never\s+(?:again|buy|come\s+back|return)
    | (?:my|our|a)\s+(?:lawyer|solicitor) | legal\s+action | last\s+time\s+(?:i|we) | i\s+(?:have\s+)?(?:quit|cancelled)
    | or\s+(?:we|i)(?:\s+will|'ll|\s+have\s+to)?\s+(?:cancel|leave|switch|quit) | uninstalled | (?:not|n't)\s+be\s+back

    | verletzt\w* | gefährlich\w* | rauch\w*\s+auf | vergift\w+ | krankenhaus
    | (?:doppelt|zweimal)\s+(?:abgebucht|berechnet|bezahlt) | geld\s+zurück | (?:rück)?erstattung
    | betrug | betrogen
    | (?:daten|fotos|rechnungen|dateien)\s+(?:sind\s+|waren\s+)?(?:alle\s+)?(?:weg|verloren|gelöscht)
    | nicht\s+(?:mehr\s+)?(?:anmelden|einloggen) | (?:ge)?kündig\w* | nie\s+wieder | anwalt
    | wechs(?:le|eln)\s+(?:zu|den\s+anbieter)

    | bless[ée]\w* | dangereu\w+ | brûl[ée]\w* | intoxi\w+
    | (?:débité|facturé|prélevé)\w*\s+deux\s+fois | rembours\w+ | arnaque
    | (?:données|photos|fichiers)\s+(?:perdu|effacé)\w* | impossible\s+de\s+(?:me|se|nous)\s+connecter | résili\w+
    | plus\s+jamais | avocat

    | herid\w+ | peligros\w+ | intoxica\w+ | cobra\w*\s+dos\s+veces
    | reembols\w+ | devuelvan\s+(?:mi|el)\s+dinero | estafa
    | (?:datos|fotos|archivos)\s+(?:perdidos|borrados)
    | no\s+puedo\s+(?:entrar|iniciar\s+sesión) | nunca\s+más | abogad\w+
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def is_urgent(text: str) -> bool:
    """Whether a complaint has words of safety, money, lost data or access, or of a customer who leaves.

    Knows English, German, French and Spanish.
    """
    return _URGENT.search(text) is not None


def urgency(text: str, sentiment: str) -> str:
    """The urgency of a text: high where its words tell it, and low for praise."""
    if sentiment == "positive":
        return "low"
    return "high" if is_urgent(text) else "medium"


def summary(text: str, praise: str | None, complaint: str | None) -> str:
    """A lone sentence of fewer than 30 words as it stands; else the strongest clauses, in the order of the text."""
    if (whole := lone_sentence(text)) is not None:
        return whole
    whole = " ".join(text.split())
    chosen = sorted({one for one in (praise, complaint) if one}, key=text.find)
    if not chosen:
        return cut(sentences(whole)[0], SUMMARY_LENGTH, SUMMARY_WORDS)
    words = SUMMARY_WORDS // len(chosen)
    return "; ".join(cut(" ".join(one.split()), SUMMARY_LENGTH // len(chosen), words) for one in chosen)


def _assemble(answers: Mapping[str, Any]) -> dict[str, Any]:
    text, found = answers["text"], _reading(answers)
    said: Sequence[LabelReading] = answers["clauses"]
    ranked = sorted(said, key=lambda one: polarity(one.logprobs))
    praise = _phrase(ranked[-1].text) if found.label != "negative" else None
    complaint = _phrase(ranked[0].text) if found.label != "positive" else None
    return {
        "summary": summary(text, praise, complaint),
        "sentiment": found.label,
        "issues": {"main_complaint": complaint, "positive_aspect": praise, "urgency": urgency(text, found.label)},
        "confidence": round(found.confidence, 3),
    }


_READ = OutputType(Literal["positive", "negative", "mixed", "neutral"])

FAST = Pipeline(
    name="fast",
    steps=(
        Step(name="clauses", prompt=_PROMPT, output=_READ, max_tokens=1, labels=LABELS, parts=clauses, small=True),
        Step(
            name="second_look",
            prompt=_PROMPT,
            output=_READ,
            max_tokens=1,
            needs=("clauses",),
            when=_is_unsure,
            labels=LABELS,
            second_look=True,
        ),
    ),
    columns=(
        Column("summary"),
        Column("sentiment"),
        Column("issues", ("main_complaint", "positive_aspect", "urgency")),
    ),
    assemble=_assemble,
    version=hashlib.blake2b(
        f"{_CUT.pattern} {_URGENT.pattern} {json.dumps(coefficients())}".encode(), digest_size=8
    ).hexdigest(),
)
