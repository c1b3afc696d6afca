# ruff: noqa: S603 - it starts the program
"""Which share of the texts that the embedded model writes is in the language that was asked for.

    python benchmarks/languages.py                         # de, fr, es and ja; takes most of an hour on two cores
    python benchmarks/languages.py --languages de -n 10 -m qwen2.5-coder-1.5b

The rows are English ones of `quality/items.tsv`, so a text that the model leaves in the feedback's language counts as
wrong. Their labels show what the language costs: the sentiment follows from praise and complaint. py3langid judges each
summary among eight languages. Complaints and praise are a few words long, too few for that, so it only says whether
they are in English or in the language.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier
from quality import labelled
from rows import Row, tell

LEAST = {"de": 90, "fr": 90, "es": 90}
"""Least share of summaries in the right language, in percent."""
CANDIDATES = ("en", "de", "fr", "es", "ja", "it", "nl", "pt")


def detector(languages: Sequence[str]) -> Callable[[str], str]:
    """A function that says in which of these languages a text is."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(languages))
    return lambda text: str(identifier.classify(text)[0])


def english_rows(number: int) -> list[tuple[str, str]]:
    """The first English ones of the labelled items: labels and texts."""
    judge = detector(CANDIDATES)
    return [(label, text) for label, text in labelled() if judge(text) == "en"][:number]


def answers(texts: Sequence[str], language: str, model: str | None, folder: Path) -> list[dict[str, Any]]:
    """Summarise the texts in a language; return the rows."""
    source, output = folder / f"in-{len(texts)}.jsonl", folder / f"{language}.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    command = [sys.executable, "-m", "mellea_cli", "summarise", str(source), "-o", str(output), "-b", "local"]
    command += ["--language", language, "-q", "--yes", *(["-m", model] if model else [])]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode not in {0, 3}:
        raise RuntimeError(f"mellea summarise ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def judge(language: str, labels: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Print the shares of one language."""
    of_all, of_two = detector(CANDIDATES), detector(("en", language))
    summaries = [row["summary"] for row in rows if row["summary"]]
    issues = [row["issues"] for row in rows if row["issues"]]
    phrases = [one[part] for one in issues for part in ("main_complaint", "positive_aspect") if one[part]]
    in_summaries = Counter(map(of_all, summaries))
    right = sum(of_two(phrase) == language for phrase in phrases)
    others = ", ".join(f"{name}: {count}" for name, count in in_summaries.most_common() if name != language)
    share = 100 * in_summaries[language] / max(1, len(rows))
    bar = LEAST.get(language)
    tell(Row("languages", f"{language}: summaries in it", share, "%", bar, at_least=True, note=others))
    share, note = 100 * right / max(1, len(phrases)), f"{len(phrases)} phrases"
    tell(Row("languages", f"{language}: complaints and praise in it", share, "%", note=note))
    alike = sum(row["sentiment"] == label for label, row in zip(labels, rows, strict=True))
    tell(Row("languages", f"{language}: sentiment right", 100 * alike / len(rows), "%"))
    share, note = 100 * len(summaries) / len(rows), f"{len(rows)} rows"
    tell(Row("languages", f"{language}: rows answered", share, "%", note=note))


def main() -> None:
    """Judge the languages one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--languages", default="de,fr,es,ja", help="codes, separated by commas")
    parser.add_argument("-m", "--model", help="a name from the catalogue, or a .gguf file")
    parser.add_argument("-n", "--limit", type=int, default=40, help="rows of each language")
    parser.add_argument("--keep", type=Path, help="folder for the outputs, so that a second run asks nothing again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        labels, texts = zip(*english_rows(args.limit), strict=True)
        for language in args.languages.split(","):
            judge(language, labels, answers(texts, language, args.model, folder))


if __name__ == "__main__":
    main()
