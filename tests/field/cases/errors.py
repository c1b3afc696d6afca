"""Refusals of servers: whose fault they are, how long to wait, and when to end."""

from __future__ import annotations

from typing import Any

from field.cases.common import (
    FLAGGED,
    IS_FLAGGED,
    IS_LONG,
    LONG,
    MANY,
    PI_OVERFLOW,
    TWELVE,
    answers_all,
    asked,
    ends_at_once,
    ollama,
    openai,
)
from field.model import GIVEN, Case
from field.wire import (
    ANSWER,
    GOOD,
    GOOD_OLLAMA,
    HTML,
    JSON,
    Reply,
    Rule,
    always,
    first,
    last,
    line,
    lines,
    pieces,
    problem,
    refuses,
    says,
    unless,
    web_page,
)

# An unknown model. One clear line, few requests, and the nearest names of the server's list.

_MODELS = ("granite-4.1-3b-instruct", "llama-3.3-70b", "qwen3-8b")
_WRONG = "granite-4.1-3b-instuct"


def _model(case: str, source: str, about: str, reply: Reply, *words: Any, **more: Any) -> Case:
    """The server does not have the model; the message names the nearest one that it has."""
    usual: dict[str, Any] = {"args": openai(TWELVE, model=_WRONG), "models": _MODELS}
    return ends_at_once(
        f"model-{case}",
        "unknown model",
        source,
        about,
        always(reply),
        *words,
        "granite-4.1-3b-instruct",
        **(usual | more),
    )


_UNKNOWN = (
    _model(
        "openrouter",
        GIVEN,
        "OpenRouter says 400.",
        refuses(400, {"error": {"message": "@MODEL@ is not a valid model ID", "code": 400}, "user_id": "u"}),
        "not a valid model",
    ),
    _model(
        "litellm",
        GIVEN,
        "LiteLLM says 400 and names the list.",
        refuses(
            400,
            problem(
                "/chat/completions: Invalid model name passed in model=@MODEL@. Call `/v1/models` to view available"
                " models for your key.",
                type="invalid_request_error",
                param="model",
                code="400",
            ),
        ),
        "invalid model name",
    ),
    _model(
        "openai",
        "OpenAI's API, model_not_found",
        "OpenAI says 404 with a code.",
        refuses(
            404,
            problem(
                "The model `@MODEL@` does not exist or you do not have access to it.",
                type="invalid_request_error",
                param=None,
                code="model_not_found",
            ),
        ),
        "does not exist",
    ),
    _model(
        "vllm",
        "vllm-project/vllm#3485",
        "vLLM says 404, with the error at the top.",
        refuses(
            404,
            {
                "object": "error",
                "message": "The model `@MODEL@` does not exist.",
                "type": "NotFoundError",
                "param": None,
                "code": 404,
            },
        ),
        "does not exist",
    ),
    _model(
        "no-endpoints",
        "vyancharuk/nodejs-api-boilerplate#16",
        "OpenRouter has no endpoint for the model, which is not about the address.",
        refuses(404, {"error": {"message": "No endpoints found for @MODEL@.", "code": 404}, "user_id": "u"}),
        "no endpoints found",
        silent=("mostly in /v1",),
    ),
    _model(
        "mistral",
        "Mistral's API, code 1500",
        "Mistral says 400, with the error at the top.",
        refuses(
            400,
            {
                "object": "error",
                "message": "Invalid model: @MODEL@",
                "type": "invalid_model",
                "param": None,
                "code": "1500",
            },
        ),
        "invalid model",
    ),
    _model(
        "deepseek",
        "DeepSeek's API, Model Not Exist",
        "DeepSeek says 400 with a code that says nothing.",
        refuses(
            400, problem("Model Not Exist", type="invalid_request_error", param=None, code="invalid_request_error")
        ),
        "model not exist",
    ),
    _model(
        "moonshot",
        "Moonshot's API, resource_not_found_error",
        "Moonshot says 404 and does not tell whether it is the model or the rights.",
        refuses(404, problem("Not found the model @MODEL@ or Permission denied", type="resource_not_found_error")),
        "not found the model",
    ),
    _model(
        "zhipu",
        "Zhipu's API, code 1211",
        "Zhipu says 400 in Chinese.",
        refuses(400, problem("模型不存在", code="1211")),
        "模型不存在",
    ),
    _model(
        "together",
        "Together's API, model_not_available",
        "Together says 404 with a code of its own.",
        refuses(
            404,
            problem(
                "Unable to access model @MODEL@. Please visit the list of supported models.",
                type="invalid_request_error",
                param=None,
                code="model_not_available",
            ),
        ),
        "unable to access model",
    ),
    _model(
        "fireworks",
        "Fireworks' API, NOT_FOUND",
        "Fireworks says 404.",
        refuses(
            404,
            {
                "error": {
                    "object": "error",
                    "type": "invalid_request_error",
                    "code": "NOT_FOUND",
                    "message": "Model not found, inaccessible, and/or not deployed",
                }
            },
        ),
        "not deployed",
    ),
    _model(
        "gemini",
        "Gemini's OpenAI endpoint, errors as a list",
        "Gemini says 404 in a list.",
        refuses(
            404,
            [
                {
                    "error": {
                        "code": 404,
                        "message": "models/@MODEL@ is not found for API version v1main, or is not supported for"
                        " generateContent.",
                        "status": "NOT_FOUND",
                    }
                }
            ],
        ),
        "is not found for api version",
    ),
    _model(
        "xai",
        "xAI's API, code and error",
        "xAI has the code and the message next to each other.",
        refuses(
            404,
            {
                "code": "Some requested entity was not found",
                "error": "The model @MODEL@ does not exist or your team does not have access to it.",
            },
        ),
        "does not exist",
    ),
    _model(
        "bedrock",
        "aws-samples/bedrock-access-gateway",
        "Bedrock says 400 with a message only.",
        refuses(400, {"message": "The provided model identifier is invalid."}),
        "model identifier is invalid",
    ),
    _model(
        "nim",
        "Alishahryar1/free-claude-code#956",
        "NVIDIA's gateway says 404 about a function and an account.",
        refuses(404, {"status": 404, "title": "Not Found", "detail": "Function 'f-1': Not found for account 'a-1'"}),
        "not found for account",
    ),
    _model(
        "nim-page",
        "NousResearch/hermes-agent#78796",
        "A model's name without its prefix gets a bare 404, although the address is right.",
        refuses(404, "404 page not found", type="text/plain"),
        "404",
    ),
    _model(
        "gone",
        "decolua/9router#2617",
        "The model has reached its end of life: 410.",
        refuses(
            410,
            {
                "type": "about:blank",
                "title": "Gone",
                "status": 410,
                "detail": "The model '@MODEL@' has reached its end of life.",
            },
            type="application/problem+json",
        ),
        "end of life",
    ),
    _model(
        "azure",
        "chatboxai/chatbox#861",
        "Azure calls it a deployment.",
        refuses(
            404,
            {
                "error": {
                    "code": "DeploymentNotFound",
                    "message": "The API deployment for this resource does not exist.",
                }
            },
        ),
        "deployment",
    ),
    _model(
        "lm-studio-load",
        "continuedev/continue#10150",
        "LM Studio cannot load the model: 400 with a string.",
        refuses(400, {"error": 'Failed to load model "@MODEL@". Error: Error loading model.'}),
        "failed to load model",
    ),
    _model(
        "ollama",
        "ollama/ollama server/routes.go",
        "Ollama's list has the model, but asking for it says 404.",
        refuses(404, {"error": "model '@MODEL@' not found"}),
        "not found",
        args=ollama(TWELVE, model=_WRONG),
        models=(_WRONG, *_MODELS),
    ),
    ends_at_once(
        "model-data-policy",
        "unknown model",
        "ShamanicArts/Flow.Launcher.Plugin.AI-Assistant#2",
        "OpenRouter has no endpoint that the account's own settings allow.",
        always(
            refuses(
                404,
                {
                    "error": {
                        "message": "No endpoints found matching your data policy. Enable prompt training here:"
                        " /settings/privacy",
                        "code": 404,
                    }
                },
            )
        ),
        "data policy",
    ),
    ends_at_once(
        "model-ollama-missing",
        "unknown model",
        "",
        "Ollama does not have the model, and names the nearest one.",
        always(GOOD_OLLAMA),
        "granite4.1:3b",
        args=ollama(TWELVE, model="granite4.1:3"),
        models=("granite4.1:3b", "qwen3:8b"),
        requests=0,
    ),
    answers_all(
        "model-ollama-library",
        "unknown model",
        "the issue: library/NAME:TAG is the same model",
        "The same model is written with its library.",
        always(GOOD_OLLAMA),
        args=ollama(model="library/granite4.1:3b"),
        models=("granite4.1:3b",),
    ),
)


