"""The sessions of these tests."""

from sessions import m, open_session, protocol

__all__ = ["m", "open_session", "protocol"]
