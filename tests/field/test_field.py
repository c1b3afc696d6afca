"""Every case from the field, run as a user runs the program."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from field.cases import CASES
from field.model import Case
from field.runner import run_case
from field.server import FieldServer
from field.starter import Starter

Results = dict[str, "Future[list[str]]"]

_AT_ONCE = 4
"""Most of a case's time is spent waiting for a server."""


pytestmark = [pytest.mark.slow, pytest.mark.field]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Run all chosen cases, some at once, ahead of the tests that look at them."""
    chosen = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    server = FieldServer()
    server.start()
    with Starter() as starter, ThreadPoolExecutor(_AT_ONCE) as pool:
        yield {
            case.id: pool.submit(run_case, case, server, tmp_path_factory.mktemp(case.id), starter)
            for case in chosen
            if isinstance(case, Case)
        }
        pool.shutdown(cancel_futures=True)
    server.stop()


def test_every_case_has_a_name_of_its_own() -> None:
    """Names are paths of the server, and what people say when they talk about a case."""
    names = [case.id for case in CASES]
    assert len(names) == len(set(names))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
@pytest.mark.timeout(600)
def test_case(case: Case, results: Results) -> None:
    """The case's steps have the results that it names."""
    wrong = results[case.id].result()
    assert not wrong, "\n".join((case.about, *wrong))
