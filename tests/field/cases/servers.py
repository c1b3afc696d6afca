"""Further public reports of model servers and gateways: wordings, streams, answers, waits and batches."""

# ruff: noqa: E501 - servers' words are shown as they are

from __future__ import annotations

import json
from typing import Any

from field.cases.common import (
    FLAGGED,
    IS_FLAGGED,
    IS_LONG,
    LONG,
    THREE,
    TWELVE,
    answers_all,
    asked,
    ends_at_once,
    ollama,
    openai,
)
from field.model import Answer, Case, Expect, Run
from field.wire import (
    ANSWER,
    GOOD,
    GOOD_OLLAMA,
    HTML,
    JSON,
    OTHER,
    THOUGHT,
    VALUES,
    Reply,
    Rule,
    always,
    delta,
    dumped,
    first,
    pieces,
    problem,
    refuses,
    says,
    stream,
    texts,
    unless,
    web_page,
    whole,
)

_NEGATIVE = tuple((row, "sentiment", "negative") for row in range(3))
_PRETTY = json.dumps(VALUES, indent=2)
_DRAFT = f"{THOUGHT} A draft is {OTHER} but that is not right."
Row = tuple[str, str, int, Any]
"""Name, source, status and body of a refusal."""


def _reply(status: int, body: Any) -> Reply:
    return refuses(status, body, type="text/plain" if isinstance(body, str) else JSON)


def _google(message: str, code: int, status: str, **more: Any) -> list[Any]:
    return [{"error": {"code": code, "message": message, "status": status, **more}}]


# Refusals in more vendors' words.

