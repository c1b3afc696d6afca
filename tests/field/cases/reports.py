"""Public reports of several kinds that were searched out later: servers and gateways first, then files."""

# ruff: noqa: E501 - servers' words and exports are shown as they are

from __future__ import annotations

import gzip
import json
from typing import Any

from field.cases.common import TWELVE, answers_all, asked, ends_at_once, openai, scripted
from field.model import Case, Expect, Put, Run
from field.wire import (
    ANSWER,
    GOOD,
    HTML,
    JSON,
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
    pieces,
    problem,
    refuses,
    stream,
    texts,
    thoughts,
    unless,
    usage,
    web_page,
    whole,
)

# The answer's limit is higher than the server allows.

_LIMITS = (
    (
        "openai",
        "algorithmicsuperintelligence/optillm#4",
        400,
        "max_tokens is too large: 8192. This model supports at most 3000 completion tokens, whereas you provided 8192.",
    ),
    (
        "deepseek",
        "deepseek-ai/DeepSeek-V2#34",
        400,
        "Invalid max_tokens value, the valid range of max_tokens is [1, 3000]",
    ),
    (
        "anthropic",
        "anthropics/claude-code#24451",
        400,
        "max_tokens: 8192 > 3000, which is the maximum allowed number of output tokens for m",
    ),
    (
        "groq",
        "fakerybakery/openbridge#1",
        400,
        "`max_completion_tokens` must be less than or equal to `3000`, the maximum value for `max_completion_tokens` is less than the `context_window` for this model",
    ),
    (
        "dashscope",
        "DashScope's API, range of max_tokens",
        400,
        "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 3000]",
    ),
    ("scaleway", "scaleway/docs-content#4858", 416, "max_completion_tokens is limited for this model to 3000"),
    (
        "bedrock",
        "Amazon Bedrock, maximum tokens",
        400,
        "The maximum tokens you requested exceeds the model limit of 3001. Try again with a maximum tokens value that is lower than 3001.",
    ),
    (
        "gemini",
        "Vertex AI, maxOutputTokens",
        400,
        "Unable to submit request because it has a maxOutputTokens value of 8192 but the supported range is from 1 (inclusive) to 3001 (exclusive). Update the value and try again.",
    ),
    (
        "vllm",
        "vllm-project/vllm#42474",
        400,
        "This model's maximum context length is 4096 tokens. However, you requested 8192 output tokens and your prompt contains at least 1096 input tokens, for a total of at least 9288 tokens.",
    ),
    (
        "vllm-older",
        "ogx-ai/ogx#4534",
        400,
        "This model's maximum context length is 4096 tokens. However, you requested 9288 tokens (1096 in the messages, 8192 in the completion). Please reduce the length of the messages or completion.",
    ),
    (
        "vllm-sum",
        "vllm-project/vllm, max_tokens",
        400,
        "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4096 tokens and your request has 1096 input tokens (8192 > 4096 - 1096).",
    ),
)
_THINKS = stream(*thoughts(THOUGHT), delta("length"), usage(400, 390))


def _limits() -> tuple[Case, ...]:
    """The user's limit and one that was raised for reasoning; a limit that depends on the row is learnt for each row."""
    return (
        *(
            answers_all(
                f"limit-{name}",
                "refused parameters",
                source,
                "The server allows fewer tokens for an answer than --max-tokens says.",
                unless(GOOD, ({"from": 3001}, refuses(status, problem(words)))),
                args=openai("three.jsonl", "--max-tokens", "8192"),
                requests=6 if name.startswith("vllm") else 4,
                sends=({"from": 3000},),
            )
            for name, source, status, words in _LIMITS
        ),
        answers_all(
            "limit-raised-for-reasoning",
            "reasoning uses up the limit",
            "chathub-dev/chathub#1222",
            "The limit is raised for reasoning beyond what the server allows.",
            unless(_THINKS, ({"from": 3001}, refuses(400, problem(_LIMITS[2][3]))), ({"from": 1500}, GOOD)),
            requests=9,
        ),
    )


# Parameters and parts of a request that are given up once.

_INVALID = [{"error": {"code": 400, "message": "Request contains an invalid argument.", "status": "INVALID_ARGUMENT"}}]
_SCHEMAS: tuple[tuple[str, str, int, Any], ...] = (
    ("invalid-argument", "microsoft/autogen#6069", 400, _INVALID),
    (
        "invalid-argument-wrapped",
        "lbjlaq/Antigravity-Manager#1942",
        400,
        {"error": {"code": 400, "message": json.dumps(_INVALID[0], indent=2), "status": "UPSTREAM_ERROR"}},
    ),
    ("bare", "a gateway that says no more than its status", 400, "Bad Request"),
    (
        "guided",
        "NVIDIA NIM, guided_json",
        500,
        {"object": "error", "message": "guided_json is not supported", "code": 500},
    ),
    (
        "minimax",
        "MiniMax's API, response_format",
        200,
        {
            "base_resp": {
                "status_code": 2013,
                "status_msg": "invalid params, response_format only supports json_schema for MiniMax-Text-01",
            },
            "choices": None,
        },
    ),
    (
        "stream",
        "cloudflare/agents#1685",
        400,
        {
            "errors": [
                {
                    "message": "AiError: AiError: Invalid input: JSON Schema mode is not supported with stream mode.",
                    "code": 5023,
                }
            ],
            "success": False,
            "result": {},
        },
    ),
    (
        "min-length",
        "GoogleCloudPlatform/vertex-ai-samples#3618",
        501,
        {
            "error": {
                "code": 501,
                "message": "Unable to submit request because one or more response schemas specified unsupported field min_length.",
                "status": "UNIMPLEMENTED",
            }
        },
    ),
    (
        "extra-input",
        "Anthropic's OpenAI endpoint",
        400,
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "response_format: Extra inputs are not permitted"},
        },
    ),
    (
        "extraneous-key",
        "Amazon Bedrock's OpenAI endpoint",
        400,
        {
            "message": "Malformed input request: #: extraneous key [response_format] is not permitted, please reformat your input and try again."
        },
    ),
    (
        "unknown-field",
        "Databricks, model serving",
        400,
        {"error_code": "BAD_REQUEST", "message": 'Bad request: json: unknown field "response_format"\n'},
    ),
    (
        "drop-params",
        "BerriAI/litellm, UnsupportedParamsError",
        400,
        problem(
            "litellm.UnsupportedParamsError: bedrock does not support parameters: ['response_format'], for model=m. To drop these, set `litellm.drop_params=True`",
            code="400",
        ),
    ),
    (
        "api-version",
        "Azure OpenAI, older api-version",
        400,
        problem("response_format value as json_schema is enabled only for api versions 2024-08-01-preview and later"),
    ),
    (
        "states",
        "Gemini's API, schemas",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The specified schema produces a constraint that has too many states for serving.",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
)


