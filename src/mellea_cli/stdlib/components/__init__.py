"""Components, where the reference library has them."""

from mellea_cli.errors import ParseError as ComponentParseError
from mellea_cli.messages import Message
from mellea_cli.session.components import CBlock, Component, Instruction
from mellea_cli.session.thunk import ModelOutputThunk

__all__ = ["CBlock", "Component", "ComponentParseError", "Instruction", "Message", "ModelOutputThunk"]