_QUOTAS: tuple[Row, ...] = (
    ("trial", "Helicone's and others' trials", 403, problem("Your free trial has ended. Please subscribe.")),
    ("subscription", "gateways that sell subscriptions", 403, {"detail": "Subscription expired"}),
    ("gcp-billing", "Vertex AI, BILLING_DISABLED", 403, _google("This API method requires billing to be enabled. Please enable billing on project #1", 403, "PERMISSION_DENIED", details=[{"reason": "BILLING_DISABLED"}])),
    ("litellm-budget-429", "BerriAI/litellm, BudgetExceededError", 429, problem("litellm.RateLimitError: BudgetExceededError: Budget has been exceeded! Current cost: 2.1, Max budget: 2.0", type="budget_exceeded")),
    ("one-api-chinese", "songquanpeng/one-api", 403, problem("用户配额不足", type="one_api_error")),
    ("zhipu-5-hours", "Zhipu's API, code 1308", 429, problem("已达到 5 小时的使用上限。您的限额将在 2099-01-01 10:00:00 重置。", code="1308")),
    ("wallet", "Helicone AI Gateway, error handling", 403, problem("Wallet suspended, contact support")),
    ("portkey-412", "portkey.ai docs, error codes", 412, {"status": "failure", "message": "Budget exhausted"}),
    ("balance-not-enough", "SiliconFlow's API, code 30001", 403, {"code": 30001, "message": "Account balance not enough"}),
    ("run-out", "gateways with prepaid keys", 400, problem("Your credit has run out. Please top up.")),
)  # fmt: skip
_KEYS: tuple[Row, ...] = (
    ("bearer", "gateways with keys of their own", 400, problem("invalid bearer token")),
    ("aws-gateway", "Amazon API Gateway", 400, {"message": "Missing Authentication Token"}),
    ("ibm", "IBM Cloud, BXNIM0415E", 400, {"errorMessage": "Provided API key could not be found.", "errorCode": "BXNIM0415E"}),
    ("gemini-two", "Gemini's OpenAI endpoint, two keys", 400, _google("Multiple authentication credentials received. Please pass only one.", 400, "INVALID_ARGUMENT")),
    ("gemini-location", "Gemini's API, regions", 400, _google("User location is not supported for the API use.", 400, "FAILED_PRECONDITION")),
    ("anthropic-disabled", "Anthropic's API", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "This organization has been disabled."}}),
)  # fmt: skip
_MODELS: tuple[Row, ...] = (
    ("shut-down", "vendors that retire models", 400, problem("The model @MODEL@ has been shut down")),
    ("sunset", "vendors that retire models", 400, problem("model @MODEL@ was sunset in 2025")),
    ("none-loaded", "oobabooga/textgen and LM Studio", 400, {"detail": "No model currently loaded."}),
    ("pydantic", "FastAPI servers with a list of names", 422, {"detail": [{"loc": ["body", "model"], "msg": "unexpected value; permitted: 'a', 'b'", "type": "value_error.const"}]}),
    ("param", "OpenAI's API, param", 400, problem("Invalid value: '@MODEL@'. Supported values are: 'a', 'b'", param="model")),
    ("no-chat", "Databricks and others", 400, problem("Model @MODEL@ does not support chat completions")),
    ("chinese", "Chinese gateways", 400, problem("不支持的模型: @MODEL@")),
    ("chinese-name", "Chinese gateways", 400, problem("模型名称错误")),
    ("marketplace", "Amazon Bedrock, marketplace", 400, {"message": "Model access is denied due to IAM user or service role is not authorized to perform the required AWS Marketplace actions"}),
    ("not-a-model", "OpenRouter and Portkey", 400, problem("@MODEL@ is not a valid foundation model")),
    ("hub", "ml-explore/mlx-lm#1133", 401, problem("RepositoryNotFoundError: 401 Client Error. Repository Not Found for url: https://hub.example/api/models/@MODEL@")),
)  # fmt: skip
_CONTEXTS: tuple[Row, ...] = (
    ("vllm-negative", "vllm-project/vllm, max_tokens", 400, problem("max_tokens must be at least 1, got -4870. (parameter=max_tokens, value=-4870)", type="BadRequestError")),
    ("llama-batch", "ggml-org/llama.cpp, n_batch", 500, problem("input is too large to process. increase the physical batch size (current batch size: 512)", type="server_error")),
    ("llama-cache", "ggml-org/llama.cpp, kv cache", 500, {"error": "llama_decode: failed to decode, ret = 1 (kv cache is full)"}),
    ("payload", "Gemini's API, payload size", 400, _google("Request payload size exceeds the limit: 20971520 bytes.", 400, "INVALID_ARGUMENT")),
    ("submitted", "a chat gateway", 400, problem("The message you submitted was too long, please reload the conversation and submit something shorter.")),
    ("entity", "Node's body-parser", 400, problem("Request Entity Too Large")),
    ("longer", "servers' own words", 400, problem("the prompt is longer than what the model supports")),
    ("token-limit", "servers' own words", 400, problem("Your request has exceeded the maximum token limit.")),
    ("length-too-long", "FastChat workers", 400, {"object": "error", "message": "ValueError: The input length is too long", "code": 400}),
)  # fmt: skip
_FILTERS: tuple[Row, ...] = (
    ("pii", "gateways that look for personal data", 400, problem("The prompt contains PII and was blocked by policy")),
    ("legal", "RFC 7725", 451, {"error": "Unavailable For Legal Reasons"}),
    ("inspection", "DashScope's API, DataInspectionFailed", 400, problem("DataInspectionFailed")),
    ("injection", "Lakera and Prompt Shields", 403, problem("Request blocked: prompt injection detected")),
    ("toxic", "guardrails in front of a model", 422, {"detail": "Toxic content detected"}),
    ("moderation", "gateways that ask a moderation model", 403, {"detail": "Your prompt has been rejected by the moderation endpoint"}),
    ("forbidden-words", "word lists of companies", 400, problem("input contains forbidden words")),
)  # fmt: skip
_FAULTS: tuple[Row, ...] = (
    ("crash", "lmstudio-ai/lmstudio-bug-tracker, exit codes", 400, {"error": "The model has crashed without additional information. (Exit code: 18446744072635812000)"}),
    ("channel", "lmstudio-ai/lmstudio-bug-tracker", 400, {"error": "Channel Error"}),
    ("unloaded", "lmstudio-ai/lmstudio-bug-tracker", 400, {"error": "Model unloaded."}),
    ("upstream", "gateways that say 400", 400, problem("Upstream request failed")),
    ("timeout", "BerriAI/litellm, Timeout", 400, problem("litellm.Timeout: APITimeoutError - Request timed out.")),
    ("connection", "BerriAI/litellm, InternalServerError", 400, problem("litellm.InternalServerError: Connection error.")),
    ("memory", "servers that hand on PyTorch's errors", 400, problem("CUDA out of memory. Tried to allocate 2.00 GiB")),
    ("warming", "serverless endpoints", 400, problem("Model is warming up, please retry")),
    ("chinese", "Chinese gateways", 400, problem("服务器繁忙")),
    ("bedrock", "Amazon Bedrock, ServiceUnavailableException", 400, {"message": "ServiceUnavailableException: Bedrock is unable to process your request."}),
    ("alb", "AWS load balancers, 460", 460, ""),
    ("envoy-404", "Envoy, no healthy upstream", 404, "no healthy upstream"),
    ("queue", "sgl-project/sglang, queues", 503, problem("The request was rejected: too many requests in queue, length 100 exceeds limit 100")),
    ("qps", "n8n-io/n8n#38642", 429, {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "REQUEST_LIMIT_EXCEEDED: Exceeded workspace QPS rate limit for m. Please use a provisioned throughput endpoint for a higher rate limit."}),
    ("vertex", "Vertex AI, dynamic quota", 429, _google("Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model with base model: m. Please submit a quota increase request.", 429, "RESOURCE_EXHAUSTED")),
    ("dashscope", "DashScope's API, limit_requests", 429, problem("You exceeded your current quota, please check your plan and billing details.", type="limit_requests", code="limit_requests")),
    ("dashscope-allocation", "DashScope's API, Throttling.AllocationQuota", 429, problem("Allocated quota exceeded, please increase your quota limit.", code="Throttling.AllocationQuota")),
)  # fmt: skip

