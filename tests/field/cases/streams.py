"""Forms of streams, errors inside them, and finish reasons."""

from __future__ import annotations

import gzip
import json

from field.cases.common import IS_LONG, LONG, TWELVE, answers_all, asked, ends_at_once, ollama, openai
from field.model import GIVEN, Case, Expect, Run
from field.wire import (
    ANSWER,
    GOOD,
    GOOD_OLLAMA,
    HTML,
    JSON,
    NDJSON,
    VALUES,
    Reply,
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
    says,
    stream,
    texts,
    unless,
    usage,
    whole,
)

_BODY = events([delta(role="assistant", content=""), *texts(ANSWER), delta("stop")])
_HALF = texts(ANSWER)[:5]


def _form(case: str, source: str, about: str, reply: Reply, **more: object) -> Case:
    return answers_all(f"stream-{case}", "stream forms", source, about, always(reply), **more)


_FORMS = (
    _form(
        "done-without-finish",
        GIVEN,
        "[DONE] comes without a finish reason.",
        stream(delta(role="assistant", content=""), *texts(ANSWER)),
    ),
    _form(
        "null-finish-then-done",
        "waybarrios/vllm-mlx#628",
        "The last chunk says null as its finish reason, then [DONE].",
        stream(delta(role="assistant", content=""), *texts(ANSWER), delta(content=""), usage(60)),
    ),
    _form(
        "stop-in-each-chunk",
        "BerriAI/litellm#2195",
        "Each chunk says stop.",
        stream(*(delta("stop", content=piece) for piece in pieces(ANSWER))),
    ),
    _form(
        "stop-in-first-chunk",
        "open-webui/open-webui#23921",
        "The first chunks say stop before any text.",
        stream(
            delta("stop", role="assistant", content=""),
            delta("stop", reasoning_content="Hmm."),
            *texts(ANSWER),
            delta("stop", content=""),
        ),
    ),
    _form(
        "empty-finish",
        GIVEN,
        "The finish reason is an empty string until the end.",
        stream(*(delta("", content=piece) for piece in pieces(ANSWER)), delta("stop", content="")),
    ),
    _form(
        "finish-in-camel-case",
        "jakobdylanc/llmcord#84",
        "Only the last chunk says how it ends, and under another name.",
        stream(
            *texts(ANSWER),
            {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": None, "finishReason": "stop"}]},
        ),
    ),
    _form(
        "text-with-finish",
        "jeremychone/rust-genai#164",
        "The last piece of text comes together with the finish reason.",
        stream(*texts(ANSWER[:-20]), delta("stop", content=ANSWER[-20:])),
    ),
    _form(
        "no-done",
        "",
        "The stream ends behind its finish reason without [DONE].",
        Reply(_BODY.replace(b"data: [DONE]\n\n", b"")),
    ),
    _form(
        "usage-in-each-chunk",
        "memex-lab/dart_agent_core#23",
        "Each chunk has token counts.",
        stream(
            *({**chunk, "usage": {"prompt_tokens": 9, "completion_tokens": 1}} for chunk in texts(ANSWER)),
            delta("stop"),
        ),
    ),
    _form(
        "choices-null",
        "ogx-ai/ogx#1424",
        "Choices are null or missing where there is nothing to say.",
        stream(
            {"id": "c1", "choices": None}, {"id": "c1"}, *texts(ANSWER), delta("stop"), {"id": "c1", "choices": None}
        ),
    ),
    _form(
        "delta-null",
        "microsoft/agent-framework#5734",
        "The last chunk's delta is null, another one has none.",
        stream(
            {"choices": [{"index": 0, "finish_reason": None}]},
            *texts(ANSWER),
            {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
        ),
    ),
    _form(
        "message-in-chunks",
        "ksylvest/omniai#24",
        "The chunks have a message instead of a delta.",
        stream(
            *(
                {"choices": [{"index": 0, "message": {"content": piece}, "finish_reason": None}]}
                for piece in pieces(ANSWER)
            ),
            {"choices": [{"index": 0, "message": {"content": ""}, "finish_reason": "stop"}]},
        ),
    ),
    _form(
        "whole-message-last",
        "",
        "The last chunk repeats the whole message next to its delta.",
        stream(
            *texts(ANSWER),
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {},
                        "message": {"role": "assistant", "content": ANSWER},
                        "finish_reason": "stop",
                    }
                ]
            },
        ),
    ),
    _form(
        "azure-first-chunk",
        GIVEN,
        "Azure begins with a chunk about its filter and ends with another one.",
        stream(
            {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
            *texts(ANSWER),
            delta("stop"),
            {"id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}}]},
        ),
    ),
    _form(
        "null-fields",
        GIVEN,
        "Every field that a delta can have is there and null.",
        stream(
            *(
                delta(content=piece, refusal=None, tool_calls=None, function_call=None, reasoning_content=None)
                for piece in pieces(ANSWER)
            ),
            delta("stop", content=None, refusal=None),
        ),
    ),
    _form(
        "error-null",
        GIVEN,
        "Each chunk has an error that is null or empty.",
        stream(*({**chunk, "error": None} for chunk in texts(ANSWER)), {**delta("stop"), "error": {}}),
    ),
    _form(
        "odd-usage",
        GIVEN,
        "The token counts are floats, strings and null.",
        stream(
            *texts(ANSWER), delta("stop"), {"choices": [], "usage": {"prompt_tokens": 12.0, "completion_tokens": "7"}}
        ),
    ),
    _form("sse-as-json", GIVEN, "Events are labelled as JSON.", Reply(_BODY, type=JSON)),
    _form("sse-as-text", GIVEN, "Events are labelled as plain text.", Reply(_BODY, type="text/plain; charset=utf-8")),
    _form("sse-unlabelled", "", "Events have no content type.", Reply(_BODY, type="")),
    _form(
        "json-as-text",
        GIVEN,
        "One document is labelled as plain text.",
        Reply(dumped(whole(ANSWER)).encode(), type="text/plain"),
    ),
    _form(
        "json-as-sse",
        "",
        "One document, on several lines, is labelled as an event stream.",
        Reply(json.dumps(whole(ANSWER), indent=2).encode(), type="text/event-stream"),
    ),
    _form(
        "ndjson",
        "",
        "Chunks come one a line without the word data.",
        Reply("".join(dumped(chunk) + "\n" for chunk in (*texts(ANSWER), delta("stop"))).encode(), type=NDJSON),
    ),
    _form(
        "ndjson-as-sse",
        "",
        "Chunks come one a line and are labelled as an event stream.",
        Reply("".join(dumped(chunk) + "\n" for chunk in (*texts(ANSWER), delta("stop"))).encode()),
    ),
    _form("sse-as-html", "", "Events are labelled as a web page.", Reply(_BODY, type=HTML)),
    _form("single-newlines", GIVEN, "Events end with one newline.", Reply(_BODY.replace(b"\n\n", b"\n"))),
    _form("crlf", GIVEN, "Lines end with CRLF.", Reply(_BODY.replace(b"\n", b"\r\n"))),
    _form("no-space", GIVEN, "No blank stands behind data.", Reply(_BODY.replace(b"data: ", b"data:"))),
    _form("done-with-blanks", GIVEN, "[DONE] has blanks around it.", Reply(_BODY.replace(b"[DONE]", b" [DONE] "))),
    _form(
        "comments",
        GIVEN,
        "Comments keep the connection alive.",
        Reply(b": PROCESSING\n\n" * 3 + _BODY.replace(b"\n\n", b"\n\n: ping\n\n")),
    ),
    _form("empty-data", GIVEN, "Empty events come first.", Reply(b"data:\n\ndata: \n\n" + _BODY)),
    _form(
        "ids",
        GIVEN,
        "Events have names and ids.",
        Reply(b"retry: 3000\n\n" + _BODY.replace(b"data: ", b"event: message\nid: 7\ndata: ")),
    ),
    _form(
        "gzip",
        GIVEN,
        "The stream is compressed though nobody asked for it.",
        Reply(gzip.compress(_BODY), headers=(("Content-Encoding", "gzip"),)),
    ),
    _form("bom", GIVEN, "A byte order mark stands first.", Reply(b"\xef\xbb\xbf" + _BODY)),
    _form(
        "non-ascii",
        "vllm-project/aibrix#2653",
        "Characters of several bytes are cut by the network.",
        says(dumped(VALUES | {"summary": "Der Käufer sagt, dass die Lieferung zu spät kam 😞 sehr schade."})),
        summaries=("zu spät kam 😞",),
    ),
    _form(
        "parts-of-text",
        "",
        "The content is a list of text parts, as newer servers send it.",
        stream(
            *(delta(content=[{"type": "text", "text": piece}]) for piece in pieces(ANSWER)), delta("stop", content=[])
        ),
    ),
    _form(
        "ollama-as-json",
        "ollama/ollama docs, stream",
        "Ollama's lines are labelled as JSON.",
        lines(*(line(piece) for piece in pieces(ANSWER)), last(), type=JSON),
        args=ollama(),
    ),
    _form(
        "ollama-whole",
        "",
        "A proxy before Ollama does not stream: one line has it all.",
        lines(line(ANSWER, done=True, done_reason="stop", prompt_eval_count=700, eval_count=60), type=JSON),
        args=ollama(),
    ),
    _form(
        "ollama-as-sse",
        "",
        "A proxy before Ollama turns lines into events.",
        Reply(
            b"".join(f"data: {text.strip()}\n\n".encode() for text in (*(line(p) for p in pieces(ANSWER)), last())),
        ),
        args=ollama(),
    ),
    answers_all(
        "stream-cut",
        "stream forms",
        "",
        "The first stream breaks in the middle: it is asked again.",
        first(1, Reply(events(_HALF, done=False), end="cut")),
        requests=4,
    ),
    answers_all(
        "stream-closed-kindly",
        "stream forms",
        "",
        "The first stream ends in the middle without a finish reason and without [DONE]: it is asked again.",
        first(1, stream(*_HALF, done=False)),
        requests=4,
    ),
    answers_all(
        "stream-done-too-early",
        "stream forms",
        "",
        "[DONE] comes in the middle of the object: an orderly end, but no answer.",
        first(1, stream(*_HALF)),
        requests=4,
    ),
    Case(
        id="stream-chat-stop-first",
        kind="stream forms",
        source=GIVEN,
        about="A chat prints the whole answer although the first chunk says stop.",
        steps=(
            Run(
                args=("chat", "-b", "openai", "-m", "m", "--base-url", "{url}/v1", "--no-history"),
                stdin="What is late?\n",
                expect=Expect(exit=0, stdout=("The parcel is late, and so is the invoice.",), requests=1),
            ),
        ),
        rules=always(
            stream(
                delta("stop", role="assistant", content=""),
                *texts("The parcel is late, and so is the invoice."),
                delta("stop", content=""),
            )
        ),
    ),
)


def _call(case: str, source: str, about: str, reply: Reply) -> Case:
    return answers_all(f"call-{case}", "JSON in a tool call", source, about, always(reply))


_CALLS = (
    _call(
        "deltas",
        "the issue: JSON in tool-call deltas",
        "A gateway imitates the schema by a tool, and the answer is its arguments.",
        stream(
            delta(
                role="assistant",
                content=None,
                tool_calls=[
                    {"index": 0, "id": "t1", "type": "function", "function": {"name": "analysis", "arguments": ""}}
                ],
            ),
            *(
                delta(content=None, tool_calls=[{"index": 0, "function": {"arguments": piece}}])
                for piece in pieces(ANSWER)
            ),
            delta("tool_calls"),
        ),
    ),
    _call(
        "whole",
        "BerriAI/litellm, json_tool_call",
        "The same in one piece.",
        Reply(
            dumped(
                whole(
                    None,
                    "tool_calls",
                    tool_calls=[
                        {"id": "t1", "type": "function", "function": {"name": "json_tool_call", "arguments": ANSWER}}
                    ],
                )
            ).encode(),
            type=JSON,
        ),
    ),
    _call(
        "function",
        "OpenAI's older function_call",
        "The older form of a call is used.",
        stream(
            delta(role="assistant", content=None, function_call={"name": "analysis", "arguments": ""}),
            *(delta(function_call={"arguments": piece}) for piece in pieces(ANSWER)),
            delta("function_call"),
        ),
    ),
    _call(
        "content-counts",
        "earendil-works/pi#4228",
        "The content holds the answer, and a call of no use stands next to it.",
        stream(
            *texts(ANSWER),
            delta(tool_calls=[{"index": 0, "id": "t1", "function": {"name": "save", "arguments": "{}"}}]),
            delta("tool_calls"),
        ),
    ),
)

# Errors inside a stream. The server's fault is asked again; context too long is asked once.


def _fault(case: str, source: str, about: str, *chunks: object, **more: object) -> Case:
    reply = stream(*chunks, done=bool(more.pop("done", True)))
    return answers_all(
        f"inside-{case}", "errors inside a stream", source, about, first(1, reply), **({"requests": 4} | more)
    )


def _too_long(case: str, source: str, about: str, *chunks: object) -> Case:
    return asked(
        f"inside-{case}",
        "errors inside a stream",
        source,
        about,
        unless(GOOD, (IS_LONG, stream(*chunks))),
        openai(LONG),
        exit=3,
        answered=2,
        failed=1,
        kinds=("context-too-long",),
        requests=3,
        says=("context",),
    )


_INSIDE = (
    _too_long(
        "error-line-first",
        GIVEN,
        "llama.cpp writes a line that begins with the word error.",
        'error: {"code":400,"message":"the request exceeds the available context size. try increasing the context'
        ' size or enable context shift","type":"exceed_context_size_error"}\n\n',
    ),
    _too_long(
        "error-line-later",
        GIVEN,
        "The same line comes behind the beginning of an answer, and without the type.",
        *_HALF,
        'error: {"code":400,"message":"the request exceeds the available context size. try increasing the context'
        ' size or enable context shift","type":"invalid_request_error"}\n\n',
    ),
    _too_long(
        "object-error",
        "QwenLM/Qwen3#1321",
        "The error object stands at the top of the event.",
        {
            "object": "error",
            "message": "The input (9709 tokens) is longer than the model's context length (4096 tokens).",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    _too_long(
        "event-error",
        "foundation-model-stack/fms-guardrails-orchestrator#410",
        "An event named error has a code and details.",
        'event: error\ndata: {"code":422,"details":"chat completion request failed: This model\'s maximum context'
        ' length is 4096 tokens. However, your messages resulted in 9709 tokens."}\n\n',
    ),
    _too_long(
        "http-status",
        "huggingface/text-generation-inference router/src/infer/mod.rs",
        "TGI puts the status into the error.",
        {
            "error": {
                "message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 9709"
                " `inputs` tokens and 320 `max_new_tokens`",
                "http_status_code": 422,
            }
        },
    ),
    _fault(
        "lm-studio",
        "zendev-sh/goai#110",
        "LM Studio says an error twice in one event.",
        *_HALF,
        {"error": {"message": "Compute error."}, "message": "Compute error."},
    ),
    _fault(
        "anthropic",
        "farzaa/clicky#132",
        "An event named error has the maker's own form.",
        'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
    ),
    _fault(
        "string",
        "huggingface/text-generation-inference router/src/server.rs",
        "The error is a string with its type next to it.",
        {"error": "Request failed during generation: Server error: CUDA out of memory", "error_type": "generation"},
    ),
    _fault(
        "code-and-message",
        "SiliconFlow's API, code and message",
        "The event has a code and a message only.",
        {"code": 50505, "message": "Model service overloaded. Please try again later.", "data": None},
    ),
    _fault(
        "array",
        "google-gemini/gemini-cli#6454",
        "The event is a list with an error in it.",
        [
            {
                "error": {
                    "code": 503,
                    "message": "The model is overloaded. Please try again later.",
                    "status": "UNAVAILABLE",
                }
            }
        ],
        done=False,
    ),
    _fault(
        "openrouter-200",
        "BerriAI/litellm#8448",
        "A finished choice without content has the error of the provider behind it.",
        {
            "choices": [{"index": 0, "delta": {"content": None}, "finish_reason": "stop"}],
            "error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "error code: 1015"}},
        },
    ),
    _fault(
        "openrouter-mid",
        GIVEN,
        "OpenRouter loses its provider in the middle of an answer.",
        *_HALF,
        {
            "error": {"code": 502, "message": "Provider disconnected"},
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        },
    ),
    _fault(
        "no-json",
        "octos-org/octos#13",
        "An event holds words instead of JSON.",
        *_HALF,
        "data: Internal Network Failure\n\n",
    ),
    _fault(
        "error-line-fault",
        "",
        "A line that begins with the word error tells of the server's own trouble.",
        *_HALF,
        'error: {"code":500,"message":"Compute error.","type":"server_error"}\n\n',
        done=False,
    ),
    asked(
        "inside-ollama",
        "errors inside a stream",
        GIVEN,
        "Ollama's runner dies in the middle of an answer.",
        first(
            1,
            lines(
                *(line(piece) for piece in pieces(ANSWER)[:3]),
                '{"error":"an error was encountered while running the model: unexpected EOF"}\n',
            ),
            GOOD_OLLAMA,
        ),
        ollama(),
        answered=3,
        failed=0,
        requests=4,
    ),
    asked(
        "inside-ollama-status",
        "errors inside a stream",
        "ollama/ollama server/routes.go",
        "Ollama gives the status next to the error: this one is context too long, and is asked once.",
        unless(
            GOOD_OLLAMA,
            (IS_LONG, lines('{"error":"the input length exceeds the context length","status":400}\n')),
        ),
        ollama(LONG),
        exit=3,
        answered=2,
        failed=1,
        kinds=("context-too-long",),
        requests=3,
    ),
    ends_at_once(
        "inside-quota",
        "errors inside a stream",
        "apache/rocketmq-dashboard#2178",
        "The quota is spent, and that is said inside a stream.",
        always(stream(problem("You exceeded your current quota, please check your plan", code="insufficient_quota"))),
        "quota",
    ),
    ends_at_once(
        "inside-base-resp",
        "errors inside a stream",
        "MiniMax's API, base_resp",
        "A document without choices has the provider's own status: there is no money left.",
        always(
            Reply(
                b'{"id":"x","choices":null,"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}',
                type=JSON,
            )
        ),
        "insufficient balance",
    ),
    ends_at_once(
        "inside-model",
        "errors inside a stream",
        "ogx-ai/ogx#5224",
        "The unknown model is reported inside a stream.",
        always(
            stream(
                {
                    "object": "error",
                    "message": "The model `@MODEL@` does not exist.",
                    "type": "NotFoundError",
                    "param": None,
                    "code": 404,
                }
            )
        ),
        "does not exist",
        args=openai(TWELVE, model="granite"),
    ),
)


def _finish(case: str, source: str, about: str, reply: Reply, failures: int = 2, **more: object) -> Case:
    return answers_all(
        f"finish-{case}", "finish reasons", source, about, first(failures, reply), **({"requests": 3 + failures} | more)
    )


def _filtered(case: str, source: str, about: str, reply: Reply) -> Case:
    return asked(
        f"finish-{case}",
        "finish reasons",
        source,
        about,
        unless(GOOD, ({"prompt": ["FLAGGED"]}, reply)),
        openai("flagged.jsonl"),
        exit=3,
        answered=3,
        failed=1,
        requests=6,
        kinds=("content-filter",),
    )


_NOTHING = delta(role="assistant", content="")

_FINISH = (
    _finish(
        "no-resources",
        GIVEN,
        "DeepSeek has no resources left for an answer.",
        says(ANSWER[:60], "insufficient_system_resource"),
        3,
    ),
    _finish("network-error", "earendil-works/pi#1509", "z.ai's inference fails.", says(ANSWER[:60], "network_error")),
    _finish("abort", "earendil-works/pi#1509", "The server gives the request up.", says(ANSWER[:60], "abort")),
    _finish(
        "error",
        "simstudioai/sim#6302",
        "The provider reports an error as its finish reason.",
        says(ANSWER[:60], "error"),
    ),
    _finish(
        "malformed",
        "simstudioai/sim#6302",
        "Gemini could not form its own response.",
        stream(_NOTHING, delta("malformed_response")),
    ),
    _finish(
        "malformed-call",
        "agentjido/req_llm#935",
        "Gemini wrote a call that is none.",
        stream(_NOTHING, delta("MALFORMED_FUNCTION_CALL")),
        1,
    ),
    *(
        answers_all(
            f"finish-{case}", "finish reasons", source, f"The good end is called {name}.", always(says(ANSWER, name))
        )
        for case, name, source in (
            ("eos", "eos", "simstudioai/sim#6302"),
            ("eos-token", "eos_token", GIVEN),
            ("stop-sequence", "stop_sequence", "huggingface/text-generation-inference router/src/lib.rs"),
            ("upper-case", "STOP", GIVEN),
            ("end-turn", "end_turn", "Anthropic's API"),
            ("complete", "COMPLETE", "Cohere's API"),
            ("tool-calls", "tool_calls", GIVEN),
            ("unknown", "whatever", "anomalyco/opencode#44092"),
        )
    ),
    *(
        asked(
            f"finish-{case}",
            "finish reasons",
            source,
            f"An answer is cut, which is called {name}: it is asked again.",
            first(1, says(ANSWER[:60], name)),
            answered=3,
            failed=0,
            requests=4,
        )
        for case, name, source in (
            ("max-tokens", "max_tokens", GIVEN),
            ("max-tokens-upper-case", "MAX_TOKENS", GIVEN),
            ("model-length", "model_length", "simstudioai/sim#6302"),
        )
    ),
    _filtered(
        "content-filter",
        "CherryHQ/cherry-studio#16079",
        "A filter stops the answer.",
        stream(_NOTHING, delta("content_filter")),
    ),
    _filtered(
        "sensitive", "earendil-works/pi#1509", "z.ai calls its filter sensitive.", stream(_NOTHING, delta("sensitive"))
    ),
    _filtered("safety", GIVEN, "Gemini's filter is called SAFETY.", stream(_NOTHING, delta("SAFETY"))),
    _filtered(
        "prohibited",
        "agentjido/req_llm#935",
        "Gemini forbids the content.",
        stream(_NOTHING, delta("PROHIBITED_CONTENT")),
    ),
    _filtered(
        "recitation", "BerriAI/litellm#4491", "Gemini stops what it knows by heart.", says(ANSWER[:60], "RECITATION")
    ),
    _filtered(
        "refusal",
        "OpenAI's API, refusal",
        "The model refuses, in a field of its own.",
        stream(delta(role="assistant", refusal="I can't help with that."), delta("stop")),
    ),
    asked(
        "finish-window",
        "finish reasons",
        f"{'earendil-works/pi'} packages/ai/src/utils/overflow.ts",
        "z.ai has a finish reason for a prompt that does not fit.",
        unless(GOOD, (IS_LONG, stream(_NOTHING, delta("model_context_window_exceeded")))),
        openai(LONG),
        exit=3,
        answered=2,
        failed=1,
        kinds=("context-too-long",),
        requests=3,
    ),
)

CASES: tuple[Case, ...] = (*_FORMS, *_CALLS, *_INSIDE, *_FINISH)
