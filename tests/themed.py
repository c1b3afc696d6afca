"""A model that finds and labels themes by their words, and summarised rows for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mellea_cli.pipelines.theme_prompts import Theme

WORDS = {
    "late": "Late delivery",
    "rude": "Rude staff",
    "price": "High prices",
    "kind": "Kind people",
    "quick": "Quick help",
}
"""What the model looks for, and the theme that it calls by it."""

LATE = Theme("Late delivery", "It came late.", "complaint", ("came late", "a day late"))
RUDE = Theme("Rude staff", "Somebody was rude.", "complaint", ("rude man", "they were rude"))
KIND = Theme("Kind people", "People were kind.", "praise", ("kind people", "so kind"))


def reply(prompt: str, schema: Mapping[str, Any] | None) -> str:
    """Answer any question of `mellea themes` by the words in the prompt."""
    fields = (schema or {}).get("properties", {})
    if "labels" in fields:
        return json.dumps({"labels": _labels(prompt, str(schema))})
    if "definition" in fields:
        return json.dumps({"definition": f"About {prompt.splitlines()[0].removeprefix('Theme: ').lower()}."})
    if "theme" in fields:
        names = [name for word, name in WORDS.items() if word in prompt and f"'{name}'" in str(schema)]
        return json.dumps({"theme": names[0] if names else "other"})
    least = fields["themes"]["minItems"]
    found = [name for word, name in WORDS.items() if word in prompt]
    names = (found + [f"Matter {number}" for number in range(least)])[:least]
    return json.dumps({"themes": [{"name": name, "definition": f"About {name.lower()}."} for name in names]})


def _labels(prompt: str, schema: str) -> list[dict[str, str]]:
    text = prompt.split(">\n", 1)[1].rsplit("\n<", 1)[0]
    found = [{"quote": word, "theme": name} for word, name in WORDS.items() if word in text and f"'{name}'" in schema]
    return found[:4] or [{"quote": text[:20], "theme": "other"}]


def row(number: int, text: str, complaint: str | None = None, praise: str | None = None, **more: Any) -> dict[str, Any]:
    """A row as `mellea summarise` writes it."""
    sentiment = "mixed" if bool(complaint) == bool(praise) else "negative" if complaint else "positive"
    issues = {"main_complaint": complaint, "positive_aspect": praise, "urgency": "medium" if complaint else "low"}
    return {"id": number, **more, "text": text, "summary": text[:40], "sentiment": sentiment, "issues": issues}


def rows(count: int) -> list[dict[str, Any]]:
    """Rows with a text of their own each: late, rude, kind, and every fifth one with nothing to say."""
    made = []
    for number in range(count):
        match number % 5:
            case 0:
                made.append(row(number, f"MARK-{number} It was late again.", complaint=f"late for {number} days"))
            case 1:
                made.append(row(number, f"MARK-{number} Quite rude, and late.", complaint=f"rude to us {number}"))
            case 2:
                made.append(row(number, f"MARK-{number} They were kind.", praise=f"kind people {number}"))
            case 3:
                made.append(row(number, f"MARK-{number} The blue one.", praise=f"the blue one {number}"))
            case _:
                made.append(row(number, f"MARK-{number} Nothing."))
    return made
