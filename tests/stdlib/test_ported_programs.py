"""Programs with the reference library's imports and calls, which run here after `mellea` is renamed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from loopback import ModelServer

Serve = Callable[..., ModelServer]

PROGRAMS = {
    "a session of a backend object": (
        """
import mellea
from mellea import MelleaSession
from mellea.backends import ModelOption, model_ids
from mellea.backends.ollama import OllamaModelBackend
from mellea.stdlib.context import ChatContext, SimpleContext

backend = OllamaModelBackend(model_ids.IBM_GRANITE_4_1_3B, model_options={ModelOption.SEED: 7})
first = MelleaSession(backend, SimpleContext())
second = MelleaSession(backend=backend, ctx=ChatContext(window_size=4))
print(first.instruct("Name a port.").value)
print(second.chat("Hello.").content)
print(len(second.ctx.as_list(last_n_components=2)), type(second.ctx.last_turn().model_input).__name__)
""",
        "Bergen\nBergen\n2 Message\n",
    ),
    "an OpenAI-compatible server": (
        """
from mellea import MelleaSession
from mellea.backends.openai import OpenAIBackend

m = MelleaSession(OpenAIBackend(model_id="granite4.1:3b", base_url=OPENAI, api_key="none"))
print(m.instruct("Name a port."))
""",
        "Bergen\n",
    ),
    "requirements and a validator of the context": (
        """
from mellea import start_session
from mellea.core import Context, Requirement, ValidationResult
from mellea.stdlib.requirements import check, req, simple_validate
from mellea.stdlib.sampling import RejectionSamplingStrategy

def short(ctx: Context) -> ValidationResult:
    text = ctx.last_output().value
    return ValidationResult(len(text) < 20, reason="too long")

m = start_session("ollama", "granite4.1:3b")
result = m.instruct(
    "Name a {{what}}.",
    user_variables={"what": "port"},
    requirements=[
        Requirement("Be short.", validation_fn=short),
        check(None, validation_fn=simple_validate(lambda text: "," not in text)),
        req("Begin with a capital.", validation_fn=simple_validate(lambda text: (text[0].isupper(), "small"))),
    ],
    strategy=RejectionSamplingStrategy(loop_budget=3),
    return_sampling_results=True,
)
print(result.success, result.result.value, len(result.sample_generations))
""",
        "True Bergen 1\n",
    ),
    "generative functions with conditions": (
        """
from typing import Literal
from mellea import generative, start_session
from mellea.core import CBlock, ComponentParseError
from mellea.stdlib.components.genstub import PreconditionException
from mellea.stdlib.requirements import simple_validate
from mellea.core import Requirement

@generative
def place(text: str) -> Literal["Bergen", "Oslo"]:
    \"\"\"The place that the text is about.\"\"\"

m = start_session("ollama", "granite4.1:3b")
print(place(m, text="Rain again."), place(m=m, text=CBlock("Rain.")))
try:
    full = Requirement("Not empty.", validation_fn=simple_validate(lambda text: False))
    place(m, text="", precondition_requirements=[full])
except PreconditionException as failure:
    print(len(failure.validation))
""",
        "Bergen Bergen\n1\n",
    ),
    "streams and fan-out": (
        """
import asyncio
import mellea
from mellea.backends.model_options import ModelOption
from mellea.core import ModelOutputThunk
from mellea.helpers import wait_for_all_mots
from mellea.stdlib.session import start_session

async def main():
    m = start_session("ollama", "granite4.1:3b")
    options = {ModelOption.STREAM: True}
    live: ModelOutputThunk[str] = await m.ainstruct("Name a port.", strategy=None, model_options=options)
    print("".join([piece async for piece in live]))
    thunks = [await m.ainstruct("Name a port.") for _ in range(3)]
    await wait_for_all_mots(thunks)
    print([thunk.value for thunk in thunks])

asyncio.run(main())
""",
        "Bergen\n['Bergen', 'Bergen', 'Bergen']\n",
    ),
    "calls without a session": (
        """
import asyncio
import mellea
from mellea.stdlib import functional as mfuncs
from mellea.stdlib.components import Instruction
from mellea.stdlib.context import ChatContext

ctx, backend = mellea.start_backend("ollama", "granite4.1:3b", context_type="chat")
answer, ctx = mfuncs.act(Instruction("Name a port."), context=ctx, backend=backend)
later, ctx = asyncio.run(mfuncs.aact(Instruction("Another."), context=ctx, backend=backend))
print(answer.value, later.value, len(ctx.as_list()))
reply, ctx = mfuncs.chat("More.", ctx, backend)
print(reply.content, mfuncs.instruct("One.", ctx, backend)[0])
print(asyncio.run(mfuncs.ainstruct("One.", ctx, backend))[0], asyncio.run(mfuncs.achat("One.", ctx, backend))[0])
print(bool(mfuncs.validate("Good.", ctx, backend)[0]))
""",
        "Bergen Bergen 4\nBergen Bergen\nBergen Bergen\nFalse\n",
    ),
    "a structured answer that cannot be parsed": (
        """
import mellea
from pydantic import BaseModel
from mellea.core.base import ComponentParseError

class Port(BaseModel):
    name: str

m = mellea.start_session("ollama", "granite4.1:3b", ctx=mellea.stdlib.context.SimpleContext())
try:
    m.instruct("Name a port, in words.", format=Port)
except ComponentParseError as error:
    print(error.text)
""",
        "in words\n",
    ),
}


def replied(prompt: str, schema: Any) -> str:
    if schema is None:
        return "Bergen"
    return '{"result": "Bergen"}' if "result" in schema["properties"] else "in words"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_by_renaming_one_package(serve: Serve, name: str) -> None:
    """The program prints what it should after `s/mellea/mellea_cli/`."""
    server = serve(reply=replied, models=("granite4.1:3b", "test-model"))
    program, printed = PROGRAMS[name]
    program = re.sub(r"\bmellea\b", "mellea_cli", program).replace("OPENAI", repr(server.openai_url))
    environ = {**os.environ, "OLLAMA_HOST": server.url}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.stdout, ran.stderr) == (printed, "")
