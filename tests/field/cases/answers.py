"""Reasoning around the answer, reasoning instead of the answer, and answers that are wrapped or nearly JSON."""

from __future__ import annotations

import json

from field.cases.common import HARMONY, answers_all, asked, ollama, openai
from field.model import GIVEN, Case
from field.wire import (
    ANSWER,
    GOOD,
    GOOD_OLLAMA,
    OTHER,
    THOUGHT,
    VALUES,
    Reply,
    Rule,
    always,
    delta,
    dumped,
    first,
    last,
    line,
    lines,
    says,
    stream,
    tells,
    texts,
    thoughts,
    unless,
    usage,
    whole,
)

# Text before the answer. All of it is dropped: each row takes one request.

_PRETTY = json.dumps(VALUES, indent=2)
_DRAFT = f"{THOUGHT} A first draft is {OTHER} but that is not right. Again."


def _reasoning(case: str, source: str, about: str, text: str) -> Case:
    return answers_all(f"reasoning-{case}", "reasoning text", source, about, always(says(text)), cells=_NEGATIVE)


_NEGATIVE = tuple((row, "sentiment", "negative") for row in range(3))

_TEXTS = (
    _reasoning("think", GIVEN, "A think block stands before the answer.", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"),
    _reasoning(
        "close-only", GIVEN, "The prompt opened the block, so only its end is sent.", f"{THOUGHT}\n</think>\n\n{ANSWER}"
    ),
    _reasoning("thinking", GIVEN, "The block is called thinking.", f"<thinking>{THOUGHT}</thinking>\n{ANSWER}"),
    _reasoning("thought", GIVEN, "The block is called thought.", f"<thought>\n{THOUGHT}\n</thought>\n{ANSWER}"),
    _reasoning(
        "harmony",
        GIVEN,
        "Harmony channels arrive as text.",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}",
    ),
    _reasoning(
        "think-fence", GIVEN, "A think block, then a fence.", f"<think>{THOUGHT}</think>\n```json\n{ANSWER}\n```"
    ),
    _reasoning(
        "reasoning-tag",
        "vectorize-io/hindsight#2195",
        "The block is called reasoning.",
        f"<reasoning>\n{THOUGHT}\n</reasoning>\n{ANSWER}",
    ),
    _reasoning(
        "mistral",
        "RooCodeInc/Roo-Code#8522",
        "Magistral writes its block in square brackets.",
        f"[THINK]{THOUGHT}[/THINK]{ANSWER}",
    ),
    _reasoning(
        "mistral-close-only",
        "waybarrios/vllm-mlx#599",
        "Only the end of a block in square brackets is sent.",
        f"{THOUGHT}[/THINK]\n{ANSWER}",
    ),
    _reasoning(
        "seed",
        "vllm-project/vllm vllm/reasoning/seedoss_reasoning_parser.py",
        "The tag has a namespace.",
        f"<seed:think>{THOUGHT}</seed:think>\n{ANSWER}",
    ),
    _reasoning(
        "seed-close-only",
        "vllm-project/vllm vllm/reasoning/seedoss_reasoning_parser.py",
        "Only the end of a tag with a namespace is sent.",
        f"{THOUGHT}</seed:think>{ANSWER}",
    ),
    _reasoning(
        "minimax-namespace",
        "NousResearch/hermes-agent#62680",
        "MiniMax puts its own namespace before the tag.",
        f"<mm:think>\n{THOUGHT}\n</mm:think>\n{ANSWER}",
    ),
    _reasoning(
        "model-in-the-tag",
        "NousResearch/hermes-agent#75094",
        "The tag begins with the model's name.",
        f"<M2_7think>{THOUGHT}</M2_7think>\n{ANSWER}",
    ),
    _reasoning(
        "tags-do-not-match",
        "NousResearch/hermes-agent#75094",
        "The block ends with another tag than it began with.",
        f"<think>{THOUGHT}</thinking>\n{ANSWER}",
    ),
    _reasoning(
        "misspelt",
        "crownshy/comhairle#880",
        "The opening tag is misspelt, the closing one is not.",
        f"<thnk>{THOUGHT}</think>\n{ANSWER}",
    ),
    _reasoning(
        "ant-namespace",
        "openclaw/openclaw#688",
        "Tags of another maker are used, one of them with a namespace.",
        f"<antthinking>{THOUGHT}</antthinking>\n<thinking>{THOUGHT}</thinking>\n{ANSWER}",
    ),
    _reasoning(
        "upper-case",
        "lbds137/tzurot docs/reference/REASONING_MODEL_FORMATS.md",
        "The tag is written in capitals.",
        f"<THINK>{THOUGHT}</THINK>\n{ANSWER}",
    ),
    _reasoning(
        "scratchpad",
        "lbds137/tzurot docs/reference/REASONING_MODEL_FORMATS.md",
        "Old research models call it scratchpad or reflection.",
        f"<scratchpad>{THOUGHT}</scratchpad><reflection>That is right.</reflection>\n{ANSWER}",
    ),
    _reasoning(
        "kimi-signs",
        "vllm-project/vllm and Kimi-VL's chat template",
        "The marks are characters of their own.",
        f"◁think▷{THOUGHT}◁/think▷{ANSWER}",
    ),
    _reasoning(
        "cohere",
        "ollama/ollama model/parsers/cohere.go",
        "Command A marks both the thoughts and the response.",
        f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>",
    ),
    _reasoning(
        "gemma-channel",
        "ollama/ollama model/parsers/gemma4.go",
        "Gemma 4 has a channel with other brackets.",
        f"<|channel>thought\n{THOUGHT}\n<channel|>{ANSWER}",
    ),
    _reasoning(
        "gemma-channel-close-only",
        "oobabooga/textgen modules/reasoning.py",
        "The channel's opening mark is lost, its name and its end are there.",
        f"thought\n{THOUGHT}\n<channel|>{ANSWER}",
    ),
    _reasoning(
        "apertus",
        "mudler/LocalAI pkg/reasoning/reasoning.go",
        "Apertus calls the marks inner prefix and inner suffix.",
        f"<|inner_prefix|>{THOUGHT}<|inner_suffix|>{ANSWER}",
    ),
    _reasoning(
        "solar",
        "mudler/LocalAI pkg/reasoning/reasoning.go",
        "Solar Open ends its thoughts with the beginning of the next message.",
        f"<|think|>{THOUGHT}<|end|><|begin|>assistant<|content|>{ANSWER}",
    ),
    _reasoning(
        "exaone-bars",
        "vectorize-io/hindsight#2195",
        "The marks are words between bars.",
        f"|startthink|{THOUGHT}|endthink|\n{ANSWER}",
    ),
    _reasoning(
        "answer-tags",
        "vllm-project/vllm vllm/reasoning/hunyuan_a13b_reasoning_parser.py",
        "The answer has tags of its own.",
        f"<think>\n{THOUGHT}\n</think>\n<answer>\n{ANSWER}\n</answer>",
    ),
    _reasoning(
        "response-tags",
        "vllm-project/vllm vllm/reasoning/ernie45_reasoning_parser.py",
        "ERNIE puts the answer between response tags.",
        f"{THOUGHT}\n</think>\n\n<response>\n{ANSWER}\n</response>\n",
    ),
    _reasoning(
        "granite",
        "vllm-project/vllm vllm/reasoning/granite_reasoning_parser.py",
        "Granite 3.2 has sentences instead of tags.",
        f"Here is my thought process: {THOUGHT} Here is my response: {ANSWER}",
    ),
    _reasoning(
        "two-blocks",
        "anomalyco/opencode and MiniMax-M2, interleaved thinking",
        "There are two blocks, the second one empty.",
        f"<think>{THOUGHT}</think>\n\n<think>\n</think>\n\n{ANSWER}",
    ),
    _reasoning(
        "block-behind",
        "",
        "A block stands behind the answer.",
        f"{ANSWER}\n<think>{THOUGHT}</think>",
    ),
    _reasoning(
        "draft-inside",
        "",
        "The thoughts hold a draft that is right in form and wrong in content.",
        f"<think>{_DRAFT}</think>\n{ANSWER}",
    ),
    _reasoning(
        "draft-close-only",
        "raullenchai/Rapid-MLX#1570",
        "A draft stands before the end of a block that was never opened.",
        f"{_DRAFT}</think>\n{ANSWER}",
    ),
    _reasoning(
        "closed-twice",
        "NousResearch/hermes-agent#4286",
        "A stray end stands before a whole block.",
        f"{THOUGHT}</think><think>{THOUGHT}</think>{ANSWER}",
    ),
    _reasoning(
        "harmony-whole",
        HARMONY,
        "All marks of harmony are there, with a constraint and the end of the turn.",
        f"<|start|>assistant<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final"
        f" <|constrain|>json<|message|>{ANSWER}<|return|>",
    ),
    _reasoning(
        "harmony-commentary",
        "odysseus-dev/odysseus#4522",
        "A commentary stands between the analysis and the final channel.",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>commentary<|message|>I answer"
        f" now.<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}",
    ),
    _reasoning(
        "harmony-names-only",
        "oobabooga/textgen#7374",
        "The server drops the marks of harmony and leaves the names of the channels.",
        f"analysis{THOUGHT}assistantfinal{ANSWER}",
    ),
    _reasoning(
        "plain",
        "lbds137/tzurot docs/reference/REASONING_MODEL_FORMATS.md",
        "Kimi K2.6 writes its thoughts as plain text without any mark.",
        f"{THOUGHT} I should answer in one line.\n\n{ANSWER}",
    ),
    answers_all(
        "reasoning-ollama-close",
        "reasoning text",
        GIVEN,
        "Ollama sends only the end of a block.",
        always(tells(f"\n</think>\n\n{ANSWER}")),
        args=ollama(),
    ),
    answers_all(
        "reasoning-parts",
        "reasoning text",
        GIVEN,
        "Mistral sends thoughts and text as parts of the content.",
        always(
            stream(
                delta(
                    role="assistant", content=[{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}]
                ),
                *(delta(content=[{"type": "text", "text": piece}]) for piece in (ANSWER[:50], ANSWER[50:])),
                delta("stop", content=[]),
            )
        ),
    ),
    answers_all(
        "reasoning-steps",
        "reasoning text",
        "",
        "The pipeline of three steps gets a think block before each answer.",
        always(says(f"<reasoning>{THOUGHT}</reasoning>{ANSWER}")),
        args=openai("three.jsonl", "-p", "steps"),
        requests=9,
    ),
)