_NEAREST = "granite-4.1-3b-instruct"
_REFUSALS = (
    *(ends_at_once(f"quota-s-{name}", "quota", source, "Nothing is left to spend.", always(_reply(status, body)), "wait until its limit ends") for name, source, status, body in _QUOTAS),
    *(ends_at_once(f"key-s-{name}", "wrong key", source, "The key is not taken.", always(_reply(status, body)), "--key-file") for name, source, status, body in _KEYS),
    *(ends_at_once(f"model-s-{name}", "unknown model", source, "The model is not there; the message names the nearest one.", always(_reply(status, body)), _NEAREST, args=openai(TWELVE, model="granite-4.1-3b-instuct"), models=(_NEAREST, "qwen3-8b")) for name, source, status, body in _MODELS),
    *(asked(f"context-s-{name}", "context too long", source, "One row is too long for the context.", unless(GOOD, (IS_LONG, _reply(status, body))), openai(LONG), exit=3, answered=2, failed=1, requests=3, kinds=("context-too-long",)) for name, source, status, body in _CONTEXTS),
    *(asked(f"row-s-{name}", "one row refused", source, "A filter refuses one row.", unless(GOOD, (IS_FLAGGED, _reply(status, body))), openai(FLAGGED, "--max-retries", "2"), exit=3, answered=3, failed=1, requests=4, kinds=("content-filter",)) for name, source, status, body in _FILTERS),
    *(answers_all(f"soon-s-{name}", "a server that is not ready", source, "The server fails twice, also before its first answer.", first(2, _reply(status, body)), requests=5) for name, source, status, body in _FAULTS),
)  # fmt: skip

# Parameters that are given up, and limits.

_STREAMS = {"is": {"stream": True}}
_SCHEMA = {"is": {"response_format.type": "json_schema"}}
_COLD = {"in": {"temperature": [0, 0.0]}}


def _given_up(case: str, source: str, when: dict[str, Any], status: int, body: Any) -> Case:
    about = "A parameter is given up once, for the whole run."
    return answers_all(f"parameter-s-{case}", "refused parameters", source, about, unless(GOOD, (when, _reply(status, body))), requests=4)  # fmt: skip


