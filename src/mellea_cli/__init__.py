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
    from mellea_cli.backends.model_option import ModelOption
    from mellea_cli.messages import Message
    from mellea_cli.requirements.requirement import Requirement, ValidationResult, check, req, simple_validate
    from mellea_cli.session.components import Instruction
    from mellea_cli.session.contexts import ChatContext, SimpleContext
    from mellea_cli.session.generative import PreconditionException, generative
    from mellea_cli.session.row_runs import AnsweredRow, arun, run
    from mellea_cli.session.sampling import (
        MultiTurnStrategy,
        RejectionSamplingStrategy,
        RepairTemplateStrategy,
        SamplingResult,
    )
    from mellea_cli.session.session import MelleaSession, start_session
    from mellea_cli.session.thunk import ModelOutputThunk, wait_for_all_mots

__version__ = "0.1.0"

__all__ = [
    "AnsweredRow",
    "ChatContext",
    "Instruction",
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
    "req",
    "run",
    "simple_validate",
    "start_session",
    "wait_for_all_mots",
]

_MODULES = {
    "backends.model_option": ("ModelOption",),
    "messages": ("Message",),
    "requirements.requirement": ("Requirement", "ValidationResult", "check", "req", "simple_validate"),
    "session.components": ("Instruction",),
    "session.contexts": ("ChatContext", "SimpleContext"),
    "session.generative": ("PreconditionException", "generative"),
    "session.row_runs": ("AnsweredRow", "arun", "run"),
    "session.sampling": (
        "MultiTurnStrategy",
        "RejectionSamplingStrategy",
        "RepairTemplateStrategy",
        "SamplingResult",
    ),
    "session.session": ("MelleaSession", "start_session"),
    "session.thunk": ("ModelOutputThunk", "wait_for_all_mots"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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
