"""The classes that programs name in annotations, where the reference library has them."""

from mellea_cli.core.base import (
    Backend,
    CBlock,
    Component,
    ComponentParseError,
    ComputedModelOutputThunk,
    Context,
    ContextTurn,
    ModelOutputThunk,
    Requirement,
    SamplingResult,
    SamplingStrategy,
    ValidationResult,
    default_output_to_bool,
)

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