# The answer in the reasoning field.


def _in_field(case: str, source: str, about: str, reply: Reply, **more: object) -> Case:
    return answers_all(f"field-{case}", "answer in the reasoning field", source, about, always(reply), **more)


_FIELDS = (
    _in_field(
        "reasoning-content",
        GIVEN,
        "The whole answer arrives as reasoning_content.",
        stream(delta(role="assistant", content=None), *thoughts(ANSWER), delta("stop", content=None)),
    ),
    _in_field(
        "reasoning",
        "vllm-project/vllm#48863",
        "Newer servers call the field reasoning.",
        stream(delta(role="assistant", content=None), *thoughts(ANSWER, "reasoning"), delta("stop")),
    ),
    _in_field(
        "lm-studio",
        "lmstudio-ai/lmstudio-bug-tracker#1773",
        "The schema holds for the thoughts, and the content stays empty.",
        stream(delta(role="assistant", content=""), *thoughts(f"\n{_PRETTY}"), delta("stop", content="\n\n")),
    ),
    _in_field(
        "details",
        "lbds137/tzurot docs/reference/REASONING_MODEL_FORMATS.md",
        "OpenRouter sends a list of reasoning details.",
        stream(
            delta(role="assistant", content=""),
            *(
                delta(content="", reasoning_details=[{"type": "reasoning.text", "text": piece, "index": 0}])
                for piece in (ANSWER[:70], ANSWER[70:])
            ),
            delta("stop", content=""),
        ),
    ),
    _in_field(
        "whole",
        "vllm-project/vllm#19222",
        "The answer comes in one piece, its content is null.",
        Reply(dumped(whole(None, reasoning_content=ANSWER)).encode(), type="application/json"),
    ),
    _in_field(
        "both",
        "BigDawnGhost/wenyi#131",
        "Content and reasoning hold an answer each: the content counts.",
        stream(delta(role="assistant"), *thoughts(OTHER), *texts(ANSWER), delta("stop")),
        cells=_NEGATIVE,
    ),
    _in_field(
        "block-inside",
        "ddalcu/mlx-serve#331",
        "The reasoning field holds thoughts, the end of their block and the answer.",
        stream(delta(role="assistant"), *thoughts(f"{THOUGHT}\n</think>\n{ANSWER}", "reasoning"), delta("stop")),
    ),
    _in_field(
        "ollama",
        "vectorize-io/hindsight#3246",
        "Ollama puts the answer into its thinking field.",
        lines(line(message={"thinking": ANSWER[:60]}), line(message={"thinking": ANSWER[60:]}), last()),
        args=ollama(),
    ),
    asked(
        "field-thoughts-only",
        "answer in the reasoning field",
        "chandra447/pi-hermes-memory#197",
        "The reasoning field holds thoughts and no answer: the row is asked again, and no answer is made up.",
        first(1, stream(delta(role="assistant"), *thoughts(THOUGHT), delta("stop")), GOOD),
        answered=3,
        failed=0,
        requests=4,
        cells=_NEGATIVE,
    ),
)

