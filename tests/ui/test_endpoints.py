"""What is said of the endpoints of a pool."""

from __future__ import annotations

import dataclasses
import json

from mellea_cli.engine.endpoint import EndpointFigures
from mellea_cli.messages import Usage
from mellea_cli.ui.summary import RunSummary, endpoint_lines, plain_lines, to_json

GPU = EndpointFigures("gpu1:11434", "ollama", "m", 410, 410, 0, 0, Usage(40_000, 11_000), 0.74, 0.82)
DESK = EndpointFigures(
    "desk",
    "openai",
    "desk-m",
    100,
    90,
    10,
    3,
    Usage(),
    12.34,
    0.18,
    "set aside",
    "cannot reach desk: refused",
)
RUN = RunSummary(model="m", total=500, done=500, elapsed_s=10, calls=510, endpoints=(GPU, DESK))


def test_people_see_shares_and_troubles() -> None:
    """What is worth saying and no more: an endpoint without failures has no word about them."""
    assert list(endpoint_lines(RUN.endpoints, ", ")) == [
        (True, "gpu1:11434, 410 answered (82%), 0.74 s median, 51,000 tokens"),
        (
            False,
            "desk, 90 answered (18%), 12.3 s median, 10 of 100 requests failed, set aside: cannot reach desk: refused",
        ),
    ]
    assert "endpoint: gpu1:11434, 410 answered (82%), 0.74 s median, 51,000 tokens" in list(plain_lines(RUN))


def test_an_endpoint_that_did_nothing_has_no_median() -> None:
    """It may have been away for the whole run."""
    idle = dataclasses.replace(GPU, requests=0, answered=0, usage=Usage(), median_s=None, share=0.0)
    assert list(endpoint_lines([idle], ", ")) == [(True, "gpu1:11434, 0 answered (0%)")]


def test_programs_see_every_figure() -> None:
    """One object for each endpoint; without a pool an empty list, for keys are never left out."""
    record = json.loads(to_json(RUN))["endpoints"]
    assert record[0] == {
        "name": "gpu1:11434",
        "backend": "ollama",
        "model": "m",
        "requests": 410,
        "answered": 410,
        "failures": 0,
        "probes": 0,
        "prompt_tokens": 40_000,
        "completion_tokens": 11_000,
        "median_s": 0.74,
        "share": 0.82,
        "state": None,
        "reason": None,
    }
    assert (record[1]["state"], record[1]["probes"]) == ("set aside", 3)
    assert json.loads(to_json(RunSummary()))["endpoints"] == []
