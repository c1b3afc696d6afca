"""More forms of streams, answers, waits and refused parameters that servers and gateways have."""

from __future__ import annotations

import json
import zlib
from typing import Any

from field.cases.common import answers_all, asked, ends_at_once, ollama, openai
from field.model import Case
from field.wire import (
    ANSWER,
    GOOD,
    GOOD_OLLAMA,
    JSON,
    NDJSON,
    OTHER,
    THOUGHT,
    VALUES,
    Headers,
    Reply,
    Rule,
    always,
    delta,
    dumped,
    events,
    first,
    last,
    line,
    lines,
    pieces,
    problem,
    refuses,
    says,
    stream,
    texts,
    thoughts,
    unless,
    whole,
)

_BODY = events([delta(role="assistant", content=""), *texts(ANSWER), delta("stop")])
_CHUNKS = [*texts(ANSWER), delta("stop")]
_SMILE = dumped(VALUES | {"summary": "The customer is sad \U0001f61e about the delay."})
_NEGATIVE = tuple((row, "sentiment", "negative") for row in range(3))


def _form(case: str, source: str, about: str, reply: Reply, **more: Any) -> Case:
    return answers_all(f"stream-{case}", "stream forms", source, about, always(reply), **more)


_FORMS = (
    _form(
        "document-then-done",
        "decolua/9router#3492",
        "A whole document is followed by the end mark of a stream.",
        Reply(dumped(whole(ANSWER)).encode() + b"data: [DONE]\n\n"),
    ),
    _form(
        "document-line-then-done",
        "decolua/9router#3492",
        "The same with an empty line between them.",
        Reply(dumped(whole(ANSWER)).encode() + b"\n\ndata: [DONE]\n\n"),
    ),
    _form(
        "message-grows-next-to-delta",
        "perplexityai/api-discussion#209",
        "Each chunk repeats the whole message so far next to its delta.",
        stream(
            *(
                {
                    "choices": [
                        {
                            "index": 0,
                            "delta": {"role": "assistant", "content": piece},
                            "message": {"role": "assistant", "content": ANSWER[: 12 * (number + 1)]},
                            "finish_reason": None,
                        }
                    ]
                }
                for number, piece in enumerate(pieces(ANSWER))
            ),
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {"role": "assistant", "content": ""},
                        "message": {"role": "assistant", "content": ANSWER},
                        "finish_reason": "stop",
                    }
                ]
            },
        ),
    ),
    _form(
        "keep-alive-chunks",
        "openai/openai-go#621",
        "Chunks without choices, pings and events without data keep the connection alive.",
        Reply(
            b'event: ping\ndata: {"type": "ping"}\n\nretry: 1000\n\n: PROCESSING\n\ndata: {"choices": []}\n\n'
            + _BODY.replace(b"\n\n", b'\n\nevent: keepalive\n\ndata: {"id": "c1", "choices": []}\n\n', 3)
        ),
    ),
    _form("done-twice", "", "[DONE] comes twice.", Reply(_BODY + b"data: [DONE]\n\n")),
    _form(
        "done-bare",
        "cline/cline#1786",
        "The end mark has no field name.",
        Reply(_BODY.replace(b"data: [DONE]", b"[DONE]")),
    ),
    _form("done-lower-case", "", "The end mark is in lower case.", Reply(_BODY.replace(b"[DONE]", b"[done]"))),
    _form("done-quoted", "", "The end mark is a JSON string.", Reply(_BODY.replace(b"[DONE]", b'"[DONE]"'))),
    _form(
        "carriage-returns",
        "the standard of server-sent events",
        "Lines end with CR.",
        Reply(_BODY.replace(b"\n", b"\r")),
    ),
    _form(
        "objects-without-newlines",
        "quack-ai/companion-vscode#76",
        "Chunks follow each other without anything between them.",
        Reply("".join(dumped(chunk) for chunk in _CHUNKS).encode(), type=NDJSON),
    ),
    _form(
        "objects-glued-in-one-event",
        "ggml-org/llama.cpp#14268",
        "Two chunks stand in one event.",
        Reply(
            f"data: {dumped(delta(content=ANSWER[:40]))}{dumped(delta(content=ANSWER[40:]))}\n\n".encode()
            + events([delta("stop")])
        ),
    ),
    _form(
        "pretty-events",
        "the standard of server-sent events",
        "Each chunk is written on several lines of data.",
        Reply(
            "".join(
                "".join(f"data: {text}\n" for text in json.dumps(chunk, indent=1).split("\n")) + "\n"
                for chunk in _CHUNKS
            ).encode()
            + b"data: [DONE]\n\n"
        ),
    ),
    _form(
        "list-of-chunks",
        "Google's native streams without alt=sse",
        "The chunks come as one JSON list.",
        Reply(json.dumps(_CHUNKS, indent=1).encode(), type=JSON),
    ),
    _form(
        "list-of-chunks-by-line",
        "Google's native streams without alt=sse",
        "The same list with a chunk on each line.",
        Reply(("[" + "\n,\n".join(dumped(chunk) for chunk in _CHUNKS) + "\n]").encode(), type=JSON),
    ),
    _form(
        "text-instead-of-delta",
        "LostRuins/koboldcpp, older text completions",
        "The choices have a text, as those of plain completions.",
        stream(
            *({"choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in pieces(ANSWER)),
            {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
        ),
    ),
    _form(
        "finish-object",
        "",
        "The finish reason is an object.",
        stream(
            *texts(ANSWER), {"choices": [{"index": 0, "delta": {}, "finish_reason": {"type": "stop", "matched": 2}}]}
        ),
    ),
    _form(
        "halves-of-a-character",
        "",
        "A character beyond the basic plane is escaped and cut between two chunks.",
        Reply(
            "".join(
                'data: {"choices":[{"index":0,"delta":{"content":"' + piece + '"},"finish_reason":null}]}\n\n'
                for piece in (
                    json.dumps(_SMILE)[1:-1].partition("\\ude1e")[0],
                    "\\ude1e",
                    json.dumps(_SMILE)[1:-1].partition("\\ude1e")[2],
                )
            ).encode()
            + events([delta("stop")])
        ),
        summaries=("sad \U0001f61e",),
    ),
    _form(
        "deflate",
        "",
        "A proxy compresses the stream in the other way.",
        Reply(zlib.compress(_BODY), headers=(("Content-Encoding", "deflate"),)),
    ),
    _form("created", "a gateway that says 201", "The status is 201.", Reply(_BODY, 201)),
    _form(
        "blank-lines-first",
        "a proxy that flushes its buffer",
        "Blank lines and blanks come first.",
        Reply(b"\n\n \n\n" + _BODY),
    ),
    _form(
        "ollama-one-document",
        "",
        "A proxy before Ollama sends one document on several lines.",
        Reply(
            json.dumps(
                json.loads(line(ANSWER, done=True, done_reason="stop", prompt_eval_count=700)), indent=2
            ).encode(),
            type=JSON,
        ),
        args=ollama(),
    ),
    _form(
        "ollama-no-reason",
        "Ollama before 0.1.38",
        "The last line has no reason.",
        lines(*(line(piece) for piece in pieces(ANSWER)), line(done=True)),
        args=ollama(),
    ),
    answers_all(
        "stream-empty-once",
        "stream forms",
        "preloop/preloop#121",
        "A 200 without a single byte is asked again.",
        first(1, Reply(b"")),
        requests=4,
    ),
    answers_all(
        "stream-only-comments",
        "stream forms",
        "openai/openai-go#651",
        "A stream of nothing but comments is asked again.",
        first(1, Reply(b": PROCESSING\n\n" * 3)),
        requests=4,
    ),
    answers_all(
        "stream-only-done",
        "stream forms",
        "BerriAI/litellm, failed generators",
        "A stream of nothing but its end is asked again.",
        first(1, Reply(b"data: [DONE]\n\n")),
        requests=4,
    ),
    answers_all(
        "stream-cut-in-the-document",
        "stream forms",
        "a proxy that gives up",
        "Half a document: it is asked again.",
        first(1, Reply(dumped(whole(ANSWER)).encode()[:120], type=JSON)),
        requests=4,
    ),
)


def _fault(case: str, source: str, *chunks: object) -> Case:
    return answers_all(
        f"inside-{case}",
        "errors inside a stream",
        source,
        "The server's own fault is asked again.",
        first(1, stream(*chunks)),
        requests=4,
    )


_HALF = texts(ANSWER)[:5]
_INSIDE = (
    _fault(
        "errors-list", "Cloudflare Workers AI", {"success": False, "errors": [{"code": 3040, "message": "Capacity"}]}
    ),
    _fault("errors-list-late", "Cloudflare Workers AI", *_HALF, {"errors": [{"message": "AiError: Internal error"}]}),
    _fault("code-and-msg", "FastChat", *_HALF, {"code": 50001, "msg": "internal error"}),
    _fault("fastchat", "lm-sys/FastChat", {"text": "**NETWORK ERROR DUE TO HIGH TRAFFIC.**", "error_code": 50004}),
    _fault("status-code", "Azure API Management", {"statusCode": 500, "message": "Internal server error"}),
    _fault(
        "detail-object", "LostRuins/koboldcpp", {"detail": {"msg": "Server is busy", "type": "service_unavailable"}}
    ),
    _fault("plain-event", "a gateway written in Go", *_HALF, "event: error\ndata: upstream timed out\n\n"),
    _fault("error-true", "a gateway written in Node", {"error": True, "message": "Worker crashed"}),
    _fault(
        "error-in-a-choice", "OpenRouter's API", {"choices": [{"index": 0, "error": {"code": 502, "message": "Bad"}}]}
    ),
    _fault(
        "exception", "lambda and other runtimes", {"errorMessage": "Task timed out", "errorType": "Runtime", "code": 1}
    ),
    answers_all(
        "inside-bad-gateway-page",
        "errors inside a stream",
        "nginx behind a gateway that has already said 200",
        "A web page stands in the middle of a stream.",
        first(1, Reply(events(_HALF, done=False) + b"<html><h1>504 Gateway Time-out</h1></html>\n")),
        requests=4,
    ),
    answers_all(
        "inside-ollama-object",
        "errors inside a stream",
        "a proxy before Ollama",
        "The error of a line is an object.",
        first(1, lines(line("{"), '{"error":{"message":"runner crashed","code":500}}\n'), GOOD_OLLAMA),
        args=ollama(),
        requests=4,
    ),
    ends_at_once(
        "inside-key",
        "errors inside a stream",
        "jgravelle/jmunch-mcp#5",
        "The wrong key is reported inside a stream.",
        always(stream({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})),
        "incorrect api key",
    ),
)


# Reasoning and JSON in the answer's text


def _text(case: str, kind: str, source: str, about: str, text: str, **more: Any) -> Case:
    return answers_all(case, kind, source, about, always(says(text)), **({"cells": _NEGATIVE} | more))


_DRAFT = f"{THOUGHT} A first draft is {OTHER} but that is not right."
_PRETTY = json.dumps(VALUES, indent=2)
_TAGS = (
    ("nested", "Vali-98/ChatterUI#503", f"<think><think>{_DRAFT}</think>more</think>{ANSWER}"),
    ("attributes", "open-webui/open-webui", f'<think duration="3" done="true">{_DRAFT}</think>{ANSWER}'),
    (
        "details",
        "open-webui/open-webui, reasoning as HTML",
        f'<details type="reasoning" done="true"><summary>Thought</summary>\n> {_DRAFT}\n</details>\n{ANSWER}',
    ),
    ("medgemma", "google-health/medgemma", f"<unused94>thought\n{_DRAFT}<unused95>{ANSWER}"),
    ("lfm", "marks named start and end", f"<|cot_start|>{_DRAFT}<|cot_end|>{ANSWER}"),
    ("minicpm", "OpenBMB/MiniCPM", f"<|thought_start|>\n{_DRAFT}\n<|thought_end|>\n{ANSWER}"),
    ("open-thoughts", "NovaSky-AI/SkyThought", f"<|begin_of_thought|>{_DRAFT}<|end_of_thought|>\n\n{ANSWER}"),
    ("plan", "agents' prompts", f"<plan>{_DRAFT}</plan>\n{ANSWER}"),
    ("cot", "fine-tuned models", f"<cot>{_DRAFT}</cot>\n{ANSWER}"),
    ("escaped", "gateways that escape HTML", f"&lt;think&gt;{_DRAFT}&lt;/think&gt;\n{ANSWER}"),
    ("spaced", "small models", f"< think >{_DRAFT}</ think >\n{ANSWER}"),
    ("box", "GLM-4.5V", f"<think>{_DRAFT}</think><|begin_of_box|>{ANSWER}<|end_of_box|>"),
    (
        "harmony-call",
        "openai/harmony, functions",
        f"<|channel|>analysis<|message|>{_DRAFT}<|end|><|channel|>commentary to=f <|constrain|>json<|message|>{ANSWER}",
    ),
    (
        "harmony-no-message",
        "lmstudio-ai/lmstudio-bug-tracker, leaked marks",
        f"<|channel|>analysis<|message|>{_DRAFT}<|end|><|start|>assistant<|channel|>final {ANSWER}",
    ),
)
_QUOTED = dumped(VALUES | {"summary": "The customer says that </think> stands in the manual."})
_NEARLY = (
    ("comment", "small models", _PRETTY.replace('"urgency"', '// how urgent it is\n  "urgency"')),
    ("block-comment", "small models", _PRETTY.replace('"medium",', '"medium", /* it\'s late */')),
    ("comma-missing", "small models", _PRETTY.replace('"medium",', '"medium"')),
    ("brace-missing", "small models", ANSWER[:-1]),
    ("brace-too-many", "small models", f"{ANSWER}}}"),
    ("double-braces", "prompts with templates", f"{{{ANSWER}}}"),
    ("boxed", "models trained on mathematics", f"$\\boxed{{{ANSWER}}}$"),
    ("quotes-not-escaped", "small models", ANSWER.replace("delivery came late", 'delivery was "too late" again')),
    ("markdown-escapes", "models that write Markdown", ANSWER.replace("_", "\\_")),
    ("bad-escape", "small models", ANSWER.replace("customer says", "customer\\'s note says")),
    ("all-escaped", "gateways that escape twice", ANSWER.replace('"', '\\"')),
    ("entities", "gateways that escape HTML", ANSWER.replace('"', "&quot;")),
    ("no-break-spaces", "models that write French", ANSWER.replace(": ", ":\u00a0")),
    ("wide-commas", "models that write Chinese", ANSWER.replace('", ', '"\uff0c')),
    (
        "keys-in-capitals",
        "small models",
        _PRETTY.replace('"sentiment"', '"Sentiment"').replace('"urgency"', '"URGENCY"'),
    ),
    ("keys-in-camel-case", "small models", _PRETTY.replace("main_complaint", "mainComplaint")),
    ("keys-with-blanks", "small models", _PRETTY.replace("main_complaint", "Main complaint")),
    ("same-twice-in-a-list", "small models", dumped([VALUES, VALUES])),
    ("tag-inside", "vllm-project/vllm#48690", f"<think>{THOUGHT}</think>{_QUOTED}"),
    ("tildes", "Markdown's other fence", f"~~~json\n{_PRETTY}\n~~~"),
    ("fence-title", "models that write Markdown", f'```json title="answer.json"\n{_PRETTY}\n```'),
    ("assignment", "models that write code", f"const result = {ANSWER};"),
    (
        "tool-call-tags",
        "Qwen's and Hermes' calls",
        f"<tool_call>\n{dumped({'name': 'a', 'arguments': VALUES})}\n</tool_call>",
    ),
    ("mistral-call", "Mistral's calls", f"[TOOL_CALLS][{dumped({'name': 'a', 'arguments': VALUES})}]"),
    ("output-tag", "prompts with tags", f"<output>\n{ANSWER}\n</output>"),
    ("control-character", "small models", ANSWER.replace("came late", "came\x0b late")),
)
_LABELS = (
    ("note", "negative (late delivery)", "medium"),
    ("bold", "**negative**", "medium"),
    ("list", ["negative"], ["medium"]),
    ("quoted", "'negative'", '"medium"'),
)

_TEXTS = (
    *(
        _text(f"reasoning-{name}", "reasoning text", source, "A block with a draft stands before the answer.", text)
        for name, source, text in _TAGS
    ),
    *(
        _text(f"json-{name}", "JSON out of prose", source, "The object is nearly right.", text)
        for name, source, text in _NEARLY
    ),
    *(
        _text(
            f"labels-{name}",
            "labels in another case",
            "small models",
            "Only the form of the labels is wrong.",
            dumped(VALUES | {"sentiment": sentiment, "urgency": urgency}),
        )
        for name, sentiment, urgency in _LABELS
    ),
    asked(
        "labels-two",
        "labels in another case",
        "",
        "Two labels in one field are none: the row is asked again.",
        first(1, says(dumped(VALUES | {"sentiment": "negative or mixed"})), GOOD),
        answered=3,
        failed=0,
        requests=4,
        cells=_NEGATIVE,
    ),
    asked(
        "json-key-missing",
        "JSON out of prose",
        "",
        "A field is missing: it is not made up, the row is asked again.",
        first(1, says(dumped({name: value for name, value in VALUES.items() if name != "summary"})), GOOD),
        answered=3,
        failed=0,
        requests=4,
        cells=_NEGATIVE,
    ),
    answers_all(
        "field-thinking-content",
        "answer in the reasoning field",
        "nhatbien/copilot-helper#7",
        "The field has yet another name, and holds thoughts only.",
        always(
            stream(*thoughts(THOUGHT, "thinking_content"), *thoughts(THOUGHT, "thought"), *texts(ANSWER), delta("stop"))
        ),
        cells=_NEGATIVE,
    ),
    answers_all(
        "call-ollama",
        "JSON in a tool call",
        "a proxy before Ollama",
        "Ollama's answer is the arguments of a call.",
        always(
            lines(
                line(message={"content": "", "tool_calls": [{"function": {"name": "analysis", "arguments": VALUES}}]}),
                last(),
            )
        ),
        args=ollama(),
    ),
    answers_all(
        "call-object",
        "JSON in a tool call",
        "gateways to Anthropic and Gemini",
        "The arguments are an object instead of a text, and the call has no index.",
        always(
            stream(
                delta(content="", tool_calls=[{"id": "t1", "function": {"name": "analysis", "arguments": VALUES}}]),
                delta("tool_calls"),
            )
        ),
    ),
    answers_all(
        "budget-usage-only",
        "reasoning uses up the limit",
        "Gemini's OpenAI endpoint",
        "Nothing but the token counts tells that thoughts took the limit: they are part of the total only.",
        unless(
            GOOD,
            (
                {"below": 700},
                stream(
                    delta("length", role="assistant"),
                    {"choices": [], "usage": {"prompt_tokens": 700, "completion_tokens": 0, "total_tokens": 1016}},
                ),
            ),
        ),
        requests=9,
    ),
    answers_all(
        "budget-cut-as-null",
        "reasoning uses up the limit",
        "vllm-project/vllm, content null",
        "The whole document has null as its content, and thoughts.",
        unless(
            GOOD,
            ({"below": 700}, Reply(dumped(whole(None, "length", reasoning_content=THOUGHT * 9)).encode(), type=JSON)),
        ),
        requests=9,
    ),
)


# How long to wait


def _wait(case: str, source: str, headers: Headers, message: str = "Slow down", requests: int = 4) -> Case:
    rules = (Rule(GOOD, times=1), Rule(refuses(429, problem(message), *headers), {"before_s": 1.0}), Rule(GOOD))
    about = "The server says how long to wait; who listens is refused once."
    return answers_all(f"wait-{case}", "rate limit", source, about, rules, requests=requests)


_WAITS = (
    _wait("words-in-header", "gateways written by hand", (("Retry-After", "2 seconds"),)),
    _wait("two-proxies", "two proxies add theirs", (("Retry-After", "2, 2"),)),
    _wait("quoted", "gateways written by hand", (("Retry-After", '"2"'),)),
    _wait("iso-duration", "Azure, ISO 8601", (("Retry-After", "PT2S"),)),
    _wait("clock", ".NET's TimeSpan", (("Retry-After", "00:00:02"),)),
    _wait("point-in-time", "gateways that send a time", (("Retry-After", "@IN_1_S@"),), requests=5),
    _wait("epoch-ms", "gateways that send a time", (("Retry-After", "@IN_1_S_MS@"),), requests=5),
    _wait("structured", "the draft for RateLimit headers", (("RateLimit", '"default";r=0;t=2'),)),
    _wait("structured-words", "an older draft", (("RateLimit", "limit=10, remaining=0, reset=2"),)),
    _wait("kong", "Kong, rate-limiting", (("X-RateLimit-Remaining-Minute", "0"), ("RateLimit-Reset", "2"))),
    _wait("only-reset", "gateways with one header", (("X-RateLimit-Reset", "2"),)),
    _wait("words-minutes", "Azure API Management", (), "Rate limit is exceeded. Try again in 2 seconds."),
    _wait(
        "moonshot", "Moonshot's API", (), "request reached organization max RPM: 3, please try again after 2 seconds"
    ),
    _wait("chinese", "Chinese gateways", (), "请求过于频繁,请 2 秒后重试"),
)


# Parameters that a server does not take


def _given_up(case: str, source: str, when: dict[str, Any], status: int, body: Any, requests: int = 4) -> Case:
    about = "A parameter is given up once, for the whole run."
    return answers_all(
        f"parameter-{case}",
        "refused parameters",
        source,
        about,
        unless(GOOD, (when, refuses(status, body))),
        requests=requests,
    )


def _thinking(case: str, source: str, level: str, values: list[str], message: str, status: int = 400) -> Case:
    rules = unless(GOOD, ({"in": {"reasoning_effort": values}}, refuses(status, problem(message))))
    about = "A level of thinking is taken back when the server does not know it."
    return answers_all(
        f"thinking-{case}",
        "--thinking",
        source,
        about,
        rules,
        args=openai("three.jsonl", "--thinking", level),
        requests=5,
    )


_STREAMS = {"is": {"stream": True}}
_SCHEMA = {"is": {"response_format.type": "json_schema"}}

_PARAMETERS = (
    _given_up(
        "stream",
        "ai-genie/chatgpt-vscode#132",
        _STREAMS,
        400,
        {"message": "Streaming completion is not support yet, please remove 'stream' key value in the payload."},
    ),
    _given_up(
        "stream-azure", "langgenius/dify#9591", _STREAMS, 403, {"message": "Streaming requests are not yet allowed."}
    ),
    _given_up(
        "stream-verified",
        "OpenAI's API, organizations that are not verified",
        _STREAMS,
        400,
        problem("Your organization must be verified to stream this model.", param="stream", code="unsupported_value"),
    ),
    _given_up(
        "schema-xgrammar",
        "vllm-project/vllm, xgrammar",
        _SCHEMA,
        400,
        {
            "object": "error",
            "message": "The provided JSON schema contains features not supported by xgrammar.",
            "code": 400,
        },
    ),
    _given_up(
        "schema-keyword",
        "Cerebras' API, strict schemas",
        _SCHEMA,
        422,
        {"message": "Unsupported keyword 'maxLength' in the schema", "param": None},
    ),
    _given_up(
        "schema-500",
        "ollama/ollama, OpenAI's protocol",
        _SCHEMA,
        500,
        problem("invalid JSON schema in format", type="api_error"),
    ),
    _given_up(
        "temperature-one",
        "Moonshot's API, thinking models",
        {"in": {"temperature": [0, 0.0]}},
        400,
        problem("invalid temperature: only 1 is allowed for this model", type="invalid_request_error"),
    ),
    _given_up(
        "temperature-range",
        "Zhipu's API, code 1213",
        {"in": {"temperature": [0, 0.0]}},
        400,
        problem("temperature should be in the range of (0.0, 1.0]", code="1213"),
    ),
    _thinking("ollama-openai", "ollama/ollama, OpenAI's protocol", "low", ["low"], '"m" does not support thinking'),
    _thinking(
        "ollama-openai-level",
        "ollama/ollama, OpenAI's protocol",
        "low",
        ["low"],
        'think value "low" is not supported for this model',
    ),
    _thinking(
        "openrouter-mandatory",
        "OpenRouter's API",
        "off",
        ["none"],
        "Reasoning is mandatory for this endpoint and cannot be disabled.",
    ),
    _thinking(
        "gemini-pro",
        "Gemini's OpenAI endpoint",
        "off",
        ["none"],
        "Budget 0 is invalid. This model only works in thinking mode.",
    ),
    answers_all(
        "parameter-system-role",
        "refused parameters",
        "Gemma's chat template",
        "The chat template takes no system message: its text goes to the user's.",
        unless(
            GOOD,
            (
                {"system": True},
                refuses(
                    400,
                    {"object": "error", "message": "System role not supported", "type": "BadRequestError", "code": 400},
                ),
            ),
        ),
        requests=4,
        sends=({"system": False, "prompt": ["You analyse customer feedback"]},),
    ),
    answers_all(
        "parameter-system-gemini",
        "refused parameters",
        "Gemini's API, Gemma models",
        "The same in Google's words.",
        unless(
            GOOD,
            (
                {"system": True},
                refuses(
                    400,
                    [{"error": {"code": 400, "message": "Developer instruction is not enabled for models/gemma-3-4b"}}],
                ),
            ),
        ),
        requests=4,
    ),
    answers_all(
        "parameter-two",
        "refused parameters",
        "gateways with a strict schema",
        "A server refuses two parameters one after the other.",
        unless(
            GOOD,
            ({"has": ["stream_options"]}, refuses(400, problem("Unknown parameter: stream_options"))),
            (_SCHEMA, refuses(400, problem("response_format.json_schema is not supported"))),
        ),
        requests=5,
    ),
)

CASES: tuple[Case, ...] = (*_FORMS, *_INSIDE, *_TEXTS, *_WAITS, *_PARAMETERS)