# Reasoning that uses up the limit. The limit is raised once, for the whole run.

_EATEN = stream(delta(role="assistant"), *thoughts("Hmm, well. " * 20), delta("length"), usage(320, 320))


def _budget(case: str, source: str, about: str, rules: tuple[Rule, ...], **more: object) -> Case:
    return answers_all(
        f"budget-{case}", "reasoning uses up the limit", source, about, rules, **({"requests": 9} | more)
    )


_BUDGETS = (
    _budget("eaten", GIVEN, "Thoughts take the whole limit.", unless(GOOD, ({"below": 700}, _EATEN))),
    _budget(
        "hidden",
        GIVEN,
        "OpenAI's own reasoning models show no thoughts, and refuse two parameters.",
        unless(
            GOOD,
            (
                {"has": ["max_tokens"]},
                Reply(
                    b'{"error":{"message":"Unsupported parameter: \'max_tokens\' is not supported with this model. Use'
                    b' \'max_completion_tokens\' instead.","type":"invalid_request_error","param":"max_tokens",'
                    b'"code":"unsupported_parameter"}}',
                    400,
                    "application/json",
                ),
            ),
            (
                {"in": {"temperature": [0, 0.0]}},
                Reply(
                    b'{"error":{"message":"Unsupported value: \'temperature\' does not support 0 with this model. Only'
                    b' the default (1) value is supported.","type":"invalid_request_error","param":"temperature",'
                    b'"code":"unsupported_value"}}',
                    400,
                    "application/json",
                ),
            ),
            ({"below": 700}, stream(delta(role="assistant", content=""), delta("length"), usage(320, 320))),
        ),
    ),
    _budget(
        "unless-effort",
        GIVEN,
        "The server thinks the limit away unless it is told to think less, or the limit is high enough.",
        unless(
            GOOD,
            ({"in": {"reasoning_effort": ["none", "minimal", "low"]}}, GOOD),
            ({"is": {"chat_template_kwargs.enable_thinking": False}}, GOOD),
            ({"below": 700}, _EATEN),
        ),
    ),
    _budget(
        "stop",
        "elizaOS/eliza#8189",
        "The limit is used up, but the finish reason says stop.",
        unless(
            GOOD,
            ({"below": 700}, stream(delta(role="assistant", content=None), delta("stop", content=None), usage(320))),
        ),
    ),
    _budget(
        "half-answer",
        "jundot/omlx#3687",
        "Thoughts leave room for the beginning of the answer only.",
        unless(
            GOOD,
            (
                {"below": 900},
                stream(*thoughts(THOUGHT * 4), *texts(ANSWER[:60]), delta("length"), usage(320, 290)),
            ),
        ),
    ),
    _budget(
        "think-block",
        "kekzl/imp#1442",
        "The thoughts come as text, and their block never ends.",
        unless(GOOD, ({"below": 700}, says(f"<think>\n{THOUGHT * 8}", "length"))),
    ),
    _budget(
        "only-effort",
        "lenneTech/nest-server#607",
        "The model spends any limit on thoughts, and stops only when it is told not to think.",
        unless(GOOD, ({"in": {"reasoning_effort": [None, "low", "medium", "high"]}}, _EATEN)),
        requests=12,
    ),
    _budget(
        "ollama-gpt-oss",
        GIVEN,
        "gpt-oss ignores that it should not think, and thinks past the limit.",
        unless(
            GOOD_OLLAMA,
            (
                {"in": {"think": [False, None, True]}, "below": 700},
                lines(*(line(message={"thinking": "Hmm, well. "}) for _ in range(80)), last("length", count=320)),
            ),
        ),
        args=ollama(),
    ),
    asked(
        "budget-remembered",
        "reasoning uses up the limit",
        "",
        "After the first row every other row takes one request.",
        unless(GOOD, ({"below": 700}, _EATEN)),
        openai("twelve.jsonl"),
        answered=12,
        failed=0,
        requests=18,
    ),
)

