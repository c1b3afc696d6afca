"""The page about pipeline files says what the models, the templates and the commands are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from mellea_cli.pipelines.own_fields import own_pipeline
from mellea_cli.pipelines.pipeline_spec import ExampleSpec, FieldSpec, PipelineSpec, StepSpec, check_source

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "pipelines.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_models() -> None:
    """A change of a model writes the page again: python scripts/pipelines_page.py."""
    assert runpy.run_path(str(DOCS.parent / "scripts" / "pipelines_page.py"))["page"](TEXT) == TEXT


def test_every_key_is_on_the_page() -> None:
    """With its meaning."""
    for model in (PipelineSpec, FieldSpec, ExampleSpec, StepSpec):
        for name, info in model.model_fields.items():
            assert info.description, name
            assert re.search(rf"^\| `{name}` \|.*{re.escape(info.description)} \|$", TEXT, re.MULTILINE), name


def test_every_example_can_be_used() -> None:
    """Each TOML block of the page is a whole pipeline."""
    blocks = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        spec, problems = check_source(block)
        assert spec is not None, problems
        assert not problems
        assert own_pipeline(spec).steps
