"""`mellea_cli.run` and `arun`: typed rows from a pydantic model, a pipeline file or a built-in pipeline."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, model_validator

import mellea_cli
from loopback import ModelServer, faults
from mellea_cli import MelleaSession
from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.errors import MelleaError, OutputBusy, UsageError
from mellea_cli.events import ItemFinished
from mellea_cli.messages import GenerateRequest
from rowfiles import write_rows


class Order(BaseModel):
    """Orders of a shop."""

    product: str | None = Field(description="The product")
    team: Literal["billing", "delivery"]


def test_rows_come_back_typed_and_in_order() -> None:
    """Texts and mappings; a row without text has no answer and no error."""
    rows = mellea_cli.run(
        Order, ["The pump leaks.", {"text": " ", "id": "b"}, {"text": "Late.", "n": 3}], backend_name="scripted"
    )
    assert [row.id for row in rows] == [1, "b", 3]
    assert isinstance(rows[0].answer, Order)
    assert rows[0].answer.product == "The pump leaks."
    assert rows[0].values == {"product": "The pump leaks.", "team": rows[0].answer.team}
    assert rows[1].answer is None
    assert all(row.ok for row in rows)
    assert rows[2].fields == {"text": "Late.", "n": 3}


def test_the_package_of_the_same_name_can_be_called() -> None:
    """`mellea_cli.run` stays the function when the sub-package has been imported."""
    from mellea_cli.run import batch

    assert batch.run_batch
    assert mellea_cli.run("single", ["Good."], backend_name="scripted")[0].values["sentiment"] == "positive"


def test_a_journal_keeps_the_answers(server: ModelServer, tmp_path: Path) -> None:
    """The same call again asks nothing, and an added field asks that field alone."""
    texts = [f"MARK-{number} leaks." for number in range(20)]
    settings: dict[str, Any] = {
        "backend_name": "openai",
        "model_id": "test-model",
        "base_url": server.openai_url,
        "journal": tmp_path / "answers.journal",
    }
    first = mellea_cli.run(Order, texts, **settings)
    assert server.state.requests == 20
    assert mellea_cli.run(Order, texts, **settings) == first
    assert server.state.requests == 20

    class More(Order):
        """Orders of a shop."""

        stars: int

    more = mellea_cli.run(More, texts, **settings)
    assert server.state.requests == 40
    assert [row.values["product"] for row in more] == [row.values["product"] for row in first]
    assert more[0].answer is not None
    assert more[0].answer.stars == 1


def test_a_file_and_a_pipeline_file(tmp_path: Path) -> None:
    """Both are named by their paths; the column with the text is found or named."""
    (tmp_path / "p.toml").write_text('[fields.refund]\ntype = "bool"\n')
    source = write_rows(tmp_path / "in.jsonl", [{"id": "x", "said": "Great pump, love it."}])
    seen: list[object] = []
    rows = mellea_cli.run(tmp_path / "p.toml", source, text_field="said", backend_name="scripted", observer=seen.append)
    assert [(row.id, row.values) for row in rows] == [("x", {"refund": True})]
    assert sum(isinstance(event, ItemFinished) for event in seen) == 1


def test_inside_an_event_loop_there_is_arun() -> None:
    """`run` says so there."""

    async def main() -> None:
        rows = await mellea_cli.arun(Order, ["Late."], backend_name="scripted")
        assert rows[0].ok
        with pytest.raises(UsageError, match="event loop"):
            mellea_cli.run(Order, ["Late."], backend_name="scripted")

    asyncio.run(main())


def test_a_row_that_fails_has_its_reason() -> None:
    """Others have their answers; a validator of the whole model counts, too."""

    def reply(request: GenerateRequest) -> str:
        bad = "BAD" in request.messages[-1].content or "will not do" in request.messages[-1].content
        return "no" if bad else '{"product":"x","team":"billing"}'

    class Strict(Order):
        """Orders."""

        @model_validator(mode="after")
        def no_product(self) -> Strict:
            if self.product == "x":
                raise ValueError("x is no product")
            return self

    rows = mellea_cli.run(Order, ["Fine.", "BAD"], backend_name=ScriptedBackend(reply))
    assert [row.ok for row in rows] == [True, False]
    assert rows[1].error.startswith("parse: no good answer after 3 tries")
    (row,) = mellea_cli.run(Strict, ["Fine."], backend_name=ScriptedBackend(reply))
    assert "x is no product" in row.error
    assert row.values["product"] == "x"


@pytest.mark.parametrize(("rows", "message"), [([{"a": "b"}], "has no 'text'"), ([{"text": 3}], "not text")])
def test_rows_without_a_text_are_refused(rows: Any, message: str) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError, match=message):
        mellea_cli.run(Order, rows, backend_name="scripted")


def test_what_ends_the_run_is_raised(server: ModelServer, tmp_path: Path) -> None:
    """A server that does not know the model, one that is away for too long, and a journal that another run writes."""
    from mellea_cli.io.files import OutputLock, resolve_output

    settings: dict[str, Any] = {"backend_name": "openai", "base_url": server.openai_url}
    with pytest.raises(MelleaError, match="no-such-model"):
        mellea_cli.run(Order, ["x"], model_id="no-such-model", **settings)
    (row,) = mellea_cli.run(
        Order, ["x"], backend_name="openai", model_id="m", base_url="http://127.0.0.1:9/v1", max_retries=0, max_wait=0
    )
    assert row.error.startswith("unavailable")
    path = tmp_path / "a.journal"
    with OutputLock(resolve_output(str(path)).lock, "a"), pytest.raises(OutputBusy):
        mellea_cli.run(Order, ["x"], backend_name="scripted", journal=path)


def of_prompts(prompt: str, schema: Any) -> str:
    return '{"product": "pump", "team": "billing"}' if schema else f"Answer to {prompt}"


@pytest.fixture
def mapping(serve: Callable[..., ModelServer]) -> Iterator[tuple[MelleaSession, ModelServer]]:
    """A session, and its server that repeats prompts."""
    server = serve(reply=of_prompts)
    with mellea_cli.start_session("openai", "test-model", base_url=server.openai_url) as m:
        yield m, server


def test_a_prompt_is_mapped_over_items_in_their_order(mapping: tuple[MelleaSession, ModelServer]) -> None:
    """Texts and mappings; identical prompts are asked once, within the limit of requests in flight."""
    m, server = mapping
    items = [*(f"item {number}" for number in range(20)), {"text": "item 3", "id": "again"}]
    rows = list(m.map("Say {{text}}.", items, concurrency=3))
    assert [row.answer for row in rows[:20]] == [f"Answer to Say item {number}." for number in range(20)]
    assert (rows[20].id, rows[20].answer, rows[20].fields) == ("again", rows[3].answer, items[20])
    assert server.state.requests == 20
    assert server.state.max_in_flight <= 3
    assert [row.answer for row in m.map("{{name}}?", [{"name": "Ada"}])] == ["Answer to Ada?"]


async def test_rows_may_come_as_they_complete(serve: Callable[..., ModelServer]) -> None:
    """The first item waits for ever; the others still come, and leaving the loop cancels it."""
    server = serve(reply=of_prompts, fault=lambda call: faults.stall(0) if "item 0" in call.prompt else None)
    async with mellea_cli.start_session("openai", "test-model", base_url=server.openai_url) as m:
        rows = m.amap("Say {{text}}.", [f"item {number}" for number in range(4)], as_completed=True)
        seen = {(await anext(rows)).text for _ in range(3)}
        assert seen == {f"Say item {number}." for number in (1, 2, 3)}
        await rows.aclose()  # type: ignore[attr-defined]  # it is a generator
        await server.until(lambda state: state.in_flight == 0)


async def test_mapped_answers_are_typed_kept_and_counted(
    mapping: tuple[MelleaSession, ModelServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pydantic model, a journal that is read again, and one line on stderr that counts."""
    m, server = mapping
    for _ in range(2):
        rows = m.amap("Read {{text}}.", ["a", "b"], format=Order, journal=tmp_path / "kept", progress=True)
        assert [row.answer async for row in rows] == [Order(product="pump", team="billing")] * 2
    assert server.state.requests == 2
    assert capsys.readouterr().err.endswith("\r2 of 2\n")