_PARAMETERS = (
    _given_up("temperature-one", "Anthropic's OpenAI endpoint, thinking", _COLD, 400, problem("`temperature` may only be set to 1 when thinking is enabled.")),
    _given_up("temperature-positive", "servers that sample always", _COLD, 400, problem("Invalid parameter: temperature must be positive")),
    _given_up("temperature-not-allowed", "servers that sample always", _COLD, 400, problem("temperature 0.0 is not allowed for sampling")),
    _given_up("max-tokens-camel", "Azure AI Foundry, invalid_parameter", {"has": ["max_tokens"]}, 400, problem("this model is not supported MaxTokens, please use MaxCompletionTokens", code="invalid_parameter")),
    _given_up("stream-options-500", "abetlen/llama-cpp-python, keyword arguments", {"has": ["stream_options"]}, 500, {"detail": "create_chat_completion() got an unexpected keyword argument 'stream_options'"}),
    _given_up("include-usage", "a gateway with options of its own", {"has": ["stream_options"]}, 400, problem("include_usage is not a valid option")),
    _given_up("streaming-not-supported", "OpenAI's o1 and others", _STREAMS, 400, problem("This model does not support streaming")),
    _given_up("streaming-501", "servers without streams", _STREAMS, 501, problem("Streaming is not implemented")),
    _given_up("schema-outlines", "vllm-project/vllm, guided decoding", _SCHEMA, 400, problem("guided decoding is not available")),
    _given_up("schema-keys", "microsoft/llguidance", _SCHEMA, 400, problem('Unimplemented keys: ["maxLength"]')),
    _given_up("schema-output", "servers without JSON", _SCHEMA, 400, problem("This model doesn't support JSON output")),
    _given_up("schema-openrouter", "OpenRouter's API, provider routing", _SCHEMA, 404, {"error": {"message": "No endpoints found that can handle the requested parameters.", "code": 404}}),
    _given_up("schema-bare", "OpenRouter's API, 400 without words", _SCHEMA, 400, {"error": {"message": "Provider returned error", "code": 400}}),
    _given_up("schema-parameters", "gateways that say no more", _SCHEMA, 400, problem("Invalid parameters")),
    _given_up("schema-chinese", "Zhipu's API, code 1210", _SCHEMA, 400, problem("API 调用参数有误", code="1210")),
    _given_up("system-literal", "FastAPI servers with a list of roles", {"system": True}, 422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "unexpected value; permitted: 'user', 'assistant'"}]}),
    _given_up("system-anthropic", "Anthropic's API behind a gateway", {"system": True}, 400, problem('messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter.')),
    _given_up("system-gemini", "Gemini's roles", {"system": True}, 400, problem("Please use a valid role: user, model.")),
    answers_all("limit-s-exclusive", "refused parameters", "servers that name the first number that is too large", "The answer's limit must be less than a number.", unless(GOOD, ({"from": 3000}, _reply(400, problem("The max_tokens must be less than 3000")))), args=openai(THREE, "--max-tokens", "8192"), requests=4),
    *(
        answers_all(f"budget-s-{name}", "reasoning uses up the limit", source, "The server says that reasoning has used up the limit by an error.", unless(GOOD, ({"below": 700}, _reply(status, problem(words)))), requests=9)
        for name, source, status, words in (
            ("openai", "OpenAI's reasoning models", 400, "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens."),
            ("groq", "Groq's API, json_validate_failed", 400, "max completion tokens reached before generating a valid document"),
            ("litellm", "BerriAI/litellm#37710", 500, "litellm.APIConnectionError: gpt-5 unable to complete request: max_output_tokens"),
            ("anthropic", "Anthropic's API behind a gateway", 400, "`max_tokens` must be greater than `thinking.budget_tokens`."),
        )
    ),
)  # fmt: skip

# Streams.


def _form(case: str, source: str, about: str, *chunks: object, done: bool = True) -> Case:
    return answers_all(f"stream-s-{case}", "stream forms", source, about, always(stream(*chunks, done=done)), cells=_NEGATIVE)  # fmt: skip


def _choice(**fields: Any) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": 0, **fields}]}


def _fault(case: str, source: str, about: str, *chunks: object) -> Case:
    return answers_all(f"inside-s-{case}", "errors inside a stream", source, about, first(1, stream(*chunks)), requests=4)  # fmt: skip


