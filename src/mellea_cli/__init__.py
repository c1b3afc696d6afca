"""Run a pile of feedback through a language model.

The command is `mellea`; from Python, `start_session()` gives a session whose methods ask a model. Importing this
package loads neither the HTTP client nor pydantic: each name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mellea_cli.backends import model_ids
    from mellea_cli.backends.base import Backend
    from mellea_cli.backends.model_options import ModelOption
    from mellea_cli.errors import MelleaError
    from mellea_cli.errors import ParseError as ComponentParseError
    from mellea_cli.messages import Message
    from mellea_cli.requirements.requirement import Requirement, ValidationResult, check, req, simple_validate
    from mellea_cli.session.row_runs import AnsweredRow, arun, run
    from mellea_cli.session.session import MelleaSession, start_backend, start_session
    from mellea_cli.session.thunk import ComputedModelOutputThunk, ModelOutputThunk, wait_for_all_mots
    from mellea_cli.stdlib.components import CBlock, Component, Instruction
    from mellea_cli.stdlib.components.genstub import PreconditionException, generative
    from mellea_cli.stdlib.context import ChatContext, Context, SimpleContext
    from mellea_cli.stdlib.sampling import (
        MultiTurnStrategy,
        RejectionSamplingStrategy,
        RepairTemplateStrategy,
        SamplingResult,
    )

__version__ = "0.1.0"

__all__ = [
    "AnsweredRow",
    "Backend",
    "CBlock",
    "ChatContext",
    "Component",
    "ComponentParseError",
    "ComputedModelOutputThunk",
    "Context",
    "Instruction",
    "MelleaError",
    "MelleaSession",
    "Message",
    "ModelOption",
    "ModelOutputThunk",
    "MultiTurnStrategy",
    "PreconditionException",
    "RejectionSamplingStrategy",
    "RepairTemplateStrategy",
    "Requirement",
    "SamplingResult",
    "SimpleContext",
    "ValidationResult",
    "__version__",
    "arun",
    "check",
    "generative",
    "model_ids",
    "req",
    "run",
    "simple_validate",
    "start_backend",
    "start_session",
    "wait_for_all_mots",
]

_MODULES = {
    "session.row_runs": ("AnsweredRow", "arun", "run"),
    "backends.base": ("Backend",),
    "backends.model_options": ("ModelOption",),
    "errors": ("MelleaError",),
    "core": ("ComponentParseError",),
    "messages": ("Message",),
    "requirements.requirement": ("Requirement", "ValidationResult", "check", "req", "simple_validate"),
    "stdlib.components": ("CBlock", "Component", "Instruction"),
    "stdlib.context": ("ChatContext", "Context", "SimpleContext"),
    "stdlib.sampling": ("MultiTurnStrategy", "RejectionSamplingStrategy", "RepairTemplateStrategy", "SamplingResult"),
    "session.session": ("MelleaSession", "start_backend", "start_session"),
    "session.thunk": ("ComputedModelOutputThunk", "ModelOutputThunk", "wait_for_all_mots"),
    "stdlib.components.genstub": ("PreconditionException", "generative"),
}
# Modules that `import mellea_cli` alone gives, as attributes.
_SUBMODULES = {
    "backends": "backends",
    "core": "core",
    "helpers": "helpers",
    "model_ids": "backends.model_ids",
    "stdlib": "stdlib",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{_SUBMODULES[name]}")
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES})


class _RunPackage(ModuleType):
    """The sub-package `run`, which can be called as the function of that name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from mellea_cli.session.row_runs import run as run_rows

        return run_rows(*arguments, **options)


class _Package(ModuleType):
    """This package. The import of a sub-package sets an attribute here, which hides the function `run`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "run" and isinstance(value, ModuleType):
            value.__class__ = _RunPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
