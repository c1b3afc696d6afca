"""Contexts, where the reference library has them."""

from mellea_cli.session.contexts import ChatContext, Context, ContextTurn, SimpleContext

__all__ = ["ChatContext", "Context", "ContextTurn", "SimpleContext"]