_HALF = texts(ANSWER)[:5]
_END = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]}
_FORMS = (
    _form("finish-in-delta", "gateways written by hand", "The finish reason stands in the delta.", *texts(ANSWER), _choice(delta={"finish_reason": "stop"}), done=False),
    _form("finish-at-top", "gateways written by hand", "The finish reason stands at the top.", *texts(ANSWER), {"choices": [], "finish_reason": "stop"}, done=False),
    _form("delta-text", "gateways written by hand", "The delta is the text itself.", *(_choice(delta=one) for one in pieces(ANSWER)), delta("stop")),
    _form("delta-name", "gateways written by hand", "The delta has a text instead of content.", *(_choice(delta={"text": one}) for one in pieces(ANSWER)), delta("stop")),
    _form("choice-content", "gateways written by hand", "The choice has the content itself.", *(_choice(content=one) for one in pieces(ANSWER)), _choice(content="", finish_reason="stop")),
    _form("message-text", "gateways written by hand", "The message is the text itself.", _choice(message=ANSWER, finish_reason="stop")),
    _form("part-value", "OpenAI's Assistants API, text.value", "A part's text is an object with a value.", *(delta(content=[{"type": "text", "text": {"value": one}}]) for one in pieces(ANSWER)), delta("stop")),
    _form("error-of-nothing", "servers that write every field", "Each chunk has an error whose fields are empty.", *({**chunk, "error": {"code": None, "message": ""}} for chunk in texts(ANSWER)), delta("stop")),
    _form("named-words", "queues in front of a model", "Events of other names have words as data.", "event: status\ndata: waiting in the queue\n\n", *texts(ANSWER), "event: ping\ndata: ping\n\n", delta("stop")),
    _form("null-data", "proxies that write null", "Events hold null, an empty list or an empty text.", "data: null\n\n", "data: []\n\n", *texts(ANSWER), 'data: ""\n\n', delta("stop")),
    _form("heartbeat", "proxies that keep a connection open", "Unnamed events say ping.", "data: ping\n\n", *texts(ANSWER), "data: heartbeat\n\n", delta("stop")),
    _form("call-from-one", "gateways that count from 1", "The call's index is 1.", *(delta(tool_calls=[{"index": 1, "function": {"arguments": one}}]) for one in pieces(ANSWER)), delta("tool_calls")),
    _fault("native-error", "OleksandrChekhovskyi/hax#15", "OpenRouter ends with stop, and only the engine's own reason tells of a fault.", *_HALF, {"choices": [_END["choices"][0] | {"native_finish_reason": "network_error"}]}),
    _fault("base-resp", "MiniMax's API, base_resp next to choices", "The provider's own status says that something is wrong.", {"choices": [{"index": 0, "delta": {"content": ""}}], "base_resp": {"status_code": 1000, "status_msg": "unknown error"}}),
    _fault("timeout-as-invalid", "BerriAI/litellm#41777", "A cut stream is called an invalid request.", *_HALF, 'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error","code":"request_timeout","message":"stream disconnected before completion"}}\n\n'),
    _fault("choices-empty", "diegosouzapw/OmniRoute#8210", "An error stands next to empty choices.", *_HALF, {"error": {"message": "Worker local total request limit reached (33/32)", "code": 502}, "choices": []}),
    asked("inside-s-bad-request", "errors inside a stream", "BerriAI/litellm#32237", "One row is refused inside a stream, with a type and no status: it is not asked again and again.", unless(GOOD, (IS_FLAGGED, stream({"error": {"message": "Strange content", "type": "BadRequestError"}}))), openai(FLAGGED, "--max-retries", "2"), exit=3, answered=3, failed=1, requests=6),
    ends_at_once("protocol-s-anthropic", "no /v1", "Anthropic's Messages API", "Another protocol's document has token counts too.", always(Reply(dumped({"id": "msg", "type": "message", "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn", "usage": {"input_tokens": 1}}).encode(), type=JSON)), ("chat completion", "choices")),
    *(
        asked(f"finish-s-{name}", "finish reasons", source, "The answer ends half-way.", always(stream(*texts(ANSWER[:40]), delta(reason))), exit=3, answered=0, failed=3, kinds=(kind,), requests=requests)
        for name, source, reason, kind, requests in (
            ("cutoff", "servers' own words", "cutoff", "length", 9),
            ("camel", "Java gateways", "maxTokens", "length", 9),
            ("toxic", "Cohere's API, ERROR_TOXIC", "ERROR_TOXIC", "content-filter", 3),
            ("armor", "Vertex AI, MODEL_ARMOR", "MODEL_ARMOR", "content-filter", 3),
        )
    ),
    *(
        answers_all(f"finish-s-{name}", "finish reasons", source, "The server's own fault is a finish reason.", first(2, stream(*_HALF, delta(reason))), requests=5)
        for name, source, reason in (
            ("interrupted", "servers' own words", "interrupted"),
            ("time-limit", "huggingface/transformers, max_time", "time_limit"),
            ("object", "sgl-project/sglang, FINISH_ABORT", {"type": "abort", "message": "x"}),
        )
    ),
)  # fmt: skip