def _replied(status: int, body: Any) -> Reply:
    """A refusal, or an error in a 200."""
    if status == 200:
        return Reply(dumped(body).encode(), type=JSON)
    return refuses(status, body, type="text/plain" if isinstance(body, str) else JSON)


_PARAMETERS = (
    *(
        answers_all(
            f"given-up-{name}",
            "refused parameters",
            source,
            "The server cannot take the schema: it goes to the prompt.",
            unless(GOOD, ({"is": {"response_format.type": "json_schema"}}, _replied(status, body))),
            requests=4,
        )
        for name, source, status, body in _SCHEMAS
    ),
    *(
        answers_all(
            f"parameter-{name}", "refused parameters", source, about, unless(GOOD, (when, _replied(status, body))), requests=4
        )
        for name, source, about, when, status, body in (
            ("temperature-deprecated", "RooCodeInc/Roo-Code#12162", "A model takes no temperature any more.", {"has": ["temperature"]}, 400, problem("`temperature` is deprecated for this model.", type="invalid_request_error")),
            ("system-o1", "janhq/jan#4392", "A model takes no system message.", {"system": True}, 400, problem("Unsupported value: 'messages[0].role' does not support 'system' with this model.", param="messages[0].role", code="unsupported_value")),
            ("system-template", "Mistral's chat templates", "The template fails for a system message: 500.", {"system": True}, 500, problem("Only user, assistant and tool roles are supported, got system.")),
        )
    ),
)  # fmt: skip

# The answer in unusual places.