# --thinking and --max-tokens

_OFF = {
    "any": [
        {"is": {"reasoning_effort": "none"}},
        {"is": {"chat_template_kwargs.enable_thinking": False}},
        {"is": {"think": False}},
    ]
}


def _thinking(case: str, source: str, about: str, level: str, rules: tuple[Rule, ...], **more: object) -> Case:
    args = ollama if case.startswith("ollama") else openai
    return answers_all(
        f"thinking-{case}", "--thinking", source, about, rules, args=args("three.jsonl", "--thinking", level), **more
    )


_THINKING = (
    _thinking("off", "", "Thinking is turned off.", "off", always(GOOD), sends=(_OFF,)),
    _thinking("low", "", "Thinking is kept short.", "low", always(GOOD), sends=({"is": {"reasoning_effort": "low"}},)),
    _thinking(
        "high",
        "",
        "Thinking may take long, so the answer's limit is higher than for an answer alone.",
        "high",
        always(GOOD),
        sends=({"is": {"reasoning_effort": "high"}, "from": 1000},),
    ),
    _thinking(
        "default",
        "",
        "The server's own way is left alone.",
        "default",
        always(GOOD),
        never=({"has": ["reasoning_effort"]}, {"has": ["chat_template_kwargs"]}, {"has": ["think"]}),
    ),
    _thinking(
        "ollama-off", "", "Ollama is told not to think.", "off", always(GOOD_OLLAMA), sends=({"is": {"think": False}},)
    ),
    _thinking(
        "ollama-low",
        "ollama/ollama#14726",
        "Ollama knows levels as words.",
        "low",
        always(GOOD_OLLAMA),
        sends=({"is": {"think": "low"}},),
    ),
    _thinking(
        "ollama-refused",
        "ollama/ollama server/routes.go",
        "A model that cannot think refuses the level, and is asked without it.",
        "low",
        unless(
            GOOD_OLLAMA,
            ({"has": ["think"]}, Reply(b'{"error":"\\"m\\" does not support thinking"}', 400, "application/json")),
        ),
        requests=4,
    ),
    _thinking(
        "groq",
        "earendil-works/pi#1745",
        "Groq takes only none and default for some models.",
        "low",
        unless(
            GOOD,
            (
                {"in": {"reasoning_effort": ["low", "medium", "high"]}},
                Reply(
                    b'{"error":{"message":"`reasoning_effort` must be one of `none` or `default`",'
                    b'"type":"invalid_request_error"}}',
                    400,
                    "application/json",
                ),
            ),
        ),
        requests=5,
    ),
    _thinking(
        "kimi",
        "Kilo-Org/cloud#3807",
        "A server has levels but no none.",
        "off",
        unless(
            GOOD,
            (
                {"is": {"reasoning_effort": "none"}},
                Reply(
                    b'{"error":{"message":"Unsupported value: \'reasoning_effort\' does not support \'none\' with this'
                    b" model. Supported values are: 'minimal', 'low', 'medium', and 'high'.\","
                    b'"type":"invalid_request_error"}}',
                    400,
                    "application/json",
                ),
            ),
        ),
        requests=5,
    ),
    _thinking(
        "litellm",
        "BerriAI/litellm#14163",
        "LiteLLM names the parameters that a provider does not know.",
        "low",
        unless(
            GOOD,
            (
                {"has": ["reasoning_effort"]},
                Reply(
                    b'{"error":{"message":"litellm.UnsupportedParamsError: groq does not support parameters:'
                    b" ['reasoning_effort'], for model=m. To drop these, set `litellm.drop_params=True`.\","
                    b'"type":"None","param":"None","code":"400"}}',
                    400,
                    "application/json",
                ),
            ),
        ),
        requests=5,
    ),
    _thinking(
        "extra-field",
        "Mistral's API, 422 for fields that it does not know",
        "A server refuses every field that it does not know, one at a time.",
        "off",
        unless(
            GOOD,
            (
                {"has": ["chat_template_kwargs"]},
                Reply(
                    b'{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body",'
                    b'"chat_template_kwargs"],"msg":"Extra inputs are not permitted","input":{"enable_thinking":false}}'
                    b']},"type":"invalid_request_error","param":null,"code":null}',
                    422,
                    "application/json",
                ),
            ),
        ),
        requests=5,
    ),
    answers_all(
        "max-tokens",
        "--max-tokens",
        "",
        "The answer's limit is what the user says.",
        unless(GOOD, ({"below": 2000}, _EATEN)),
        args=openai("three.jsonl", "--max-tokens", "2500"),
        sends=({"from": 2500},),
    ),
    answers_all(
        "max-tokens-ollama",
        "--max-tokens",
        "",
        "Ollama gets the limit as num_predict.",
        always(GOOD_OLLAMA),
        args=ollama("three.jsonl", "--max-tokens", "2500"),
        sends=({"from": 2500, "has": ["options.num_predict"]},),
    ),
)