# Answers that are nearly right.


def _text(case: str, kind: str, source: str, text: str) -> Case:
    return answers_all(case, kind, source, "Only the form of the answer is wrong.", always(says(text)), cells=_NEGATIVE)


_SPLIT = "\n".join(dumped({name: value}) for name, value in VALUES.items())
_TEXTS = (
    *(
        _text(f"json-s-{name}", "JSON out of prose", source, text)
        for name, source, text in (
            ("braces-missing", "letta-ai/letta#297", dumped({"analysis": VALUES})[:-2]),
            ("first-brace-missing", "servers that leave out what a prompt has begun", ANSWER[1:]),
            ("semicolons", "small models", ANSWER.replace('", ', '"; ').replace("null, ", "null; ")),
            ("arrows", "models that write Ruby or PHP", _PRETTY.replace('": ', '" => ')),
            ("yaml", "models that write YAML", "\n".join(f"{name}: {'null' if value is None else value}" for name, value in VALUES.items())),
            ("back-ticks", "small models", _PRETTY.replace('"', "`")),
            ("apostrophes", "Python literals with an apostrophe inside", ANSWER.replace('"', "'").replace("customer says", "customer's friend's note says")),
            ("german-quotes", "models that write German", _PRETTY.replace('"late delivery"', "\u201elate delivery\u201c")),
            ("wide", "models that write Chinese", "\uff5b" + ANSWER[1:-1].replace(": ", "\uff1a").replace('", ', '"\u3001') + "\uff5d"),
            ("entities-numbered", "gateways that escape HTML", _PRETTY.replace('"', "&#34;")),
            ("escaped-pretty", "Mintplex-Labs/anything-llm#1627", json.dumps(_PRETTY)[1:-1]),
            ("cdata", "prompts with XML", f"<answer><![CDATA[{ANSWER}]]></answer>"),
            ("string-twice", "gateways that encode twice", dumped(dumped(ANSWER))),
            ("fence-in-string", "coze-dev/coze-studio#573", f"```json\n{dumped({'output': f'```json{chr(10)}{_PRETTY}{chr(10)}```'})}\n```"),
            ("one-key-each", "small models", _SPLIT),
            ("values-wrapped", "models that explain each field", dumped({name: {"value": value, "reason": "because"} for name, value in VALUES.items()})),
            ("quote-and-comma", "MemberJunction/MJ#4137", ANSWER.replace("customer says", 'customer said "late", and')),
            ("quote-and-colon", "MemberJunction/MJ#4137", ANSWER.replace("customer says", 'customer said: "late": the')),
            ("hex-escape", "models that write JavaScript", ANSWER.replace("customer says", "customer\\x27s note says")),
            ("half-a-pair", "tokenizers that cut a character", ANSWER.replace("says that", "says \\ud83d that")),
            ("bad-unicode-escape", "ggml-org/llama.cpp#17157", ANSWER.replace("says that", "says \\user that")),
            ("concatenated", "models that write code", _PRETTY.replace("says that", 'says " +\n    "that')),
            ("cited", "models that write Markdown", "\n".join(f"> {line}" for line in _PRETTY.split("\n"))),
            ("draft-and-final", "models that correct themselves", f"First draft:\n{OTHER}\n\nFinal answer:\n{ANSWER}"),
        )
    ),
    *(
        _text(f"reasoning-s-{name}", "reasoning text", source, text)
        for name, source, text in (
            ("other-tag", "agents' prompts", f"<internal_notes>{_DRAFT}</internal_notes>{ANSWER}"),
            ("chinese-tag", "models that write Chinese", f"【思考】{_DRAFT}【/思考】{ANSWER}"),
            ("ollama-run", "ollama/ollama, ollama run", f"Thinking...\n{_DRAFT}\n...done thinking.\n\n{ANSWER}"),
            ("headings", "models that write Markdown", f"## Reasoning\n{_DRAFT}\n## Final Answer\n{ANSWER}"),
            ("brackets", "fine-tuned models", f"[BEGIN_REASONING]{_DRAFT}[END_REASONING]{ANSWER}"),
            ("answer-tag", "vLLM's tag styles, no end of thoughts", f"{_DRAFT}\n<answer>{ANSWER}</answer>"),
            ("box", "zai-org/GLM-V", f"{_DRAFT}<|begin_of_box|>{ANSWER}<|end_of_box|>"),
            ("answer-inside", "vllm-project/vllm, guided decoding without a reasoning parser", f"<think>\n{ANSWER}"),
            ("answer-at-its-end", "vllm-project/vllm, guided decoding without a reasoning parser", f"<think>{THOUGHT}\n{ANSWER}</think>"),
        )
    ),
    *(
        _text(f"labels-s-{name}", "labels in another case", source, dumped(VALUES | {"sentiment": sentiment, "urgency": urgency}))
        for name, source, sentiment, urgency in (
            ("with-the-name", "small models", "Negative sentiment", "urgency: medium"),
            ("enum", "models that write Python", "Sentiment.NEGATIVE", "Urgency.MEDIUM"),
            ("reason", "models that explain", "Negative: late delivery", "medium - it is late"),
            ("wide", "models that write Chinese", "\uff4e\uff45\uff47\uff41\uff54\uff49\uff56\uff45", "\uff4d\uff45\uff44\uff49\uff55\uff4d"),
            ("object", "classifiers' form", {"label": "negative", "score": 0.98}, {"level": "medium"}),
            ("markup", "models that write HTML", "<b>negative</b>", "(medium)"),
        )
    ),
    asked("labels-s-other", "labels in another case", "", "A note names another label: the row is asked again.", first(1, says(dumped(VALUES | {"sentiment": "negative: or rather positive"})), GOOD), answered=3, failed=0, requests=4, cells=_NEGATIVE),
    asked("json-s-string-open", "JSON out of prose", "letta-ai/letta#297", "The last string has no end, so it may be half of one: the row is asked again.", first(1, says(ANSWER[:-9]), GOOD), answered=3, failed=0, requests=4),
)  # fmt: skip

