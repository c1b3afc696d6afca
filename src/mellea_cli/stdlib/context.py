"""The contexts where the tutorial imports them from, so that its programs run with only `mellea` renamed."""

from mellea_cli.session.contexts import ChatContext, SimpleContext

__all__ = ["ChatContext", "SimpleContext"]