# JSON out of prose: one fenced block, else the one balanced value that validates. Never a guess between two.


def _wrapped(case: str, source: str, about: str, text: str, **more: object) -> Case:
    return answers_all(
        f"json-{case}", "JSON out of prose", source, about, always(says(text)), **({"cells": _NEGATIVE} | more)
    )


_PYTHON = (
    "{'positive_aspect': None, 'main_complaint': 'late delivery', 'urgency': 'medium', 'sentiment': 'negative',"
    " 'summary': \"The customer's delivery came late.\"}"
)
_TRAILING = ANSWER[:-1] + ",\n}"
_CURLY = ANSWER.replace('"', "\u201c", 1).replace('"', "\u201d", 1)

_WRAPPED = (
    _wrapped(
        "preamble-fence",
        GIVEN,
        "A sentence, then a fence.",
        f"Here is the JSON you asked for:\n\n```json\n{_PRETTY}\n```",
    ),
    _wrapped("preamble", GIVEN, "A sentence, then the object.", f"Sure! Here is the analysis:\n{ANSWER}"),
    _wrapped("newlines", GIVEN, "Empty lines around the object.", f"\n\n\n{ANSWER}\n\n"),
    _wrapped("bom", GIVEN, "A byte order mark before the object.", f"\ufeff{ANSWER}"),
    _wrapped(
        "postscript",
        "Open-Historia/open-historia#353",
        "Prose with a stray brace stands on both sides.",
        f"I use the format {{like this}}.\n{ANSWER}\nLet me know if you need more :-}}",
    ),
    _wrapped(
        "fence-upper-case",
        "Open-Historia/open-historia#353",
        "The fence is labelled in capitals, and prose follows.",
        f"```JSON\n{_PRETTY}\n```\nThe sentiment is negative because of the delay.",
    ),
    _wrapped("fence-on-one-line", "", "The fence stands on the object's own line.", f"```json {ANSWER} ```"),
    _wrapped("fence-unlabelled", "", "The fence has no label and is indented.", f"  ```\n  {ANSWER}\n  ```"),
    _wrapped("fence-open", "jundot/omlx#3687", "The fence is never closed.", f"```json\n{ANSWER}\n"),
    _wrapped(
        "fence-among-others",
        "",
        "Of two fences one holds a Python call, the other one the answer.",
        f"```python\nprint('hello')\n```\n\n```json\n{ANSWER}\n```",
    ),
    _wrapped("label-without-fence", "", "The word json stands before the object.", f"json\n{ANSWER}"),
    _wrapped("trailing-comma", "ducroo/SICTIC-AI#37", "A comma stands before the closing brace.", _TRAILING),
    _wrapped("python-literals", "", "The object is a Python dict.", _PYTHON),
    _wrapped(
        "none-in-json",
        "",
        "Only the null is Python's.",
        ANSWER.replace("null", "None"),
    ),
    _wrapped("curly-quotes", "Open-Historia/open-historia#353", "Two of the quotes are typographic ones.", _CURLY),
    _wrapped(
        "line-break-in-string",
        "",
        "A string holds a line break that is not escaped.",
        ANSWER.replace("says that", "says\nthat"),
    ),
    _wrapped("wrapper", "phenobarbital/ai-parrot#338", "One key wraps the object.", dumped({"analysis": VALUES})),
    _wrapped("wrapper-twice", "", "Two keys wrap the object.", dumped({"response": {"result": VALUES}})),
    _wrapped("list", "", "The object is the only one of a list.", dumped([VALUES])),
    _wrapped("string", "", "The object is written as a JSON string.", dumped(ANSWER)),
    _wrapped(
        "schema-echo",
        "",
        "The values stand where the schema has its properties.",
        dumped({"type": "object", "properties": VALUES}),
    ),
    _wrapped(
        "tool-shape",
        "letta-ai/letta#269",
        "The model writes a call of a function as text.",
        dumped({"name": "analysis", "arguments": VALUES}),
    ),
    _wrapped(
        "twice-the-same",
        "letta-ai/letta#269",
        "The same object stands there twice, so there is nothing to guess.",
        f"{ANSWER}\n{ANSWER}",
    ),
    *(
        _wrapped(f"end-token-{name}", source, "A mark for the end of the text follows.", f"{ANSWER}{token}")
        for name, token, source in (
            ("im-end", "<|im_end|>", "acon96/home-llm#247"),
            ("eot", "<|eot_id|>", "FerrisMind/Oxide-Lab src/lib/chat/parser/constants.ts"),
            ("slash-s", "\n</s>", "hanamorix/companion-emergence#227"),
            ("end-of-turn", "<end_of_turn>\n", "Gemma's chat template"),
            ("endoftext", "<|endoftext|>", "FerrisMind/Oxide-Lab src/lib/chat/parser/constants.ts"),
            ("next-turn", "<|im_end|>\n<|im_start|>user\nOkay, so", "acon96/home-llm#247"),
        )
    ),
    _wrapped("start-token", "", "A mark for the beginning of the answer stands before it.", f"<|assistant|>\n{ANSWER}"),
    asked(
        "json-two-objects",
        "JSON out of prose",
        "the issue: never a guess between two",
        "Two objects contradict each other: the row is asked again.",
        first(1, says(f"It could be {OTHER} or rather {ANSWER}."), GOOD),
        answered=3,
        failed=0,
        requests=4,
        cells=_NEGATIVE,
    ),
    asked(
        "json-two-fences",
        "JSON out of prose",
        "the issue: never a guess between two",
        "Two fences contradict each other: the row is asked again.",
        first(1, says(f"```json\n{OTHER}\n```\nor\n```json\n{ANSWER}\n```"), GOOD),
        answered=3,
        failed=0,
        requests=4,
        cells=_NEGATIVE,
    ),
    asked(
        "json-prose-only",
        "JSON out of prose",
        "",
        "There is no object at all: each row is asked three times at most, and fails.",
        always(says("The customer is not happy about the delivery.")),
        exit=(3, 4),
        answered=0,
        requests=9,
        kinds=("parse",),
    ),
    asked(
        "json-repairs-are-counted",
        "JSON out of prose",
        "",
        "The summary says how many answers had to be repaired.",
        always(says(f"```json\n{_TRAILING}\n```")),
        answered=3,
        failed=0,
        requests=3,
        says=(("repair", "tidied", "cleaned"),),
    ),
    answers_all(
        "json-ollama-no-format",
        "JSON out of prose",
        GIVEN,
        "Ollama forgets the format when it is told not to think.",
        unless(
            GOOD_OLLAMA,
            ({"is": {"think": False}}, tells(f"Based on the feedback:\n\n```json\n{_PRETTY}\n```\n")),
        ),
        args=ollama(),
        requests=6,
    ),
)


def _labels(case: str, source: str, about: str, sentiment: str, urgency: str) -> Case:
    text = dumped(VALUES | {"sentiment": sentiment, "urgency": urgency})
    return answers_all(f"labels-{case}", "labels in another case", source, about, always(says(text)), cells=_NEGATIVE)


_LABELS = (
    _labels("capital", GIVEN, "Labels begin with a capital.", "Negative", "Medium"),
    _labels("upper-case", "basher83/Zammad-MCP#333", "Labels are written in capitals.", "NEGATIVE", "MEDIUM"),
    _labels("blanks", "", "Labels have blanks around them.", " negative ", "medium\n"),
    _labels("full-stop", "", "Labels end with a full stop.", "negative.", "Medium."),
    asked(
        "labels-unknown",
        "labels in another case",
        "",
        "A label that is none is not read as the nearest one: the row is asked again.",
        first(1, says(dumped(VALUES | {"sentiment": "neutral"})), GOOD),
        answered=3,
        failed=0,
        requests=4,
        cells=_NEGATIVE,
    ),
)

CASES: tuple[Case, ...] = (*_TEXTS, *_FIELDS, *_BUDGETS, *_THINKING, *_WRAPPED, *_LABELS)