# How long to wait.


def _wait(case: str, source: str, body: Any, *headers: tuple[str, str]) -> Case:
    rules = (Rule(GOOD, times=1), Rule(refuses(429, body, *headers), {"before_s": 1.0}), Rule(GOOD))
    about = "The server says how long to wait; who listens is refused once."
    return answers_all(f"wait-s-{case}", "rate limit", source, about, rules, requests=4)


_SLOW = problem("Slow down")
_WAITS = (
    _wait("in-words", "gateways written by hand", _SLOW, ("Retry-After", "in 2 seconds")),
    _wait("note", "gateways written by hand", _SLOW, ("Retry-After", "2 (seconds)")),
    _wait("seconds-name", "gateways with names of their own", _SLOW, ("retry-after-seconds", "2")),
    _wait("reset-after", "Discord-like proxies", _SLOW, ("x-ratelimit-reset-after", "2")),
    _wait("policies", "the draft for RateLimit headers, two policies", _SLOW, ("RateLimit", '"day";r=5;t=60, "minute";r=0;t=2')),
    _wait("no-unit", "gateways written by hand", problem("Too many requests, try again in 2")),
    _wait("clock", "SQL-like durations", problem("Too many requests, try again in 00:00:02.")),
    _wait("chinese-wait", "Chinese gateways", problem("请等待2秒")),
    _wait("field", "gateways with fields of their own", {"error": {"message": "Slow down", "retryAfter": 2}}),
    _wait("field-ms", "gateways with fields of their own", {"error": {"message": "Slow down", "retry_after_ms": 2000}}),
    _wait("gemini-delay", "google-gemini/gemini-cli, quotaResetDelay", {"error": {"message": "Slow down", "details": [{"metadata": {"quotaResetDelay": "2.0s"}}]}}),
)  # fmt: skip

