"""Backends: one module for each kind of model server, over a common wire client."""

from mellea_cli.backends.model_options import ModelOption

__all__ = ["ModelOption"]
