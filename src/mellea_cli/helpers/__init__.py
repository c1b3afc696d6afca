"""Helpers, where the reference library has them."""

from mellea_cli.session.thunk import wait_for_all_mots

__all__ = ["wait_for_all_mots"]