# A wrong key.


def _key(case: str, source: str, about: str, reply: Reply, *words: Any, **more: Any) -> Case:
    return ends_at_once(
        f"key-{case}",
        "wrong key",
        source,
        about,
        always(reply),
        *words,
        ("openai_api_key", "--key-file", "key"),
        **more,
    )


_KEYS = (
    _key(
        "gemini",
        GIVEN,
        "Gemini says 400 in a list.",
        refuses(
            400,
            [
                {
                    "error": {
                        "code": 400,
                        "message": "API key not valid. Please pass a valid API key.",
                        "status": "INVALID_ARGUMENT",
                        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
                    }
                }
            ],
        ),
        "api key not valid",
    ),
    _key(
        "xai",
        "continuedev/continue#10161",
        "xAI says 400, with a code in words.",
        refuses(
            400,
            {
                "code": "Client specified an invalid argument",
                "error": "Incorrect API key provided: sk***ld. You can obtain an API key from the console.",
            },
        ),
        "incorrect api key",
    ),
    _key(
        "litellm",
        "the issue: LiteLLM 1.108",
        "LiteLLM without a database says 400 about the database.",
        refuses(400, problem("No connected db.", type="no_db_connection", param=None, code="400")),
        "no connected db",
    ),
    _key(
        "openai",
        "continuedev/continue#10088",
        "OpenAI says 401.",
        refuses(
            401,
            problem(
                "Incorrect API key provided: sk-f***ld.",
                type="invalid_request_error",
                param=None,
                code="invalid_api_key",
            ),
        ),
        "incorrect api key",
    ),
    _key(
        "mistral",
        "stackblitz-labs/bolt.diy#341",
        "Mistral says 401 with a detail only.",
        refuses(401, {"detail": "Unauthorized"}),
        "401",
    ),
    _key(
        "kobold",
        "LostRuins/koboldcpp koboldcpp.py",
        "KoboldCpp has an object as its detail.",
        refuses(
            401,
            {
                "detail": {
                    "error": "Unauthorized",
                    "msg": "Authentication key is missing or invalid.",
                    "type": "unauthorized",
                }
            },
        ),
        "Authentication key is missing or invalid.",
        silent=('{"error"',),
    ),
    _key(
        "nginx",
        "Perplexity's API behind nginx",
        "A web page says 401.",
        refuses(401, web_page("401 Authorization Required"), type=HTML),
        "401",
    ),
    _key(
        "azure",
        "Azure OpenAI's API",
        "Azure does not tell a wrong key from a wrong address.",
        refuses(
            401,
            {
                "error": {
                    "code": "401",
                    "message": "Access denied due to invalid subscription key or wrong API endpoint.",
                }
            },
        ),
        "invalid subscription key",
    ),
    _key(
        "cohere",
        "Cohere's API",
        "Cohere has a message only.",
        refuses(401, {"id": "1", "message": "invalid api token"}),
        "invalid api token",
    ),
    _key(
        "anthropic",
        "Anthropic's API",
        "Anthropic's form has a type at the top.",
        refuses(401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}),
        "invalid x-api-key",
    ),
    _key(
        "zhipu",
        "Zhipu's API, code 1000",
        "Zhipu says it in Chinese.",
        refuses(401, problem("身份验证失败。", code="1000")),
        "身份验证失败",
    ),
    ends_at_once(
        "key-ollama-cloud",
        "wrong key",
        "ollama/ollama server/routes.go",
        "Ollama's cloud wants a sign-in, and says where.",
        always(refuses(401, {"error": "unauthorized", "signin_url": "https://ollama.com/connect?name=n&key=k"})),
        ("ollama signin", "ollama.com/connect"),
        args=ollama(TWELVE),
    ),
    asked(
        "key-ollama-bearer",
        "wrong key",
        "the issue: a bearer key is sent",
        "An Ollama behind a proxy wants a key, which stands in its own variable.",
        (Rule(GOOD_OLLAMA, {"key": "secret-7"}), Rule(refuses(401, {"error": "unauthorized"}))),
        ollama(),
        env={"OLLAMA_API_KEY": "secret-7"},
        answered=3,
        failed=0,
        requests=3,
        silent=("secret-7",),
    ),
)


# Nothing left to spend, for today or at all.


def _quota(case: str, source: str, about: str, reply: Reply, *words: Any, **more: Any) -> Case:
    return ends_at_once(f"quota-{case}", "quota", source, about, always(reply), *words, **more)