# Replies of batch queues.


def _batch(case: str, source: str, about: str, make: Any) -> Case:
    base = openai()
    steps = (
        Run(args=(*base, "--export-batch", "requests.jsonl"), output="none", expect=Expect(requests=0)),
        Answer(requests="requests.jsonl", name="replies.jsonl", line=make),
        Run(args=(*base, "--import-batch", "replies.jsonl"), expect=Expect(answered=3, failed=0, requests=0)),
    )
    rules = always(GOOD)
    return Case(
        id=f"batch-s-{case}",
        kind="--import-batch",
        source=source,
        about=about,
        steps=steps,
        files=(THREE,),
        rules=rules,
    )


_BATCHES = (
    _batch("text", "Mistral's batches", "The body is a text, and the status too.", lambda name, text: {"custom_id": name, "response": {"status_code": "200", "body": dumped(whole(text))}}),
    _batch("error-of-nothing", "servers that write every field", "The error's fields are empty.", lambda name, text: {"custom_id": name, "response": {"status_code": 200, "body": whole(text)}, "error": {"code": None, "message": ""}}),
    _batch("no-response", "gateways that flatten a reply", "The body stands at the top.", lambda name, text: {"custom_id": name, "status_code": 200, "body": whole(text)}),
    _batch("anthropic-tool", "Anthropic's batches, tools", "The answer is a tool's input.", lambda name, text: {"custom_id": name, "result": {"type": "succeeded", "message": {"content": [{"type": "tool_use", "input": json.loads(text)}], "stop_reason": "tool_use"}}}),
)  # fmt: skip

_OLLAMA = (
    answers_all("model-s-ollama-list", "unknown model", "proxies in front of Ollama", "The library's prefix and another case are the same model.", always(Reply(dumped({"model": "m", "message": {"content": ANSWER}, "done": True, "done_reason": "stop"}).encode(), type=JSON)), args=ollama(THREE, model="registry.ollama.ai/library/m"), cells=_NEGATIVE),
)  # fmt: skip

_BLANKS = (delta(content=" " * 50) for _ in range(12))
_WHOLE = (
    answers_all("budget-s-whole", "reasoning uses up the limit", "lmstudio-ai/lmstudio-bug-tracker, finish reasons", "The answer is whole although the limit has ended it.", always(says(ANSWER, "length")), cells=_NEGATIVE),
    answers_all("budget-s-blanks", "reasoning uses up the limit", "vllm-project/vllm, guided decoding: blanks without end", "Blanks follow the answer up to the limit.", always(stream(*texts(ANSWER), *_BLANKS, delta("length"))), cells=_NEGATIVE),
    answers_all("inside-s-behind-the-end", "errors inside a stream", "gateways that fail at their own records", "An error is reported behind a whole answer.", always(stream(*texts(ANSWER), delta("stop"), problem("failed to log", code=500)))),
    answers_all("soon-s-page", "a server that is not ready", "Render and Hugging Face Spaces", "The host shows a page while it starts the server.", first(2, Reply(web_page("Application loading").encode(), type=HTML)), requests=5),
    answers_all("parameter-s-ollama-format", "refused parameters", "ollama/ollama before 0.5", "An old Ollama takes no schema: it goes to the prompt.", unless(GOOD_OLLAMA, ({"has": ["format"]}, refuses(400, {"error": "json: cannot unmarshal object into Go struct field ChatRequest.format of type string"}))), args=ollama(), requests=4),
)  # fmt: skip

CASES: tuple[Case, ...] = (*_REFUSALS, *_PARAMETERS, *_FORMS, *_TEXTS, *_WAITS, *_BATCHES, *_OLLAMA, *_WHOLE)