_SUMMARY = ('{"main_complaint": "late", "positive_aspect": null, "urgency": "medium", "sentiment": "negative", "summary": "It came ', 14, ' days late."}')  # fmt: skip
_REASONS = [{"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]}]


def _streamed(case: str, source: str, about: str, *chunks: object, done: bool = True, **more: Any) -> Case:
    return answers_all(case, "stream forms", source, about, always(stream(*chunks, done=done)), **more)


def _document(case: str, source: str, about: str, body: object) -> Case:
    return answers_all(case, "stream forms", source, about, always(Reply(dumped(body).encode(), type=JSON)))


_PLACES = (
    _streamed("stream-number", "cloudflare/ai#651", "Tokens of digits arrive as numbers.", *(delta(content=one) for one in _SUMMARY), delta("stop"), summaries=("14 days",) * 3),
    _streamed("stream-object", "cloudflare/workers-sdk#12398", "JSON mode sends the object itself, not its text.", delta(content=VALUES), delta("stop")),
    _document("stream-object-whole", "cloudflare/workers-sdk#12398", "The same in one piece.", {"choices": [{"index": 0, "message": {"role": "assistant", "content": VALUES}, "finish_reason": "stop"}]}),
    _streamed("stream-reasoning-parts", "databricks/appkit#559", "The content is a list, whose first parts are reasoning.", delta(content=_REASONS), *(delta(content=[{"type": "text", "text": one}]) for one in pieces(ANSWER)), delta("stop")),
    _streamed("stream-strings", "Mistral's and Cohere's SDKs, lists as content", "The content is a list of texts.", *(delta(content=[one]) for one in pieces(ANSWER)), delta("stop")),
    _streamed("stream-reasoning-object", "envoyproxy/ai-gateway#1222", "The reasoning is an object with a text.", *(delta(reasoning_content={"text": one}) for one in pieces(THOUGHT)), delta(reasoning_content={"signature": "abc"}), *texts(ANSWER), delta("stop")),
    _streamed("stream-answer-in-reasoning-object", "envoyproxy/ai-gateway#1222", "The same, and the answer is in it.", *(delta(reasoning_content={"text": one}) for one in pieces(ANSWER)), delta("stop")),
    _streamed("stream-snowflake", "tidyverse/ellmer#533", "Each text stands three times, and only the token counts tell the end.", *({"choices": [{"delta": {"type": "text", "content": one, "content_list": [{"type": "text", "text": one}], "text": one}}], "usage": {}} for one in pieces(ANSWER)), {"choices": [{"delta": {"type": "text", "content_list": [{"type": "text", "text": ""}], "text": ""}}], "usage": {"prompt_tokens": 700, "completion_tokens": 60, "total_tokens": 760}}, done=False),
    _streamed("stream-no-delta-at-the-end", "osaurus-ai/osaurus#2150", "The last chunk has no delta.", *texts(ANSWER), {"choices": [{"index": 0, "finish_reason": "stop"}]}),
    _streamed("stream-obfuscation", "dongri/openai-api-rs#186", "Each chunk has a field of random letters.", *(delta(content=one) | {"obfuscation": "YhS7A"} for one in pieces(ANSWER)), delta("stop")),
    _document("stream-wrapped", "NousResearch/hermes-agent#90044", "The document stands under data.", {"success": True, "data": whole(ANSWER)}),
    _document("stream-wrapped-code", "smallmain/vscode-unify-chat-provider#71", "The document stands under data, next to a code and a message.", {"code": 0, "msg": "ok", "data": whole(ANSWER)}),
    _document("stream-wrapped-result", "Cloudflare's API, result", "The document stands under result.", {"success": True, "errors": [], "messages": [], "result": whole(ANSWER)}),
    _document("stream-wrapped-list", "gateways that answer a batch of one", "The document is the only one of a list.", [whole(ANSWER)]),
    _document("stream-wrapped-text", "AWS Lambda behind a gateway, body as a text", "The document is a text inside an object.", {"statusCode": 200, "body": dumped(whole(ANSWER))}),
)  # fmt: skip

_PROTOCOLS = tuple(
    ends_at_once(
        f"protocol-{name}",
        "no /v1",
        source,
        "Something answers, but not with a chat completion: one line shows what, and the run ends.",
        always(reply),
        ("chat completion", "choices"),
    )
    for name, source, reply in (
        ("guardrails", "NVIDIA-NeMo/Guardrails#1672", Reply(dumped({"messages": [{"role": "assistant", "content": ANSWER}]}).encode(), type=JSON)),
        ("responses", "langchain-ai/langchain#35236", stream({"type": "response.created", "response": {}}, {"type": "response.output_text.delta", "delta": "{"}, done=False)),
        ("ollama", "SillyTavern/SillyTavern#5128", lines(line(ANSWER), last())),
        ("workers-ai", "cloudflare/cloudflare-docs#12195", stream(*({"response": one} for one in pieces(ANSWER)))),
        ("completion", "ggml-org/llama.cpp#8775", stream(*({"content": one, "stop": False} for one in pieces(ANSWER)), {"content": "", "stop": True}, done=False)),
    )
)  # fmt: skip


def _ending(name: str, source: str, kind: str, requests: int) -> Case:
    about = f"The answer ends half-way, which is called {name}."
    rules = always(stream(*texts(ANSWER[:40]), delta(name)))
    case = f"finish-{''.join(one if one.isalnum() else '-' for one in name).lower()}-r"
    return asked(case, "finish reasons", source, about, rules, exit=3, answered=0, failed=3, kinds=(kind,), requests=requests)  # fmt: skip


_REASONED = (
    _ending("max-tokens", "gateways that write finish reasons with a hyphen", "length", 9),
    _ending("max_new_tokens", "huggingface/text-generation-inference, limits", "length", 9),
    _ending("incomplete", "BerriAI/litellm#34352", "length", 9),
    _ending("token_limit_reached", "servers' own words", "length", 9),
    _ending("content-filter", "NousResearch/hermes-agent#55695", "content-filter", 3),
    _ending("SAFETY_VIOLATION", "openstory-so/openstory#1309", "content-filter", 3),
    _ending("guardrail", "guardrails in front of a model", "content-filter", 3),
    answers_all("finish-engine-error-r", "finish reasons", "vllm-project/vllm, finish_reason error", "The engine's error is a finish reason: it costs no attempt at a good answer.", first(2, stream(*texts(ANSWER[:40]), delta("engine_error"))), requests=5),
)  # fmt: skip

# HTTP itself.

_OK = "HTTP/1.1 200 OK\nContent-Type: text/event-stream"


def _raw(head: str, body: bytes) -> tuple[Rule, ...]:
    return always(Reply(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body, end="raw"))


def _chunked(body: bytes) -> bytes:
    parts = (body[at : at + 97] for at in range(0, len(body), 97))
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _transfer(case: str, source: str, about: str, head: str, body: bytes) -> Case:
    return answers_all(f"http-{case}", "HTTP", source, about, _raw(head, body))


_EVENTS = GOOD.body
_HTTP = (
    _transfer("1-0", "RFC 9112, messages that end with the connection", "HTTP/1.0 without a length.", "HTTP/1.0 200 OK\nContent-Type: text/event-stream", _EVENTS),
    _transfer("no-length", "RFC 9112, messages that end with the connection", "Neither a length nor chunks.", _OK, _EVENTS),
    _transfer("no-last-chunk", "proxies that cut the last chunk", "The end of the chunks is missing, [DONE] is not.", f"{_OK}\nTransfer-Encoding: chunked", _chunked(_EVENTS)[:-5]),
    _transfer("early-hints", "RFC 8297, 103", "An interim response comes first.", f"HTTP/1.1 103 Early Hints\nLink: </x>; rel=preload\n\n{_OK}\nTransfer-Encoding: chunked", _chunked(_EVENTS)),
    _transfer("long-header", "Rongronggg9/RSS-to-Telegram-Bot#705", "A header has 12,000 characters.", f"{_OK}\nContent-Security-Policy: {'x' * 12_000}\nTransfer-Encoding: chunked", _chunked(_EVENTS)),
    _transfer("length-too-long", "servers that count characters as bytes", "The length is larger than the body.", f"{_OK}\nContent-Length: {len(_EVENTS) + 500}", _EVENTS),
    _transfer("x-gzip", "RFC 9110, x-gzip", "The older name of gzip.", f"{_OK}\nContent-Encoding: x-gzip\nTransfer-Encoding: chunked", _chunked(gzip.compress(_EVENTS))),
    _transfer("gzip-unsaid", "proxies that drop Content-Encoding", "The body is compressed, and no header says so.", f"{_OK}\nTransfer-Encoding: chunked", _chunked(gzip.compress(_EVENTS))),
    _transfer("gzip-unmade", "proxies that unpack and keep Content-Encoding", "A header says gzip, and the body is plain.", f"{_OK}\nContent-Encoding: gzip\nTransfer-Encoding: chunked", _chunked(_EVENTS)),
    ends_at_once("http-squeezed", "HTTP", "Caddy: encode zstd", "A proxy compresses in a way that nobody asked for: one line says so.", _raw(f"{_OK}\nContent-Encoding: zstd\nTransfer-Encoding: chunked", _chunked(b"\x28\xb5\x2f\xfd" * 20)), "zstd"),
    ends_at_once("http-length-and-chunks", "HTTP", "timoklimmer/powerproxy-aoai#53", "A proxy sends two lengths, which is no valid HTTP: one line says so.", _raw(f"{_OK}\nTransfer-Encoding: chunked\nContent-Length: 9000", _chunked(_EVENTS)), "not valid HTTP", requests=12),
    ends_at_once("http-none", "HTTP", "another service on the port", "What answers there is no web server.", always(Reply(b"SSH-2.0-OpenSSH_9.6\r\n", end="raw")), "not valid HTTP", requests=12),
    ends_at_once("http-to-https-go", "no /v1", "Go: net/http", "The address lacks the s of https.", always(refuses(400, "Client sent an HTTP request to an HTTPS server.\n", type="text/plain")), "HTTPS server"),
    ends_at_once("http-to-https-nginx", "no /v1", "nginx, 497", "The same behind nginx, whose words are a page's title.", always(refuses(400, web_page("400 The plain HTTP request was sent to HTTPS port"), type=HTML)), "HTTPS port"),
    *(
        ends_at_once(f"page-of-{name}", kind, source, "A page's title says who answers.", always(refuses(status, web_page(title), type=HTML)), word)
        for name, kind, source, status, title, word in (
            ("company", "wrong key", "a company's proxy", 403, "Internet Security by Zscaler", "Zscaler"),
            ("cloudflare", "wrong key", "forpublicai/platform.publicai.co#8", 403, "Attention Required! | Cloudflare", "Attention Required"),
            ("ngrok", "no /v1", "ngrok, ERR_NGROK_3200", 404, "The endpoint x.ngrok-free.app is offline", "is offline"),
        )
    ),
    answers_all("redirect-slash", "no /v1", "Kaoruha/GinkGO#5389", "A redirect adds a slash to the path on the same server.", unless(refuses(307, "", ("Location", "chat"), type=""), ({"path": "/completions/"}, GOOD), ({"path": "/completions"}, refuses(307, "", ("Location", "completions/"), type=""))), requests=4),
    ends_at_once("redirect-other", "no /v1", "Caddy, Traefik: redirects to https", "A redirect to another address: it is named as --base-url.", always(refuses(308, "", ("Location", "https://models.example/api/v1/chat/completions"), type="")), "--base-url https://models.example/api/v1"),
    asked("address-query", "no /v1", "Security-Onion-Solutions/securityonion#15841", "Azure's addresses have a query.", unless(refuses(404, problem("Resource not found", code="404")), ({"path": "/openai/deployments/d/chat/completions?api-version=2024-10-21"}, GOOD)), openai(base="{url}/openai/deployments/d?api-version=2024-10-21"), answered=3, failed=0, requests=3),
    *(
        asked(f"key-{name}", "wrong key", source, "The variable holds the key with something around it.", unless(refuses(401, problem("Incorrect API key provided", code="invalid_api_key")), ({"key": "sk-field"}, GOOD)), answered=3, failed=0, requests=3, env={"OPENAI_API_KEY": key})
        for name, source, key in (
            ("quoted", "letta-ai/letta#3069", '"sk-field"'),
            ("quoted-once", "joemccann/radon#184", "'sk-field'"),
            ("line-break", "echo KEY > FILE", "sk-field\r\n"),
        )
    ),
)  # fmt: skip

# Servers that are not ready, and names that are not there.

_SOON = tuple(
    answers_all(
        f"soon-r-{name}",
        "a server that is not ready",
        source,
        "The server fails twice, and is asked again.",
        (Rule(GOOD, times=1), Rule(_replied(status, body), times=2), Rule(GOOD)),
        requests=5,
    )
    for name, source, status, body in (
        ("nim-degraded", "diegosouzapw/OmniRoute#12685", 400, {"status": 400, "title": "Bad Request", "detail": "Function id '6f0b': DEGRADED function cannot be invoked"}),
        ("nim-529", "Alishahryar1/free-claude-code#1035", 529, ""),
        ("model-runner", "docker/model-runner#591", 503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}),
        ("model-runner-crash", "docker/model-runner#479", 500, "unable to load runner: error waiting for runner to be ready: llama.cpp terminated unexpectedly"),
        ("local-ai", "mudler/LocalAI#1664", 500, {"error": {"code": 500, "message": "could not load model: rpc error: code = Unavailable desc = error reading from server: EOF", "type": ""}}),
        ("misdirected", "RFC 9110, 421", 421, ""),
        ("accepted", "NVIDIA Cloud Functions, 202", 202, ""),
        ("tunnel", "Cloudflare Tunnel, 530", 530, "error code: 1033"),
    )
)  # fmt: skip
_MODELS = tuple(
    ends_at_once(f"model-r-{name}", "unknown model", source, "The model is not there; the message names those that are.", always(refuses(status, body)), "llama3.1-8b", args=openai(TWELVE, model="llama-3.1-8b"), models=("llama3.1-8b", "other"))
    for name, source, status, body in (
        ("router", "ggml-org/llama.cpp, router mode", 404, {"error": {"code": 404, "message": "model 'llama-3.1-8b' not found", "type": "not_found_error"}}),
        ("xinference", "xorbitsai/inference#1005", 400, {"detail": "Model not found in the model list, uid: llama-3.1-8b"}),
        ("litellm-name", "BerriAI/litellm#3142", 400, problem("400: {'error': 'Invalid model name passed in model=llama-3.1-8b'}", type="None", param="None", code=400)),
        ("not-chat", "truefoundry/models#846", 404, {"status": "failure", "message": "openai error: This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to use v1/completions?"}),
    )
)  # fmt: skip

# Files.

_LATE, _GOOD = "It took two weeks to arrive.", "I love it and thank you so much."


def _read(case: str, kind: str, source: str, about: str, name: str, content: str, *flags: str, encoding: str = "utf-8", **expect: Any) -> Case:  # fmt: skip
    """A case with one file, whose two rows say that it took two weeks, and that somebody loves it."""
    output = "out.csv" if name.endswith((".csv", ".tsv")) else "out.jsonl"
    usual: dict[str, Any] = {"exit": 0, "rows": 2, "answered": 2, "failed": 0, "summaries": ("two weeks", "love it")}
    put = Put(name=name, content=content, encoding=encoding)
    run = Run(args=scripted(name, *flags, output=output), output=output, expect=Expect(**(usual | expect)))
    return Case(id=f"read-{case}", kind=kind, source=source, about=about, steps=(put, run))


def _refused(case: str, kind: str, source: str, about: str, name: str, content: str, *says: Any, **more: Any) -> Case:
    expect: dict[str, Any] = {"exit": 2, "rows": 0, "answered": 0, "summaries": (), "talk": 4, "says": says}
    return _read(case, kind, source, about, name, content, **(expect | more))


def _json(case: str, source: str, about: str, value: object, name: str = "in.json", **expect: Any) -> Case:
    return _read(case, "forms of JSON", source, about, name, json.dumps(value, indent=1), **expect)


def _two(make: Any) -> list[Any]:
    return [make("1", _LATE), make("2", _GOOD)]


def _jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


_JSON = (
    _json("slack", "Slack's export, a day of a channel", "Messages have texts and blocks.", _two(lambda n, text: {"type": "message", "user": f"U{n}", "text": text, "ts": f"17092872{n}0.000100", "blocks": [{"type": "rich_text", "elements": []}]}), name="2024-03-01.json"),
    _json("discord", "Tyrrrz/DiscordChatExporter, JSON", "Messages stand under one name, next to the server and the channel.", {"guild": {"id": "1", "name": "Shop"}, "channel": {"id": "2", "name": "feedback", "topic": "tell us"}, "dateRange": {"after": None}, "messages": _two(lambda n, text: {"id": n, "type": "Default", "content": text, "author": {"id": "5", "name": "ann", "roles": []}, "attachments": []}), "messageCount": 2}),
    _json("telegram", "telegramdesktop/tdesktop#25000", "A text with a link is a list of texts and objects.", {"name": "Shop", "type": "public_supergroup", "id": 1, "messages": [{"id": 2, "type": "message", "from": "Ann", "text": _LATE}, {"id": 3, "type": "message", "from": "Bo", "text": ["I ", {"type": "bold", "text": "love it"}, " very much."]}]}),
    _json("reddit", "Reddit's API, listings", "The rows are things whose data hold the text.", {"kind": "Listing", "data": {"after": "t1_k2", "dist": 2, "children": _two(lambda n, text: {"kind": "t1", "data": {"id": n, "body": text, "author": "ann"}}), "before": None}}, says=("data.body",)),
    _json("graphql-edges", "GraphQL, connections", "Each row is the node of an edge.", {"data": {"reviews": {"edges": _two(lambda n, text: {"node": {"id": n, "rating": 2, "body": text}, "cursor": n}), "pageInfo": {"hasNextPage": False}}}}, says=("node.body",)),
    _json("graphql-nodes", "GitHub's GraphQL API, issues", "The rows are four levels deep, and have lists themselves.", {"data": {"repository": {"issues": {"totalCount": 2, "nodes": _two(lambda n, text: {"number": int(n), "title": "A title", "body": text, "labels": {"nodes": [{"name": "bug"}]}})}}}}),
    _json("jira", "Jira's API, search", "The text is one of the fields of each issue.", {"expand": "schema", "startAt": 0, "total": 2, "issues": _two(lambda n, text: {"id": n, "key": f"A-{n}", "fields": {"summary": "A title", "description": text, "labels": []}})}, says=("fields.description",)),
    _json("airtable", "Airtable's API, records", "The columns stand under fields.", {"records": _two(lambda n, text: {"id": f"rec{n}", "createdTime": "2024", "fields": {"Name": "Ann", "Feedback": text}}), "offset": "x"}, says=("fields.Feedback",)),
    _json("json-api", "JSON:API, attributes", "The columns stand under attributes.", {"data": _two(lambda n, text: {"type": "reviews", "id": n, "attributes": {"rating": 2, "body": text}})}, says=("attributes.body",)),
    _json("deep", "APIs with a wrapper around the wrapper", "The rows are four levels deep.", {"response": {"result": {"data": {"items": _two(lambda n, text: {"id": n, "text": text})}}}}),
    _json("firebase", "codediodeio/firestore-migrator#2", "The rows stand under their ids.", {f"-Nabc{n}": {"text": text, "stars": 2} for n, text in (("1", _LATE), ("2", _GOOD))}),
    _json("pandas-index", "pandas, to_json(orient='index')", "The rows stand under their numbers.", {n: {"id": n, "text": text} for n, text in (("0", _LATE), ("1", _GOOD))}),
    _json("firebase-deep", "FirebaseExtended/firebase-import#20", "The same inside a wrapper.", {"data": {"reviews": {f"-Nabc{n}": {"comment": text} for n, text in (("1", _LATE), ("2", _GOOD))}}}),
    _json("sheets", "Google Sheets' API, values", "The rows are lists, the first one the header.", {"range": "Sheet1!A1:B3", "majorDimension": "ROWS", "values": [["id", "Feedback"], ["1", _LATE], ["2", _GOOD]]}),
    _json("lists", "arrays of arrays", "The same without the object around them.", [["id", "feedback"], [1, _LATE], [2, _GOOD]]),
    _json("odata", "OData, value", "The rows stand under value, next to names with an at sign.", {"@odata.context": "https://x.example/$metadata#Reviews", "value": _two(lambda n, text: {"@odata.etag": "W/1", "ID": n, "Comments": text})}),
    _json("steam", "Steam's API, appreviews as it answers", "The rows stand next to a summary and a cursor.", {"success": 1, "query_summary": {"num_reviews": 2}, "reviews": _two(lambda n, text: {"recommendationid": n, "author": {"steamid": "7"}, "review": text}), "cursor": "AoJ4"}),
    _json("bigquery", "BigQuery's export as JSON", "A record has the name of a text, and holds it.", _two(lambda n, text: {"review_id": n, "review": {"text": text, "stars": "2"}}), says=("review.text",)),
    _refused("youtube", "forms of JSON", "YouTube's API, commentThreads", "Two texts stand deep inside each row: one line names the way.", "in.json", json.dumps({"kind": "x", "items": _two(lambda n, text: {"id": n, "snippet": {"topLevelComment": {"snippet": {"textDisplay": text, "textOriginal": text}}}})}), "--text-field snippet.topLevelComment.snippet.textDisplay"),
    _refused("trello", "forms of JSON", "Trello's export of a board", "Cards and actions are lists with texts: one line names both.", "in.json", json.dumps({"id": "b", "name": "Feedback", "desc": "", "actions": [{"id": "a1", "data": {"text": "ok"}}], "cards": _two(lambda n, text: {"id": n, "name": "A card", "desc": text}), "lists": [{"id": "l1", "name": "Inbox"}]}), "cards", "actions"),
    _read("elasticdump", "forms of JSON", "elasticsearch-dump/elasticsearch-dump", "Each line is a hit with its source.", "in.json", _jsonl(*_two(lambda n, text: {"_index": "r", "_id": n, "_source": {"text": text}})), says=("_source.text",)),
    _read("dynamodb", "forms of JSON", "DynamoDB's export to S3", "Each value has its type as a key.", "in.json", _jsonl(*_two(lambda n, text: {"Item": {"id": {"S": n}, "comment": {"S": text}}})), says=("Item.comment.S",)),
    _read("json-seq", "forms of JSON", "RFC 7464, JSON text sequences", "A control character stands before each object.", "in.json", "".join(f"\x1e{json.dumps(one)}\n" for one in _two(lambda n, text: {"id": n, "text": text}))),
    _read("twitter", "forms of JSON", "rknightuk/alfred-workflows#30", "A script assigns the rows.", "tweets.js", "window.YTD.tweets.part0 = " + json.dumps(_two(lambda n, text: {"tweet": {"id": n, "full_text": text}}), indent=2), says=("tweet.full_text",)),
    _read("jsonp", "forms of JSON", "JSONP: a call around the rows", "A function is called with the rows.", "in.json", "callback(" + json.dumps(_two(lambda n, text: {"id": n, "text": text})) + ");\n"),
    _read("xssi", "forms of JSON", "Google's and Gerrit's APIs, a guard before the JSON", "A line that is no JSON comes first.", "in.json", ")]}'\n" + json.dumps(_two(lambda n, text: {"id": n, "text": text}))),
    _read("last-comma", "forms of JSON", "arrays that a program writes row by row", "A comma follows the last row.", "in.json", "[\n" + "".join(json.dumps(one) + ",\n" for one in _two(lambda n, text: {"id": n, "text": text})) + "]\n"),
    _read("odd-lines", "forms of JSON", "JSON Lines by other programs", "Keys come twice, numbers are huge, infinities are there, and each line has a mark.", "in.jsonl", f'\ufeff{{"text":"old","text":"{_LATE}","id":123456789012345678901234567890}}\r\n\ufeff{{"score":-Infinity,"text":"{_GOOD}","id":2}}\r\n'),
    _refused("no-rows", "forms of JSON", "an export of a time without reviews", "The list is empty: no row, and no error.", "in.json", '{"reviews": [], "total": 0}', exit=0),
)  # fmt: skip


def _table(case: str, source: str, column: str, header: str, row: str, **expect: Any) -> Case:
    """A CSV export; `{n}` is the row's number and `{text}` its text."""
    body = "".join(row.format(n=n, text=text) + "\n" for n, text in _two(lambda n, text: (n, text)))
    about = f"Nobody names the column with the text, which is {column}."
    return _read(
        case, "the text column", source, about, "in.csv", f"{header}\n{body}", **({"says": (column,)} | expect)
    )


_COLUMNS = (
    _table("judge-me", "Judge.me's export", "body", "title,body,rating,review_date,source,curated,reviewer_name,product_handle,reply,reply_date,picture_urls", "Late,{text},2,2024-03-0{n},web,ok,Ann,kettle,We are sorry about this delay.,2024-03-02,"),
    _table("stamped", "Stamped's export", "reviewMessage", "productId,productTitle,author,email,reviewRating,reviewTitle,reviewMessage,reviewDateCreated,replyMessage,isPublished", "{n},Kettle,Ann,a@x.example,2,Late,{text},2024,We are sorry to hear of it.,true"),
    _table("woocommerce", "WooCommerce: wp_comments", "comment_content", "comment_ID,comment_post_ID,comment_author,comment_author_email,comment_date,comment_content,comment_approved,comment_type,rating", "{n},9,Ann,a@x.example,2024-03-01 10:00:00,{text},1,review,2"),
    _table("canny", "Canny's export", "details", "id,title,details,author name,author email,board,status,score,comment count,created,url", "{n},Ship faster,{text},Ann,a@x.example,Ideas,open,3,0,2024,https://x.example/1"),
    _table("uservoice", "UserVoice's export", "Text", "Suggestion ID,Title,Text,Votes Count,Supporters Count,Status Name,Creator Email,Created At,Response Text", "{n},Ship faster,{text},3,3,open,a@x.example,2024,We will look into that soon."),
    _table("jotform", "Jotform's export", "What could we improve", '"Submission Date","First Name","E-mail","How did we do?","What could we improve about your experience?","IP","Submission ID"', '"Mar {n}, 2024","Ann","a@x.example","Poor","{text}","1.1.1.1","{n}"'),
    _table("alchemer", "Alchemer's export, Legacy Comments", "Please tell us more", '"Response ID","Status","Legacy Comments","Comments","Language","User Agent","Country","Please tell us more about your rating:"', '"{n}","Complete","","","English","Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit","Germany","{text}"'),
    _table("servicenow", "ServiceNow's export of incidents", "description", '"number","opened_at","short_description","description","comments","work_notes","state"', '"INC{n}","2024","A parcel","{text}","","","New"'),
    _table("gitlab", "GitLab's export of issues", "Description", "Title,Description,Issue ID,URL,State,Author,Assignee,Labels,Time Estimate", "A parcel,{text},{n},https://x.example/1,Open,Ann,,bug,0"),
    _table("asana", "Asana's export", "Notes", "Task ID,Created At,Completed At,Name,Section/Column,Assignee,Due Date,Tags,Notes,Projects", "{n},2024,,A parcel,Inbox,,,,{text},Feedback"),
    _table("outscraper", "Outscraper's export of Google reviews", "review_text", "query,name,google_id,author_title,review_text,review_rating,owner_answer,review_link", "q,Cafe,{n},Ann,{text},2,We are very sorry about it.,https://x.example"),
    _table("medallia", "Medallia's export", "Overall Satisfaction Comment", "Survey ID,Response Date,Unit,Likelihood to Recommend,Overall Satisfaction Comment,NPS Segment", "{n},2024,Berlin,2,{text},Detractor"),
    _table("pendo", "Pendo's export of NPS", "NPS Reason", "Visitor ID,Account ID,Guide,Poll,Response Time,NPS Rating,NPS Reason,Email", "{n},1,g,p,2024,2,{text},a@x.example"),
    _table("gorgias", "Gorgias' export of satisfaction surveys", "Comment", "Ticket ID,Survey score,Comment,Ticket subject,Ticket channel,Agent,Sent,Scored", "{n},2,{text},Where is my parcel today please,email,Kim,2024,2024"),
    _table("discord-csv", "Tyrrrz/DiscordChatExporter, CSV", "Content", "\ufeffAuthorID,Author,Date,Content,Attachments,Reactions", '"{n}","ann","2024-03-01T10:00:00.0000000+00:00","{text}","","👍 (2)"'),
    _table("play-console", "Google Play Console, developer's replies", "Review Text", "Package Name,App Version Code,Reviewer Language,Device,Star Rating,Review Title,Review Text,Developer Reply Text,Review Link", "com.shop,12,en,a51,2,,{text},We are sorry about it all.,https://x.example/{n}", encoding="utf-16"),
    _refused("booking", "the text column", "Booking.com's export of reviews", "The good and the bad are two columns: neither is guessed.", "in.csv", f"Review date,Guest name,Review title,Positive review,Negative review,Review score\n2024,Ann,Late,The breakfast was very good.,{_LATE},4\n2024,Bo,ok,{_GOOD},There was nothing to complain about.,10\n", "Positive review", "Negative review"),
    _refused("yotpo", "the text column", "Yotpo's export", "Review and reply have names alike: neither is guessed.", "in.csv", f"Review Title,Review Content,Review Score,Reviewer Name,Comment Content,Comment Date\nLate,{_LATE},2,Ann,We are sorry that you had to wait.,2024\nok,{_GOOD},5,Bo,Thank you for telling us this.,2024\n", "Review Content", "Comment Content"),
)  # fmt: skip

_ROWS = _two(lambda n, text: f"{n},{text}\n")
_TABLE = f"id,feedback\n{''.join(_ROWS)}"
_TABLES = (
    _refused("comma-unquoted", "ragged rows", "pandas-dev/pandas#15203", "Every text has one comma and no quotes: no column is made up.", "in.csv", "id,feedback\n1,It took two weeks, sadly\n2,Good, but late\n3,Nice, thanks\n", "3 cells"),
    _refused("comma-unquoted-tight", "ragged rows", "natcap/invest#146", "The same without a blank behind the comma.", "in.csv", "id,feedback\n1,It took two weeks,sadly\n2,Good,but late\n3,Nice,thanks\n", "3 cells"),
    _read("single-quotes", "quotes", "OpenRefine/OpenRefine#1086", "Cells stand in single quotes.", "in.csv", "id,feedback\n1,'It took two weeks, they said.'\n2,'I love it, thank you.'\n", cells=((0, "feedback", "It took two weeks, they said."),)),
    _read("apostrophes", "quotes", "ExcelDataReader/ExcelDataReader#333", "Texts that begin with an apostrophe are not quoted.", "in.csv", "id,feedback\n1,'twas two weeks late\n2,'course I love it\n"),
    _read("rows-quoted", "quotes", "a table that was opened as one column and saved again", "Each line is one quoted cell.", "in.csv", f'"id,feedback"\n"1,{_LATE}"\n"2,""I love it, thanks"""\n'),
    _read("labels-below", "extra header rows", "jasp-stats/jasp-issues#1581", "The second row has the questions to the names.", "in.csv", f"respid,q7_open\nRespondent ID,Any other comments about the service?\n1,{_LATE}\n2,{_GOOD}\n", says=("extra header row",)),
    _read("labels-below-many", "extra header rows", "surveys with codes and questions", "The same with more columns.", "in.csv", f"id,q1,q2\nNumber of the interview,How satisfied are you?,Why do you say so?\n1,4,{_LATE}\n2,5,{_GOOD}\n", "--text-field", "q2", says=("extra header row",)),
    _refused("nul-at-the-end", "encodings", "files that were not written to their end", "A file of nothing but NUL behind its beginning.", "in.csv", _TABLE + "\0" * 400, "text"),
    _read("nul-inside", "encodings", "python/cpython, csv: line contains NUL", "A NUL stands inside a text.", "in.csv", _TABLE.replace("to arrive", "to\0 arrive")),
    _read("utf-32", "encodings", "Stata's and old R's exports", "UTF-32 with a mark.", "in.csv", _TABLE, encoding="utf-32"),
    _refused("encodings-mixed", "encodings", "exports of several systems that were glued together", "One line is Windows' and the others UTF-8: the line is named, and no encoding that breaks the others.", "in.csv", "id,feedback\n1,Die Lieferung kam zu sp\udce4t.\n2,Schöne Grüße und vielen Dank.\n", ("in.csv:2",), silent=("--encoding cp1250",)),
    _read("line-separators", "line ends", "Google Docs and Word: U+2028, U+0085, vertical tabs", "Characters that some programs take for line ends are part of a text.", "in.csv", f"id,feedback\n1,It took\u2028 two weeks\u0085 to\x0b arrive.\n2,{_GOOD}\n"),
    _read("cr-cr-lf", "line ends", "a Windows program that writes text mode twice", "Lines end with CR CR LF.", "in.csv", _TABLE.replace("\n", "\r\r\n")),
    _read("huge-cell", "long cells", "python/cpython, csv: field larger than field limit", "A cell has 500,000 characters.", "in.csv", f"id,feedback\n1,{'It took two weeks. ' * 27_000}\n2,{_GOOD}\n"),
    _read("invisible", "empty cells", "texts copied from a web page", "A text of invisible characters is none.", "in.csv", f"{_TABLE}3,\u200b\u200e\ufeff\n", rows=3),
    _read("markup", "texts", "exports of editors", "Markup, entities and emoji stay as they are.", "in.csv", "id,feedback\n1,<p>It took <b>two weeks</b> to arrive.</p>&nbsp;\n2,I love it &amp; thank you 👩‍👩‍👧\n", summaries=("<b>two weeks</b>", "love it")),
    _read("mysql-screen", "rules below the header", "mysql, its table on the screen", "The table has a frame.", "in.txt", f"+----+------+\n| id | feedback |\n+----+------+\n|  1 | {_LATE} |\n|  2 | {_GOOD} |\n+----+------+\n2 rows in set (0.00 sec)\n"),
    *(
        _refused(f"no-table-{name}", "names that mislead", source, "The file is no table: one line says what it is.", "in.csv", content, says)
        for name, source, content, says in (
            ("pgp", "GnuPG", "-----BEGIN PGP MESSAGE-----\n\nhQEMA\n", "encrypted"),
            ("rtf", "WordPad", "{\\rtf1\\ansi id,feedback\\par 1,It took two weeks\\par}\n", "RTF"),
            ("sql", "mysqldump", f"-- MySQL dump 10.13\nINSERT INTO `reviews` VALUES (1,'{_LATE}'),(2,'{_GOOD}');\n", "SQL"),
            ("lfs", "Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS"),
            ("xml", "an export without an XML declaration", f"<reviews><review><text>{_LATE}</text></review></reviews>\n", "XML"),
        )
    ),
    _refused("whatsapp", "names that mislead", "WhatsApp's export of a chat", "Lines that begin with a bracket are not JSON; the first one may be a text.", "_chat.txt", f"[01.03.24, 10:15:33] Ann: {_LATE}\n[01.03.24, 10:16:02] Bo: {_GOOD}\n", "put one on top"),
)  # fmt: skip


def _named(case: str, source: str, about: str, name: str, output: str, wanted: Expect) -> Case:
    steps = (Put(name="in.csv", content=_TABLE), Run(args=scripted(name, output=output), output=output, expect=wanted))
    return Case(id=f"name-{case}", kind="file names", source=source, about=about, steps=steps)


_NAMES = (
    _named("too-long", "file systems with at most 255 bytes", "The output's name leaves no room for the files next to it.", "in.csv", "n" * 243 + ".csv", Expect(exit=5, says=("shorter name",), silent=("bug",))),
    _named("url", "people who give an address", "The input is an address: one line says to fetch it.", "https://data.example/in.csv", "out.csv", Expect(exit=2, rows=0, says=("curl",), talk=4)),
    _named("file-url", "file managers that copy file://", "The input is the address of a file that is there.", "file:in.csv", "out.csv", Expect(exit=2, rows=0, says=("file:",), talk=4)),
    _named("odd-output", "names with blanks and brackets", "The output's name has what shells and globs give a meaning.", "in.csv", "my out [1] #?*.csv", Expect(rows=2, answered=2)),
)  # fmt: skip

CASES: tuple[Case, ...] = (*_limits(), *_PARAMETERS, *_PLACES, *_PROTOCOLS, *_REASONED, *_HTTP, *_SOON, *_MODELS, *_JSON, *_COLUMNS, *_TABLES, *_NAMES)  # fmt: skip
