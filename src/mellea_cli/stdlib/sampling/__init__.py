"""Sampling strategies, where the reference library has them."""

from mellea_cli.session.sampling import (
    MultiTurnStrategy,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    SamplingResult,
    SamplingStrategy,
)
from mellea_cli.session.sampling import SamplingStrategy as BaseSamplingStrategy

__all__ = [
    "BaseSamplingStrategy",
    "MultiTurnStrategy",
    "RejectionSamplingStrategy",
    "RepairTemplateStrategy",
    "SamplingResult",
    "SamplingStrategy",
]