_QUOTAS = (
    _quota(
        "moonshot",
        GIVEN,
        "Moonshot says 429 when the account is empty.",
        refuses(
            429,
            problem(
                "Your account is suspended due to insufficient balance, please recharge your account or check"
                " your plan and billing details",
                type="exceeded_current_quota_error",
            ),
        ),
        "insufficient balance",
    ),
    _quota(
        "openai",
        "OpenAI's API, insufficient_quota",
        "OpenAI says 429 with a code.",
        refuses(
            429,
            problem(
                "You exceeded your current quota, please check your plan and billing details.",
                type="insufficient_quota",
                param=None,
                code="insufficient_quota",
            ),
        ),
        "current quota",
    ),
    _quota(
        "deepseek",
        "666ghj/BettaFish#286",
        "DeepSeek says 402 with a code for bad requests.",
        refuses(402, problem("Insufficient Balance", type="unknown_error", param=None, code="invalid_request_error")),
        "insufficient balance",
    ),
    _quota(
        "anthropic",
        "anthropics/anthropic-sdk-typescript#618",
        "Anthropic says 400 with the type of a bad request.",
        refuses(
            400,
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "Your credit balance is too low to access the Anthropic API. Please go to Plans"
                    " & Billing to upgrade or purchase credits.",
                },
            },
        ),
        "credit balance is too low",
    ),
    _quota(
        "openrouter",
        "Alishahryar1/free-claude-code#772",
        "OpenRouter says 402.",
        refuses(
            402, {"error": {"message": "Insufficient credits. This account never purchased credits.", "code": 402}}
        ),
        "insufficient credits",
    ),
    _quota(
        "openrouter-max-tokens",
        "OpenRouter's API, 402",
        "OpenRouter says that fewer tokens could be paid for.",
        refuses(
            402,
            {
                "error": {
                    "message": "This request requires more credits, or fewer max_tokens. You requested up to"
                    " 320 tokens, but can only afford 41.",
                    "code": 402,
                }
            },
        ),
        "more credits",
    ),
    _quota(
        "openrouter-day",
        "Gitlawb/openclaude#936",
        "OpenRouter's free models have a limit for the day.",
        refuses(
            429,
            {
                "error": {
                    "message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free"
                    " model requests per day",
                    "code": 429,
                    "metadata": {
                        "headers": {
                            "X-RateLimit-Limit": "50",
                            "X-RateLimit-Remaining": "0",
                            "X-RateLimit-Reset": "4102444800000",
                        }
                    },
                }
            },
        ),
        "free-models-per-day",
    ),
    _quota(
        "openrouter-day-bare",
        "Gitlawb/openclaude#1549",
        "A gateway leaves only the name of the day's limit.",
        refuses(
            429, problem("Rate limit exceeded: free-models-per-day-high-balance.", type="rate_limit_error", code="429")
        ),
        "free-models-per-day",
    ),
    _quota(
        "groq-day",
        "continuedev/continue#10920",
        "Groq's tokens for the day are used up, and the wait stands in the message.",
        refuses(
            429,
            problem(
                "Rate limit reached for model `m` in organization `o` service tier `on_demand` on tokens per"
                " day (TPD): Limit"
                " 100000, Used 97050, Requested 3619. Please try again in 9m38.016s.",
                type="tokens",
                code="rate_limit_exceeded",
            ),
        ),
        "tokens per day",
    ),
    _quota(
        "gemini-day",
        "google-gemini/gemini-cli#8437",
        "Gemini's requests for the day are used up, although the wait that it names is short.",
        refuses(
            429,
            [
                {
                    "error": {
                        "code": 429,
                        "message": "You exceeded your current quota, please check your plan and billing details.",
                        "status": "RESOURCE_EXHAUSTED",
                        "details": [
                            {
                                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                                "violations": [
                                    {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "20"}
                                ],
                            },
                            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.5s"},
                        ],
                    }
                }
            ],
        ),
        "current quota",
    ),
    _quota(
        "ollama-session",
        "continuedev/continue#11444",
        "Ollama's cloud has a limit for some hours.",
        refuses(
            429,
            {
                "error": "you (name) have reached your session usage limit, upgrade for higher limits:"
                " https://ollama.com/upgrade"
            },
        ),
        "session usage limit",
        args=ollama(TWELVE),
    ),
    _quota(
        "ollama-week",
        "NousResearch/hermes-agent#68832",
        "Ollama's cloud has a limit for the week.",
        refuses(
            429,
            {
                "error": "you (name) have reached your weekly usage limit, upgrade for higher limits:"
                " https://ollama.com/upgrade (ref: 1)"
            },
        ),
        "weekly usage limit",
        args=ollama(TWELVE),
    ),
    _quota(
        "azure-day",
        "jasonacox/TinyLLM#17",
        "Azure wants a day's wait, and says so in the message only.",
        refuses(
            429,
            {
                "error": {
                    "code": "429",
                    "message": "Requests to the ChatCompletions_Create Operation have exceeded token rate limit"
                    " of your current pricing tier. Please retry after 86400 seconds.",
                }
            },
        ),
        "86400 seconds",
    ),
    _quota(
        "local-ai",
        "mudler/LocalAI core/http/auth/middleware.go",
        "LocalAI's quota for a user ends tomorrow.",
        refuses(429, problem("quota exceeded for model m", code=429, type="quota_exceeded"), ("Retry-After", "86400")),
        "quota exceeded",
    ),
    _quota(
        "gateway-403",
        "Wei-Shaw/sub2api#1015",
        "A gateway says 403.",
        refuses(403, problem("insufficient balance", type="forbidden")),
        "insufficient balance",
    ),
    _quota(
        "zhipu",
        "Zhipu's API, code 1113",
        "Zhipu says 429 with a number of its own.",
        refuses(429, problem("余额不足或无可用资源包,请充值。", code="1113")),
        "余额不足",
    ),
)


# How long to wait. The server refuses for a while and says how long; who listens is refused once.


def _wait(case: str, source: str, about: str, refusal: Reply, **more: Any) -> Case:
    rules = (Rule(GOOD, times=1), Rule(refusal, {"before_s": 1.0}), Rule(GOOD))
    # The first row is answered, the second one is refused while a second lasts.
    return answers_all(f"wait-{case}", "rate limit", source, about, rules, **({"requests": 4} | more))


def _slow(message: str, *headers: tuple[str, str], **more: Any) -> Reply:
    return refuses(429, problem(message, **more), *headers)