def test_a_map_that_cannot_be_asked_raises(mapping: tuple[MelleaSession, ModelServer]) -> None:
    """A hole in the prompt before anything is sent; a server that is not there; a row that fails has its error."""
    m, server = mapping
    with pytest.raises(MelleaError, match="unknown variable"):
        m.map("Say {{what}}.", ["a"])
    assert server.state.requests == 0
    server.stop()
    with (
        mellea_cli.start_session("ollama", "x", base_url="http://127.0.0.1:9") as lost,
        pytest.raises(MelleaError, match="cannot reach"),
    ):
        list(lost.map("Say {{text}}.", ["a"]))


def test_a_session_that_closes_ends_its_maps(serve: Callable[..., ModelServer]) -> None:
    """The loop over the rows ends with an error, and does not wait for ever."""
    server = serve(reply=of_prompts, fault=lambda call: faults.stall(0) if "b" in call.prompt else None)
    m = mellea_cli.start_session("openai", "test-model", base_url=server.openai_url)
    rows = m.map("Is it {{text}}?", ["c", "b"])
    assert next(rows).ok
    m.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(rows)


def test_rows_become_a_data_frame() -> None:
    """One line for each row: its columns, its answers, its error; a library that is missing is named."""
    rows = mellea_cli.run(Order, [{"text": "The pump leaks.", "n": 1}], backend_name="scripted")
    frame = rows.to_pandas()
    assert list(frame.columns) == ["text", "n", "product", "team", "error"]
    assert frame.loc[0, "product"] == "The pump leaks."
    if importlib.util.find_spec("polars") is None:
        with pytest.raises(UsageError, match="polars is not installed"):
            rows.to_polars()
