"""Requirements, where the reference library has them."""

from mellea_cli.requirements.requirement import (
    Requirement,
    ValidationResult,
    check,
    default_output_to_bool,
    req,
    reqify,
    simple_validate,
)

__all__ = ["Requirement", "ValidationResult", "check", "default_output_to_bool", "req", "reqify", "simple_validate"]
