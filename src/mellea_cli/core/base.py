"""The names of `mellea_cli.core`: the reference library's programs import them from both."""

from mellea_cli.core import *  # noqa: F403 - all of them
from mellea_cli.core import __all__ as __all__  # noqa: PLC0414 - the same list
