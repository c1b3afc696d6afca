"""`wait_for_all_mots` where the tutorial imports it from, so that its programs run with only `mellea` renamed."""

from mellea_cli.session.thunk import wait_for_all_mots

__all__ = ["wait_for_all_mots"]