_WAITS = (
    _wait(
        "body-seconds",
        "elizaOS/eliza#4040",
        "Groq says the wait in the message.",
        _slow(
            "Rate limit reached for model `m` on tokens per minute (TPM): Limit 6000, Used 5034, Requested"
            " 1443. Please try again in 1.27s.",
            type="tokens",
            code="rate_limit_exceeded",
        ),
    ),
    _wait(
        "body-milliseconds",
        "OpenAI's API, rate limits",
        "OpenAI says it in milliseconds.",
        _slow(
            "Rate limit reached for m on requests per min (RPM): Limit 500, Used 500, Requested 1. Please try"
            " again in 1120ms.",
            type="requests",
            code="rate_limit_exceeded",
        ),
    ),
    _wait(
        "azure-words",
        "pollinations/pollinations#6260",
        "Azure says after how many seconds.",
        _slow(
            "Your request exceeds the maximum usage size allowed during peak load. Please retry after 2 seconds.",
            code="429",
        ),
    ),
    _wait(
        "google-words",
        "can1357/oh-my-pi#1254",
        "Google says it in the message.",
        refuses(
            429,
            [
                {
                    "error": {
                        "code": 429,
                        "message": "You exceeded your current quota for requests per minute. Please retry in"
                        " 1.207338s.",
                        "status": "RESOURCE_EXHAUSTED",
                    }
                }
            ],
        ),
    ),
    _wait(
        "google-details",
        "NikkeTryHard/zerogravity#19",
        "Google says it in the error's details.",
        refuses(
            429,
            [
                {
                    "error": {
                        "code": 429,
                        "message": "Resource has been exhausted (e.g. check quota).",
                        "status": "RESOURCE_EXHAUSTED",
                        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.2s"}],
                    }
                }
            ],
        ),
    ),
    _wait("seconds-with-unit", GIVEN, "Retry-After has a unit.", _slow("Slow down", ("Retry-After", "2s"))),
    _wait("negative", GIVEN, "Retry-After is negative.", _slow("Slow down", ("Retry-After", "-1")), requests=9),
    _wait(
        "milliseconds",
        "Portkey-AI/gateway src/globals.ts",
        "The header counts milliseconds.",
        _slow("Slow down", ("retry-after-ms", "1200")),
    ),
    _wait(
        "azure-header",
        "Portkey-AI/gateway src/globals.ts",
        "Azure's header has its own prefix.",
        _slow("Slow down", ("x-ms-retry-after-ms", "1200")),
    ),
    _wait(
        "litellm",
        "the issue: LiteLLM 1.108",
        "LiteLLM repeats the provider's header with a prefix.",
        _slow("litellm.RateLimitError", ("llm_provider-retry-after", "2"), type="throttling_error", code="429"),
    ),
    _wait(
        "anthropic-reset",
        "anthropics/anthropic-sdk-typescript#357",
        "Only the reset times are there, as points in time.",
        _slow(
            "This request would exceed your rate limit",
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "@IN_1_S@"),
            type="rate_limit_error",
        ),
        requests=5,
    ),
    _wait(
        "openrouter-reset",
        "Gitlawb/openclaude#936",
        "The reset time stands in the body, in milliseconds since 1970.",
        refuses(
            429,
            {
                "error": {
                    "message": "Rate limit exceeded: free-models-per-min.",
                    "code": 429,
                    "metadata": {
                        "headers": {
                            "X-RateLimit-Limit": "20",
                            "X-RateLimit-Remaining": "0",
                            "X-RateLimit-Reset": "@IN_1_S_MS@",
                        }
                    },
                }
            },
        ),
        requests=5,
    ),
    _wait(
        "reset-after",
        "Pythagora-io/gpt-pilot#862",
        "Only the reset of the tokens is there, as a duration.",
        _slow("Rate limit reached", ("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "1.2s")),
    ),
    answers_all(
        "wait-epoch-on-success",
        "rate limit",
        GIVEN,
        "A good answer says that nothing is left until a point in time.",
        always(
            Reply(
                GOOD.body,
                headers=(("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "@IN_1_S_MS@")),
            )
        ),
    ),
    answers_all(
        "wait-minus-one",
        "rate limit",
        GIVEN,
        "Azure says that minus one request is left, which means that it does not know.",
        always(
            Reply(
                GOOD.body,
                headers=(
                    ("x-ratelimit-remaining-requests", "-1"),
                    ("x-ratelimit-remaining-tokens", "-1"),
                    ("x-ratelimit-reset-tokens", "0"),
                ),
            )
        ),
    ),
    asked(
        "wait-row-too-large",
        "rate limit",
        "HunorLaczko/ha-groq-cloud-api#27",
        "One row is larger than what a minute may hold: 413, and waiting does not help.",
        unless(
            GOOD,
            (
                IS_LONG,
                refuses(
                    413,
                    problem(
                        "Request too large for model m in organization o service tier on_demand on tokens per"
                        " minute (TPM): Limit"
                        " 6000, Requested 12328, please reduce your message size and try again.",
                        type="tokens",
                        code="rate_limit_exceeded",
                    ),
                ),
            ),
        ),
        openai(LONG),
        exit=3,
        answered=2,
        failed=1,
        requests=4,
    ),
    asked(
        "wait-never-ends",
        "rate limit",
        "the issue: at most 12 attempts",
        "A row that is refused with 429 for ever is sent twelve times at most.",
        unless(
            GOOD,
            ({"prompt": ["picked up the phone"]}, refuses(429, problem("Too many requests"), ("Retry-After", "0"))),
        ),
        exit=(3, 4),
        answered=2,
        requests=14,
    ),
)


# One row that the server will not take. The others are answered.


def _row(case: str, source: str, about: str, reply: Reply, **more: Any) -> Case:
    usual: dict[str, Any] = {"exit": 3, "answered": 3, "failed": 1, "requests": 4}
    return asked(
        f"row-{case}",
        "one row refused",
        source,
        about,
        unless(GOOD, (IS_FLAGGED, reply)),
        openai(FLAGGED, "--max-retries", "2"),
        **(usual | more),
    )


_FILTER = ("content-filter", "refused")

_ROWS = (
    _row(
        "openrouter",
        GIVEN,
        "OpenRouter's moderation says 403.",
        refuses(
            403,
            {
                "error": {
                    "code": 403,
                    "message": 'The model requires moderation and the input was flagged for "harassment".',
                    "metadata": {"reasons": ["harassment"], "flagged_input": "..."},
                }
            },
        ),
        requests=9,
        kinds=_FILTER,
    ),
    _row(
        "cloudflare",
        "OpenHands/OpenHands#4480",
        "A firewall answers one row with a web page and 403.",
        refuses(403, web_page("Attention Required! | Cloudflare", "Sorry, you have been blocked"), type=HTML),
        requests=9,
    ),
    _row(
        "waf-406",
        "different-ai/openwork#3419",
        "A firewall calls it 406.",
        refuses(
            406,
            web_page("Not Acceptable!", "An appropriate representation could not be found. Mod_Security."),
            type=HTML,
        ),
        requests=9,
    ),
    _row(
        "waf-404",
        "the issue: a 404 after correct answers",
        "A firewall hides behind 404.",
        refuses(404, web_page("404 Not Found", "nginx"), type=HTML),
        requests=9,
    ),
    _row(
        "waf-200",
        "the issue: an HTML page after correct answers",
        "A firewall answers one row with a web page and 200.",
        Reply(
            web_page("Request Rejected", "The requested URL was rejected. Your support ID is 1.").encode(), type=HTML
        ),
        requests=9,
    ),
    _row(
        "unauthorized",
        "the issue: a 401 after correct answers",
        "One row gets 401, the others do not.",
        refuses(401, {"detail": "Unauthorized"}),
        requests=9,
    ),
    _row(
        "deepseek",
        "666ghj/BettaFish#108",
        "DeepSeek's filter says 400 with the type of a bad request.",
        refuses(
            400, problem("Content Exists Risk", type="invalid_request_error", param=None, code="invalid_request_error")
        ),
        requests=6,
        kinds=_FILTER,
    ),
    _row(
        "deepseek-detail",
        "deepseek-ai/DeepSeek-V2#30",
        "The same filter with a detail only.",
        refuses(400, {"detail": "Content Exists Risk"}),
        requests=6,
        kinds=_FILTER,
    ),
    _row(
        "dashscope",
        "DashScope's API, data_inspection_failed",
        "DashScope's filter has a code of its own.",
        refuses(
            400,
            problem(
                "Input data may contain inappropriate content.",
                type="data_inspection_failed",
                param=None,
                code="data_inspection_failed",
            ),
        ),
        kinds=("content-filter",),
    ),
    _row(
        "moonshot",
        "666ghj/BettaFish#228",
        "Moonshot has the filter in the type and a number as the code.",
        refuses(
            400,
            problem(
                "The request was rejected because it was considered high risk",
                code=400,
                param="prompt",
                type="content_filter",
            ),
        ),
        kinds=("content-filter",),
    ),
    _row(
        "zhipu",
        "Zhipu's API, code 1301",
        "Zhipu's filter has a number.",
        refuses(
            400,
            {
                "contentFilter": [{"level": 1, "role": "user"}],
                "error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"},
            },
        ),
        requests=6,
        kinds=_FILTER,
    ),
    _row(
        "azure",
        "Azure OpenAI's API, content_filter",
        "Azure's filter has an inner error.",
        refuses(
            400,
            problem(
                "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
                type=None,
                param="prompt",
                code="content_filter",
                status=400,
                innererror={"code": "ResponsibleAIPolicyViolation"},
            ),
        ),
        kinds=("content-filter",),
    ),
    _row(
        "server-fault",
        "ollama/ollama issues on one prompt that crashes the runner",
        "One row makes the server fail each time: it fails alone.",
        refuses(500, problem("Internal server error", type="server_error")),
        requests=9,
    ),
    answers_all(
        "row-passing-401",
        "one row refused",
        "the issue: first the row's or a passing one",
        "A 401 passes.",
        (Rule(GOOD, times=1), Rule(refuses(401, {"detail": "Unauthorized"}), times=1), Rule(GOOD)),
        requests=4,
    ),
    answers_all(
        "row-passing-404",
        "one row refused",
        "the issue: first the row's or a passing one",
        "A proxy has lost its server for a moment, and says 404.",
        (Rule(GOOD, times=1), Rule(refuses(404, "default backend - 404", type="text/plain"), times=2), Rule(GOOD)),
        requests=5,
    ),
    answers_all(
        "row-passing-page",
        "one row refused",
        "Erol444/gpt4-openai-api#13",
        "Cloudflare waits in vain for its server: 524 with a web page.",
        (Rule(GOOD, times=1), Rule(refuses(524, web_page("A timeout occurred"), type=HTML), times=2), Rule(GOOD)),
        requests=5,
    ),
    asked(
        "row-key-revoked",
        "one row refused",
        "the issue: several different rows in a row end the run",
        "After one answer the key is taken away: the run ends, and does not try every row.",
        (Rule(GOOD, times=1), Rule(refuses(401, problem("Your key has been revoked.", code="invalid_api_key")))),
        openai(MANY, "--max-retries", "1"),
        exit=4,
        requests=40,
        says=("revoked",),
    ),
    asked(
        "row-payload-too-large",
        "one row refused",
        "nginx, client_max_body_size",
        "A proxy does not let a large row through: 413 with a web page.",
        unless(GOOD, (IS_LONG, refuses(413, web_page("413 Request Entity Too Large", "nginx"), type=HTML))),
        openai(LONG, "--max-retries", "2"),
        exit=3,
        answered=2,
        failed=1,
        requests=6,
    ),
)


# Everything fails alike: the run stops after 20 to 50 rows, and says the commonest message.


def _alike(case: str, source: str, about: str, reply: Reply, requests: int, *words: Any, **more: Any) -> Case:
    usual: dict[str, Any] = {"args": openai(MANY, "--max-retries", "1"), "exit": 4, "answered": 0, "requests": requests}
    return asked(f"alike-{case}", "everything fails alike", source, about, always(reply), says=words, **(usual | more))


_ALIKE = (
    _alike(
        "prose",
        "the issue: everything fails alike",
        "The model answers everything with prose.",
        says("I cannot answer in this form."),
        150,
        "json",
    ),
    _alike(
        "filter",
        "the issue: everything fails alike",
        "A filter refuses every row.",
        refuses(400, problem("The prompt was flagged.", code="content_filter")),
        60,
        "flagged",
    ),
    _alike(
        "context",
        "the issue: everything fails alike",
        "The context is too small even for the instructions.",
        refuses(
            400,
            problem(
                "This model's maximum context length is 512 tokens. However, your messages resulted in 900 tokens.",
                code="context_length_exceeded",
            ),
        ),
        60,
        "maximum context length",
    ),
    _alike("empty", "the issue: everything fails alike", "Every answer is empty.", says(""), 150, "empty"),
    _alike(
        "system-role",
        "microsoft/autogen#1037",
        "The chat template takes no system message.",
        refuses(
            400,
            {
                "object": "error",
                "message": "System role not supported",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
        ),
        60,
        "system role",
    ),
    asked(
        "alike-three-rows",
        "everything fails alike",
        "the issue: the end of a run always shows the commonest message",
        "Even a short run ends with the message of what failed.",
        always(
            refuses(422, {"detail": [{"loc": ["body", "messages"], "msg": "strange schema", "type": "value_error"}]})
        ),
        exit=(3, 4),
        answered=0,
        says=("strange schema",),
    ),
    asked(
        "alike-some-fail",
        "everything fails alike",
        "the issue: the end of a run always shows the commonest message",
        "Of three rows one fails: the message is shown at the end.",
        unless(GOOD, ({"prompt": ["screen"]}, refuses(400, problem("The word screen is not allowed here.")))),
        exit=3,
        answered=2,
        failed=1,
        requests=6,
        says=("the word screen is not allowed",),
    ),
)


# The prompt does not fit. The row is asked once and fails alone.


def _context(case: str, source: str, message: str, status: int = 400, body: Any = None, **more: Any) -> Case:
    reply = refuses(status, problem(message, type="invalid_request_error") if body is None else body)
    good = GOOD_OLLAMA if case.startswith("ollama") else GOOD
    args = ollama(LONG) if case.startswith("ollama") else openai(LONG)
    usual: dict[str, Any] = {"exit": 3, "answered": 2, "failed": 1, "requests": 3, "kinds": ("context-too-long",)}
    about = "One row is too long for the context."
    return asked(
        f"context-{case}", "context too long", source, about, unless(good, (IS_LONG, reply)), args, **(usual | more)
    )


_CONTEXTS = (
    _context(
        "openai",
        "chathub-dev/chathub#126",
        "",
        body=problem(
            "This model's maximum context length is 4097 tokens. However, your messages resulted in 9294 tokens.",
            type="invalid_request_error",
            param="messages",
            code="context_length_exceeded",
        ),
    ),
    _context(
        "openai-window",
        PI_OVERFLOW,
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
    _context(
        "vllm",
        "vllm-project/vllm#20409",
        "",
        body={
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 9591 tokens"
            " (9271 in the messages, 320 in the completion). Please reduce the length of the messages or completion.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    _context(
        "vllm-new",
        "vllm-project/vllm#36197",
        "You passed 9271 input tokens and requested 320 output tokens. However, the model's context length is"
        " only 4096 tokens, resulting in a maximum input length of 3776 tokens.",
    ),
    _context(
        "vllm-decoder",
        "Gabesarch/grounded-rl#16",
        "The decoder prompt (length 10127) is longer than the maximum model length of 8192. Make sure that"
        " `max_model_len` is no smaller than the number of text tokens.",
    ),
    _context(
        "sglang",
        "QwenLM/Qwen3#1321",
        "",
        body={
            "object": "error",
            "message": "The input (9709 tokens) is longer than the model's context length (4096 tokens).",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    _context(
        "llama-cpp",
        "cline/kanban#505",
        "",
        body={
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9271,
                "n_ctx": 4096,
            }
        },
    ),
    _context(
        "lm-studio",
        "lmstudio-ai/lmstudio-bug-tracker#237",
        "",
        body={
            "error": "Trying to keep the first 9271 tokens when context the overflows. However, the model is"
            " loaded with context length of only 4096 tokens, which is not enough."
        },
    ),
    _context(
        "lm-studio-keep",
        "Gitlawb/openclaude#353",
        "",
        body={
            "error": "The number of tokens to keep from the initial prompt is greater than the context length"
            " (n_keep: 9271>= n_ctx: 4096). Try to load the model with a larger context length, or provide a"
            " shorter input."
        },
    ),
    _context(
        "lm-studio-truncate",
        "anomalyco/opencode#11141",
        "",
        body={"error": "Cannot truncate prompt with n_keep (9271) >= n_ctx (4096)"},
    ),
    _context(
        "tgi",
        "huggingface/text-generation-inference router/src/validation.rs",
        "",
        422,
        {
            "error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 9271",
            "error_type": "validation",
        },
    ),
    _context("groq", PI_OVERFLOW, "Please reduce the length of the messages or completion."),
    _context(
        "gemini",
        PI_OVERFLOW,
        "",
        body=[
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1196265) exceeds the maximum number of tokens allowed"
                    " (1048575).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
    _context(
        "xai",
        PI_OVERFLOW,
        "",
        body={
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        },
    ),
    _context(
        "mistral",
        PI_OVERFLOW,
        "",
        body={
            "object": "error",
            "message": "Prompt contains 40271 tokens and 0 draft tokens, too large for model with 32768 maximum"
            " context length",
            "type": "invalid_request_prompt",
            "param": None,
            "code": "3051",
        },
    ),
    _context("kimi", PI_OVERFLOW, "Invalid request: Your request exceeded model token limit: 8192 (requested: 9271)"),
    _context("minimax", PI_OVERFLOW, "invalid params, context window exceeds limit"),
    _context(
        "poolside",
        "earendil-works/pi#4943",
        "Input length 131393 exceeds the maximum allowed input length of 131040 tokens.",
    ),
    _context(
        "parentheses",
        "earendil-works/pi#5677",
        "Input length (265330) exceeds model's maximum context length (262144).",
    ),
    _context(
        "anthropic",
        PI_OVERFLOW,
        "",
        body={
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "prompt is too long: 213462 tokens > 200000 maximum"},
        },
    ),
    _context(
        "anthropic-sum",
        "continuedev/continue#6080",
        "",
        body={
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000,"
                " decrease input length or `max_tokens` and try again",
            },
        },
    ),
    _context("bedrock", PI_OVERFLOW, "", body={"message": "Input is too long for requested model."}),
    _context(
        "ds4",
        "antirez/ds4#150",
        "",
        body={
            "error": {
                "message": "Prompt tokens (9271) exceeds context size (4096)",
                "type": "context_exceeded",
                "n_prompt_tokens": 9271,
                "n_ctx": 4096,
            }
        },
    ),
    _context(
        "litellm",
        "kortix-ai/suna#172",
        "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError:"
        " OpenAIException - This model's maximum context length is 4096 tokens.",
    ),
    _context(
        "ollama", "the issue: a real Ollama 0.17.4", "", body={"error": "the input length exceeds the context length"}
    ),
    _context(
        "ollama-words", PI_OVERFLOW, "", body={"error": "prompt too long; exceeded max context length by 5175 tokens"}
    ),
    asked(
        "context-throttled",
        "context too long",
        "jin-bo/agentao#88",
        "Bedrock's throttling speaks of too many tokens, and passes.",
        first(
            1, refuses(429, {"message": "ThrottlingException: Too many tokens, please wait before trying again."}), GOOD
        ),
        answered=3,
        failed=0,
        requests=4,
    ),
)


# Ollama.

_OLLAMA = (
    asked(
        "ollama-window",
        "Ollama's context",
        GIVEN,
        "Ollama cuts a long prompt silently unless a window is asked for.",
        (
            Rule(
                refuses(400, {"error": "the input length exceeds the context length"}),
                {"over_window": True, "is": {"truncate": False}},
            ),
            Rule(
                lines(*(line(piece) for piece in pieces(ANSWER)), last(prompt="@KEPT@").replace('"@KEPT@"', "@KEPT@"))
            ),
        ),
        ollama(LONG),
        answered=3,
        failed=0,
        requests=6,
        sends=({"has": ["options.num_ctx"], **IS_LONG},),
    ),
    asked(
        "ollama-small-window",
        "Ollama's context",
        GIVEN,
        "The server's own limit is smaller than the window that is asked for: the cut is noticed by the counts.",
        unless(
            lines(
                *(line(piece) for piece in pieces(ANSWER)), last(prompt="@PROMPT@").replace('"@PROMPT@"', "@PROMPT@")
            ),
            (IS_LONG, lines(*(line(piece) for piece in pieces(ANSWER)), last(prompt=2050))),
        ),
        ollama(LONG),
        exit=3,
        answered=2,
        failed=1,
        kinds=("context-too-long",),
        requests=5,
    ),
    asked(
        "ollama-truncate-false",
        "Ollama's context",
        "ollama/ollama api/types.go, truncate",
        "Ollama is told not to cut.",
        always(GOOD_OLLAMA),
        ollama(),
        answered=3,
        failed=0,
        requests=3,
        sends=({"is": {"truncate": False}},),
    ),
    answers_all(
        "ollama-load",
        "a server that is not ready",
        GIVEN,
        "Ollama answers twice that it has loaded the model.",
        first(2, lines(line(done=True, done_reason="load")), GOOD_OLLAMA),
        args=ollama(),
        requests=5,
    ),
    answers_all(
        "ollama-busy",
        "a server that is not ready",
        GIVEN,
        "Ollama's queue is full.",
        first(
            3, refuses(503, {"error": "server busy, please try again.  maximum pending requests exceeded"}), GOOD_OLLAMA
        ),
        args=ollama(),
        requests=6,
    ),
    answers_all(
        "ollama-runner",
        "a server that is not ready",
        GIVEN,
        "Ollama's runner has died twice.",
        first(2, refuses(500, {"error": "llama runner process has terminated: exit status 2"}), GOOD_OLLAMA),
        args=ollama(),
        requests=5,
    ),
    asked(
        "ollama-no-memory",
        "a model that does not load",
        GIVEN,
        "The model does not fit into memory: as an outage it is waited for, then the run ends with the message.",
        always(refuses(500, {"error": "model requires more system memory (5.6 GiB) than is available (3.1 GiB)"})),
        ollama(TWELVE, "--max-wait", "2s"),
        exit=4,
        answered=0,
        requests=12,
        says=("more system memory",),
    ),
    ends_at_once(
        "ollama-cannot-chat",
        "a model that does not load",
        "ollama/ollama server/routes.go",
        "The model is one for embeddings.",
        always(refuses(400, {"error": '"m" does not support chat'})),
        "does not support chat",
        args=ollama(TWELVE),
    ),
    ends_at_once(
        "ollama-too-old",
        "a model that does not load",
        "ollama/ollama server/sched.go",
        "The model is newer than the Ollama.",
        always(
            refuses(
                500,
                {
                    "error": "unable to load model: this model may be incompatible with your version of Ollama."
                    " If you previously pulled this model, try updating it by running `ollama pull m`"
                },
            )
        ),
        "incompatible with your version",
        args=ollama(TWELVE, "--max-wait", "2s"),
        requests=12,
    ),
)


# A server that is not ready, and one that does not speak at this address.


def _soon(case: str, source: str, about: str, reply: Reply, failures: int = 2, **more: Any) -> Case:
    return answers_all(
        f"soon-{case}",
        "a server that is not ready",
        source,
        about,
        first(failures, reply),
        **({"requests": 3 + failures} | more),
    )


_NOT_READY = (
    _soon(
        "llama-cpp",
        "mindverse/Second-Me#20",
        "llama.cpp is loading its model.",
        refuses(503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
    ),
    _soon(
        "local-ai",
        "mudler/LocalAI core/http/app.go",
        "LocalAI is loading its model, and says how long.",
        refuses(
            503,
            {
                "error": {"message": "model m is loading", "code": "model_loading", "type": "model_loading"},
                "loading": {"progress": 0.4},
            },
            ("Retry-After", "1"),
        ),
    ),
    _soon(
        "kobold",
        "LostRuins/koboldcpp koboldcpp.py",
        "KoboldCpp is busy.",
        refuses(503, {"detail": {"msg": "Server is busy; please try again later.", "type": "service_unavailable"}}),
    ),
    _soon(
        "gemini",
        "aliasrobotics/cai#226",
        "Gemini is overloaded, and says it in a list.",
        refuses(
            503,
            [
                {
                    "error": {
                        "code": 503,
                        "message": "The model is overloaded. Please try again later.",
                        "status": "UNAVAILABLE",
                    }
                }
            ],
        ),
    ),
    _soon(
        "ollama-cloud",
        "ollama/ollama#15934",
        "Ollama's cloud is overloaded.",
        refuses(503, {"error": "Server overloaded, please retry shortly (ref: 1)"}),
    ),
    _soon(
        "tgi-generation",
        "huggingface/text-generation-inference router/src/server.rs",
        "TGI says 424 when its own generation fails.",
        refuses(
            424,
            {"error": "Request failed during generation: Server error: CUDA out of memory", "error_type": "generation"},
        ),
    ),
    _soon(
        "tgi-overloaded",
        "huggingface/text-generation-inference router/src/server.rs",
        "TGI says 429 when it is overloaded.",
        refuses(429, {"error": "Model is overloaded", "error_type": "overloaded"}),
    ),
    _soon(
        "mistral",
        "continuedev/continue#6185",
        "Mistral has no capacity, with the type of a bad request.",
        refuses(
            429,
            {
                "object": "error",
                "message": "Service tier capacity exceeded for this model.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            },
        ),
    ),
    _soon(
        "gateway",
        "nginx, 502",
        "A proxy finds no server behind it.",
        refuses(502, web_page("502 Bad Gateway", "nginx"), type=HTML),
    ),
    _soon(
        "capacity",
        "google-gemini/gemini-cli#23520",
        "Google has no capacity for the model.",
        refuses(
            503,
            {
                "error": {
                    "code": 503,
                    "message": "No capacity available for model on the server",
                    "status": "UNAVAILABLE",
                    "details": [{"reason": "MODEL_CAPACITY_EXHAUSTED"}],
                }
            },
        ),
    ),
    answers_all(
        "soon-groq-json",
        "a server that is not ready",
        GIVEN,
        "Groq says that the model wrote bad JSON: it is asked again.",
        tuple(
            rule
            for _ in range(3)
            for rule in (
                Rule(
                    refuses(
                        400,
                        problem(
                            "Failed to generate JSON. Please adjust your prompt. See 'failed_generation' for"
                            " more details.",
                            type="invalid_request_error",
                            code="json_validate_failed",
                            failed_generation=ANSWER[:40],
                        ),
                    ),
                    times=1,
                ),
                Rule(GOOD, times=1),
            )
        ),
        requests=6,
    ),
    ends_at_once(
        "address-lm-studio",
        "no /v1",
        GIVEN,
        "LM Studio says 200 with an error for a path that it does not know.",
        always(Reply(b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}', type=JSON)),
        "/v1",
        args=openai(TWELVE, base="{url}"),
    ),
    ends_at_once(
        "address-page",
        "no /v1",
        "Open WebUI and other web servers",
        "The address has no /v1, and a web page is there.",
        unless(GOOD, ({"not_path": "/v1/chat/completions"}, Reply(web_page("Open WebUI").encode(), type=HTML))),
        "/v1",
        args=openai(TWELVE, base="{url}"),
    ),
    ends_at_once(
        "address-404",
        "no /v1",
        "vLLM and FastAPI",
        "The address has no /v1: 404 with a detail.",
        unless(GOOD, ({"not_path": "/v1/chat/completions"}, refuses(404, {"detail": "Not Found"}))),
        "/v1",
        args=openai(TWELVE, base="{url}"),
    ),
    ends_at_once(
        "address-405",
        "no /v1",
        "nginx",
        "The address is that of a static page: 405.",
        always(refuses(405, web_page("405 Not Allowed", "nginx"), type=HTML)),
        "405",
        args=openai(TWELVE, base="{url}"),
    ),
    ends_at_once(
        "address-whole-path",
        "no /v1",
        "rusiaaman/chat.md#2",
        "The whole path was given as the address.",
        unless(refuses(404, {"detail": "Not Found"}), ({"not_path": "/chat/completions/chat/completions"}, GOOD)),
        ("/v1", "chat/completions"),
        args=openai(TWELVE, base="{url}/v1/chat/completions"),
        exit=(0, 2, 4),
        answered=None,
        requests=None,
        talk=None,
    ),
)


# Parameters that a server does not take. They are given up once, for the whole run.


def _given_up(case: str, source: str, about: str, when: dict[str, Any], reply: Reply, requests: int = 4) -> Case:
    return answers_all(
        f"parameter-{case}", "refused parameters", source, about, unless(GOOD, (when, reply)), requests=requests
    )


_PARAMETERS = (
    _given_up(
        "stream-options",
        GIVEN,
        "A server with a strict schema knows no stream_options.",
        {"has": ["stream_options"]},
        refuses(
            422,
            {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "stream_options"],
                        "msg": "Extra inputs are not permitted",
                        "input": {"include_usage": True},
                    }
                ]
            },
        ),
    ),
    _given_up(
        "zero-temperature",
        "huggingface/text-generation-inference router/src/validation.rs",
        "TGI takes no temperature of zero.",
        {"in": {"temperature": [0, 0.0]}},
        refuses(
            422,
            {"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"},
        ),
    ),
    _given_up(
        "schema-deepseek",
        "DeepSeek's API, response_format",
        "DeepSeek knows JSON mode only.",
        {"is": {"response_format.type": "json_schema"}},
        refuses(
            400,
            problem(
                "This response_format type is unavailable now",
                type="invalid_request_error",
                param=None,
                code="invalid_request_error",
            ),
        ),
    ),
    _given_up(
        "schema-groq",
        "Groq's API, structured outputs",
        "The model knows no schema.",
        {"is": {"response_format.type": "json_schema"}},
        refuses(
            400,
            problem(
                "This model does not support response format `json_schema`. See supported models.",
                type="invalid_request_error",
            ),
        ),
    ),
    _given_up(
        "schema-gemini",
        "googleapis/python-genai#549",
        "Gemini translates the schema and does not know one of its words.",
        {"is": {"response_format.type": "json_schema"}},
        refuses(
            400,
            [
                {
                    "error": {
                        "code": 400,
                        "message": 'Invalid JSON payload received. Unknown name "additionalProperties" at'
                        " 'generation_config.response_schema': Cannot find field.",
                        "status": "INVALID_ARGUMENT",
                    }
                }
            ],
        ),
        requests=5,
    ),
    _given_up(
        "schema-llama-cpp",
        "ggml-org/llama.cpp, grammars",
        "llama.cpp cannot turn the schema into a grammar.",
        {"is": {"response_format.type": "json_schema"}},
        refuses(
            400,
            {
                "error": {
                    "code": 400,
                    "message": "Failed to initialize samplers: failed to parse grammar",
                    "type": "invalid_request_error",
                }
            },
        ),
    ),
    _given_up(
        "json-mode-lm-studio",
        "lmstudio-ai/lmstudio-bug-tracker#307",
        "A server knows neither a schema for this model nor JSON mode.",
        {"has": ["response_format"]},
        refuses(400, {"error": "'response_format.type' must be 'text'"}),
        requests=5,
    ),
    _given_up(
        "schema-501",
        "peonist-ai/halogen-flash-server#50",
        "A server says 501 for schemas.",
        {"is": {"response_format.type": "json_schema"}},
        refuses(501, problem("json_schema is not implemented yet", type="not_implemented")),
    ),
    _given_up(
        "max-tokens",
        "OpenAI's API, max_completion_tokens",
        "A reasoning model wants another name for the limit.",
        {"has": ["max_tokens"]},
        refuses(
            400,
            problem(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
                " 'max_completion_tokens' instead.",
                type="invalid_request_error",
                param="max_tokens",
                code="unsupported_parameter",
            ),
        ),
    ),
)

CASES: tuple[Case, ...] = (
    *_UNKNOWN,
    *_KEYS,
    *_QUOTAS,
    *_WAITS,
    *_ROWS,
    *_ALIKE,
    *_CONTEXTS,
    *_OLLAMA,
    *_NOT_READY,
    *_PARAMETERS,
)
