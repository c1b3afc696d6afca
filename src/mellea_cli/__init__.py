"""Run a pile of feedback through a language model.

The command is `mellea`; from Python, `start_session()` gives a session whose methods ask a model. Importing this
package loads neither the HTTP client nor pydantic: each name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mellea_cli.backends.model_options import ModelOption
    from mellea_cli.messages import Message
    from mellea_cli.requirements.requirement import Requirement, ValidationResult, check, req, simple_validate
    from mellea_cli.session.components import Instruction
    from mellea_cli.session.contexts import ChatContext, SimpleContext
    from mellea_cli.session.generative import PreconditionException, generative
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
    "check",
    "generative",
    "req",
    "simple_validate",
    "start_session",
    "wait_for_all_mots",
]

_MODULES = {
    "backends.model_options": ("ModelOption",),
    "messages": ("Message",),
    "requirements.requirement": ("Requirement", "ValidationResult", "check", "req", "simple_validate"),
    "session.components": ("Instruction",),
    "session.contexts": ("ChatContext", "SimpleContext"),
    "session.generative": ("PreconditionException", "generative"),
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
