"""How to talk to one kind of model server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mellea_cli.backends.model_option import ModelOption as ModelOption

__all__ = ["ModelOption"]


def __getattr__(name: str) -> Any:
    if name == "ModelOption":
        from mellea_cli.backends.model_option import ModelOption

        return ModelOption
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
