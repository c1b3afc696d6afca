"""Run a pile of feedback through a language model.

The command is `mellea`; from Python, `start_session()` gives a session whose methods ask a model. Importing this
package loads neither the HTTP client nor pydantic: each name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mellea_cli.backends.options import ModelOption
    from mellea_cli.messages import Message
    from mellea_cli.requirements.base import Requirement, ValidationResult, check, req, simple_validate
    from mellea_cli.session.components import Instruction
    from mellea_cli.session.context import ChatContext, SimpleContext
    from mellea_cli.session.generative import PreconditionException, generative
    from mellea_cli.session.sampling import SamplingResult
    from mellea_cli.session.session import MelleaSession
    from mellea_cli.session.start import start_session
    from mellea_cli.session.strategies import MultiTurnStrategy, RejectionSamplingStrategy, RepairTemplateStrategy
    from mellea_cli.session.thunk import ModelOutputThunk
    from mellea_cli.session.waiting import wait_for_all_mots

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

_HOMES = {
    "ChatContext": "session.context",
    "Instruction": "session.components",
    "MelleaSession": "session.session",
    "Message": "messages",
    "ModelOption": "backends.options",
    "ModelOutputThunk": "session.thunk",
    "MultiTurnStrategy": "session.strategies",
    "PreconditionException": "session.generative",
    "RejectionSamplingStrategy": "session.strategies",
    "RepairTemplateStrategy": "session.strategies",
    "Requirement": "requirements.base",
    "SamplingResult": "session.sampling",
    "SimpleContext": "session.context",
    "ValidationResult": "requirements.base",
    "check": "requirements.base",
    "generative": "session.generative",
    "req": "requirements.base",
    "simple_validate": "requirements.base",
    "start_session": "session.start",
    "wait_for_all_mots": "session.waiting",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
