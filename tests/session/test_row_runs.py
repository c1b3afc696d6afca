"""`mellea_cli.run` and `arun`: typed rows from a pydantic model, a pipeline file or a built-in pipeline."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, model_validator

import mellea_cli
from loopback import ModelServer
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
