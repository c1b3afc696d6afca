"""The classes that programs name in annotations, where the reference library has them."""

from mellea_cli.backends.base import Backend
from mellea_cli.errors import ParseError as ComponentParseError
from mellea_cli.requirements.requirement import Requirement, ValidationResult, default_output_to_bool
from mellea_cli.session.thunk import ComputedModelOutputThunk, ModelOutputThunk
from mellea_cli.stdlib.components import CBlock, Component
from mellea_cli.stdlib.context import Context, ContextTurn
from mellea_cli.stdlib.sampling import SamplingResult, SamplingStrategy

__all__ = [
    "Backend",
    "CBlock",
    "Component",
    "ComponentParseError",
    "ComputedModelOutputThunk",
    "Context",
    "ContextTurn",
    "ModelOutputThunk",
    "Requirement",
    "SamplingResult",
    "SamplingStrategy",
    "ValidationResult",
    "default_output_to_bool",
]
