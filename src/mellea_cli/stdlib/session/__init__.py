"""Sessions, where the reference library has them."""

from mellea_cli.session.session import MelleaSession, start_backend, start_session

__all__ = ["MelleaSession", "start_backend", "start_session"]
