"""More servers' words for the same refusals, as tables: name, source, status and body."""

from __future__ import annotations

from typing import Any

from field.cases.common import (
    FLAGGED,
    IS_FLAGGED,
    IS_LONG,
    LONG,
    TWELVE,
    answers_all,
    asked,
    ends_at_once,
    ollama,
    openai,
)
from field.model import Case
from field.wire import GOOD, HTML, Reply, Rule, always, first, problem, refuses, unless, web_page

Row = tuple[str, str, int, Any]
"""Name, source, status and body of a refusal."""

_HERMES = "NousResearch/hermes-agent agent/error_classifier.py"


def _google(message: str, code: int, status: str, **more: Any) -> list[Any]:
    """An error as Google's endpoints send it: in a list."""
    return [{"error": {"code": code, "message": message, "status": status, **more}}]


def _reply(status: int, body: Any) -> Reply:
    return refuses(status, body, type="text/plain" if isinstance(body, str) else "application/json")


# Nothing left to spend: the run ends at once.

_QUOTAS: tuple[Row, ...] = (
    (
        "gemini-cap",
        "openclaw/openclaw#74120",
        429,
        _google("Your billing account has exceeded its monthly spending cap.", 429, "RESOURCE_EXHAUSTED"),
    ),
    (
        "gemini-none",
        "google-gemini/gemini-cli, free tier without a share",
        429,
        _google(
            "You exceeded your current quota. * Quota exceeded for metric: free_tier_requests, limit: 0, model: m"
            " Please retry in 33.5s.",
            429,
            "RESOURCE_EXHAUSTED",
        ),
    ),
    (
        "openrouter-key",
        "vellum-ai/vellum-assistant#38275",
        403,
        {"error": {"message": "Key limit exceeded (total limit). Manage it in your settings.", "code": 403}},
    ),
    (
        "anthropic-cap",
        "NousResearch/hermes-agent#110371",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "You have reached your specified API usage limits. You will regain access on 2099-01-01.",
            },
        },
    ),
    (
        "zai-week",
        "openclaw/openclaw#33813",
        429,
        problem("Weekly/Monthly Limit Exhausted. Your limit will reset at 2099-03-11 16:03:58", code="1310"),
    ),
    (
        "openai-balance-code",
        "zed-industries/zed#63208",
        429,
        problem("No more for this project.", code="credit_balance_exhausted"),
    ),
    (
        "openai-spend-code",
        "zed-industries/zed#63208",
        429,
        problem("No more for now.", code="organization_spend_limit_exceeded"),
    ),
    (
        "xai-team",
        "openclaw/openclaw#115881",
        403,
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Your newly created team doesn't have any credits or licenses yet.",
        },
    ),
    (
        "hugging-face",
        "huggingface/agents-course#386",
        402,
        {"error": "You have exceeded your monthly included credits for Inference Providers."},
    ),
    (
        "novita",
        "huggingface/hub-docs#2392",
        403,
        {"code": 403, "reason": "NOT_ENOUGH_BALANCE", "message": "not enough balance", "metadata": {}},
    ),
    (
        "litellm-budget",
        "openclaw/openclaw#74120",
        400,
        problem("Budget has been exceeded! Current cost: 1.23, Max budget: 1.0", type="budget_exceeded", code="400"),
    ),
    (
        "cloudflare-day",
        "Cloudflare Workers AI, code 4006",
        429,
        {
            "errors": [
                {"message": "AiError: you have used up your daily free allocation of 10,000 neurons", "code": 4006}
            ],
            "success": False,
            "result": {},
        },
    ),
    (
        "siliconflow",
        "SiliconFlow's API, code 30001",
        403,
        {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None},
    ),
    (
        "volcengine",
        "Volcengine's API, AccountOverdueError",
        403,
        problem(
            "The request failed because your account has an overdue balance.",
            code="AccountOverdueError",
            type="Forbidden",
        ),
    ),
    (
        "dashscope-free",
        "DashScope's API, AllocationQuota.FreeTierOnly",
        403,
        problem(
            "The free tier of the model has been exhausted.",
            type="AllocationQuota.FreeTierOnly",
            code="AllocationQuota.FreeTierOnly",
        ),
    ),
    (
        "fireworks-suspended",
        "Fireworks' API, PRECONDITION_FAILED",
        412,
        {"error": "Account a is suspended, possibly due to reaching the monthly spending limit."},
    ),
    (
        "github-day",
        "GitHub Models, UserByModelByDay",
        429,
        problem(
            "Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 41229 seconds before retrying.",
            code="RateLimitReached",
        ),
    ),
    (
        "cohere-trial",
        "Cohere's API, trial keys",
        429,
        {"message": "You are using a Trial key, which is limited to 1000 API calls / month."},
    ),
    (
        "cerebras-day",
        "Cerebras' API, token_quota_exceeded",
        429,
        {
            "message": "Tokens per day limit exceeded - too many tokens processed.",
            "type": "too_many_tokens_error",
            "param": "quota",
            "code": "token_quota_exceeded",
        },
    ),
    (
        "portkey",
        "Portkey-AI/gateway, usage limits",
        412,
        {"status": "failure", "message": "Portkey Error: Usage limits exceeded. Error Code: 07"},
    ),
    (
        "one-api",
        "songquanpeng/one-api, 令牌",
        401,
        problem("该令牌额度已用尽 (request id: 1)", type="one_api_error"),
    ),
    (
        "new-api",
        "Calcium-Ion/new-api, insufficient_user_quota",
        403,
        problem("用户额度不足, 剩余额度: $0.00", type="new_api_error", code="insufficient_user_quota"),
    ),
    (
        "azure-apim",
        "Azure API Management, quota policy",
        403,
        {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 12.18:30:30."},
    ),
    (
        "databricks-zero",
        "Databricks, pay-per-token endpoints",
        403,
        {
            "error_code": "PERMISSION_DENIED",
            "message": "PERMISSION_DENIED: The endpoint is temporarily disabled due to a Databricks-set rate limit"
            " of 0.",
        },
    ),
    (
        "watsonx",
        "IBM watsonx.ai, token_quota_reached",
        403,
        {
            "errors": [{"code": "token_quota_reached", "message": "Reached the monthly token quota of the lite plan"}],
            "status_code": 403,
        },
    ),
    (
        "wrapped",
        "a gateway that makes a 500 of what its provider says",
        500,
        problem("Error code: 429 - {'error': {'message': 'You exceeded your current quota', 'code': 429}}"),
    ),
)

# A key that is not taken.

_KEYS: tuple[Row, ...] = (
    (
        "azure-token",
        "Azure OpenAI's API, audience",
        401,
        {
            "statusCode": 401,
            "message": "Unauthorized. Access token is missing, invalid, audience is incorrect, or have expired.",
        },
    ),
    (
        "openai-none",
        "OpenAI's API, no key",
        401,
        problem("You didn't provide an API key. You need to provide your API key in an Authorization header."),
    ),
    ("openrouter-user", "OpenRouter's API", 401, {"error": {"message": "User not found.", "code": 401}}),
    (
        "gemini-header",
        "Gemini's API",
        400,
        _google("Missing or invalid Authorization header.", 400, "INVALID_ARGUMENT"),
    ),
    (
        "gemini-leaked",
        "Gemini's API",
        403,
        _google("Your API key was reported as leaked. Please use another API key.", 403, "PERMISSION_DENIED"),
    ),
    ("hugging-face", "Hugging Face's router", 401, {"error": "Invalid username or password."}),
    (
        "cloudflare-chain",
        "Cloudflare's API, error_chain",
        400,
        {
            "success": False,
            "errors": [
                {
                    "code": 6003,
                    "message": "Invalid request headers",
                    "error_chain": [{"code": 6111, "message": "Invalid format for Authorization header"}],
                }
            ],
        },
    ),
    (
        "bedrock",
        "Amazon Bedrock's OpenAI endpoint",
        403,
        {"Message": "Authentication failed: Please make sure your API Key is valid."},
    ),
    ("portkey", "Portkey-AI/gateway", 401, {"status": "failure", "message": "Invalid API Key. Error Code: 03"}),
    ("kong", "Kong, key-auth", 401, {"message": "No API key found in request"}),
    ("envoy-jwt", "Envoy, jwt_authn", 401, "Jwt is missing"),
    ("envoy-rbac", "Envoy, RBAC", 403, "RBAC: access denied"),
    ("plain-string", "SiliconFlow's API", 401, "Invalid token"),
    (
        "minimax",
        "MiniMax's API, code 1004",
        200,
        {
            "base_resp": {
                "status_code": 1004,
                "status_msg": "login fail: Please carry the API secret key in the 'Authorization' field",
            }
        },
    ),
    ("one-api", "songquanpeng/one-api", 401, problem("无效的令牌", type="one_api_error")),
    (
        "litellm-expired",
        "BerriAI/litellm, expired_key",
        400,
        problem("Authentication Error - Expired Key. Key Expiry time 2026-01-01", type="expired_key", code="400"),
    ),
    (
        "wrapped",
        "a gateway that makes a 500 of what its provider says",
        500,
        problem("Error code: 401 - {'error': {'message': 'Invalid API Key', 'type': 'invalid_request_error'}}"),
    ),
    ("open-webui", "open-webui/open-webui", 403, {"detail": "Not authenticated"}),
)

# A model that is not there. The list names the nearest one.

_MODELS: tuple[Row, ...] = (
    (
        "hugging-face",
        "cline/cline#5098",
        400,
        problem(
            "The requested model '@MODEL@' is not supported by any provider you have enabled.",
            code="model_not_supported",
        ),
    ),
    (
        "not-chat",
        "Hugging Face's router",
        400,
        problem("The requested model '@MODEL@' is not a chat model.", code="model_not_supported"),
    ),
    (
        "cloudflare",
        "Cloudflare Workers AI, code 5007",
        400,
        {"errors": [{"message": "AiError: No such model @MODEL@ or task", "code": 5007}], "success": False},
    ),
    (
        "groq-gone",
        "Groq's API, model_decommissioned",
        400,
        problem("The model `@MODEL@` has been decommissioned and is no longer supported.", code="model_decommissioned"),
    ),
    (
        "groq-terms",
        "Groq's API, model_terms_required",
        400,
        problem("The model `@MODEL@` requires terms acceptance.", code="model_terms_required"),
    ),
    (
        "cerebras",
        "Cerebras' API",
        404,
        {"message": "Model @MODEL@ does not exist or you do not have access to it.", "code": "model_not_found"},
    ),
    (
        "siliconflow",
        "SiliconFlow's API, code 20012",
        400,
        {"code": 20012, "message": "Model does not exist. Please check it carefully.", "data": None},
    ),
    ("siliconflow-off", "SiliconFlow's API, code 30003", 403, {"code": 30003, "message": "Model disabled."}),
    (
        "minimax",
        "MiniMax's API, code 2013",
        200,
        {"base_resp": {"status_code": 2013, "status_msg": "invalid params, unknown model '@MODEL@'"}},
    ),
    (
        "volcengine",
        "Volcengine's API, ModelNotOpen",
        404,
        problem("Your account 1 has not activated the model @MODEL@.", code="ModelNotOpen", type="NotFound"),
    ),
    (
        "dashscope",
        "DashScope's API, Model.AccessDenied",
        403,
        problem("Model access denied.", code="Model.AccessDenied", type="Model.AccessDenied"),
    ),
    (
        "lm-studio-none",
        "lmstudio-ai/lmstudio-bug-tracker, no models loaded",
        400,
        {"error": "No models loaded. Please load a model in the developer page or use the 'lms load' command."},
    ),
    ("lm-studio-find", "lmstudio-ai/lmstudio-bug-tracker", 400, {"error": 'Cannot find model "@MODEL@"'}),
    ("llama-swap", "mostlygeek/llama-swap proxymanager.go", 400, "could not find suitable handler for @MODEL@"),
    (
        "sglang-adapter",
        "sgl-project/sglang, LoRA",
        400,
        {"object": "error", "message": "The following requested LoRA adapters are not loaded: @MODEL@", "code": 400},
    ),
    (
        "bedrock-profile",
        "Amazon Bedrock, inference profiles",
        400,
        {"message": "Invocation of model ID @MODEL@ with on-demand throughput isn\u2019t supported."},
    ),
    (
        "azure-unavailable",
        "Azure AI Foundry, unavailable_model",
        400,
        {"error": {"code": "unavailable_model", "message": "Unavailable model: @MODEL@"}},
    ),
    (
        "azure-operation",
        "Azure OpenAI, OperationNotSupported",
        400,
        {
            "error": {
                "code": "OperationNotSupported",
                "message": "The chatCompletion operation does not work with the specified model, @MODEL@.",
            }
        },
    ),
    (
        "openai-not-chat",
        "OpenAI's API, completions models",
        404,
        problem("This is not a chat model and thus not supported in the v1/chat/completions endpoint.", param="model"),
    ),
    (
        "openrouter-guard",
        "OpenRouter's API, guardrail restrictions",
        404,
        {
            "error": {
                "message": "No endpoints available matching your guardrail restrictions and data policy.",
                "code": 404,
            }
        },
    ),
    (
        "vertex",
        "Vertex AI's OpenAI endpoint",
        400,
        _google("Malformed publisher model `@MODEL@` expected `publisher/model`.", 400, "INVALID_ARGUMENT"),
    ),
    (
        "deepseek-names",
        "DeepSeek's API",
        400,
        problem("The supported API model names are deepseek-chat or deepseek-reasoner, but you passed @MODEL@."),
    ),
    (
        "litellm-key",
        "BerriAI/litellm, key_model_access_denied",
        401,
        problem(
            "key not allowed to access model. This key can only access models=['a']. Tried to access @MODEL@",
            type="key_model_access_denied",
            param="model",
            code="401",
        ),
    ),
    (
        "new-api-channel",
        "Calcium-Ion/new-api, 无可用渠道",
        503,
        problem("当前分组 default 下对于模型 @MODEL@ 无可用渠道", type="new_api_error"),
    ),
    (
        "portkey",
        "Portkey-AI/gateway, model allow list",
        412,
        {"error": {"message": "Model @MODEL@ is not allowed for this integration", "type": None}},
    ),
)

# A prompt that does not fit: asked once.

_CONTEXTS: tuple[Row, ...] = (
    ("glm", "anomalyco/opencode#35920", 400, problem("tokens in request more than max tokens allowed", code="1261")),
    ("zai", _HERMES, 400, problem("Prompt exceeds max length", code="1261")),
    (
        "cerebras",
        "BerriAI/litellm litellm/litellm_core_utils/exception_mapping_utils.py",
        400,
        {"message": "Please reduce the length of the messages. Current length is 9271 while limit is 8192"},
    ),
    (
        "cohere",
        "openclaw/openclaw#58839",
        400,
        {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 9271."},
    ),
    ("cohere-sum", "openclaw/openclaw#58839", 400, {"message": "total tokens exceeds the model's max of 4096"}),
    (
        "atlas",
        "0xBakeer/inference-atlas#186",
        400,
        problem("Prompt too long: 5152 tokens exceeds max_seq_len 2048 (leave room for output tokens)"),
    ),
    (
        "tensorrt",
        "triton-inference-server/tensorrtllm_backend#565",
        500,
        {"object": "error", "message": "Prompt length (9271) exceeds maximum input length (8192)", "code": 500},
    ),
    (
        "tensorrt-sum",
        "NVIDIA/TensorRT-LLM executor/base_worker.py",
        400,
        {
            "object": "error",
            "message": "The sum of prompt length (9271.0), query length (0) should not exceed max_num_tokens (8192)",
            "code": 400,
        },
    ),
    (
        "github",
        "Aider-AI/aider#2296",
        413,
        problem("Request body too large for m model. Max size: 8000 tokens.", code="tokens_limit_reached"),
    ),
    (
        "bedrock-length",
        "Amazon Bedrock, maxLength",
        400,
        {"message": "Malformed input request: expected maxLength: 50000, actual: 60000, please reformat your input."},
    ),
    (
        "vertex",
        "Vertex AI",
        400,
        _google(
            "Unable to submit request because the input token count is 40000 but the model only supports up to 32768.",
            400,
            "INVALID_ARGUMENT",
        ),
    ),
    (
        "dashscope",
        "DashScope's API",
        400,
        problem("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"),
    ),
    (
        "tabby",
        "theroyallab/tabbyAPI",
        400,
        {"detail": "Prompt length 9271 is greater than max_seq_len 4096"},
    ),
    (
        "lmdeploy",
        "InternLM/lmdeploy",
        400,
        {"object": "error", "message": "The length of input_ids 9271 is larger than session_len 8192", "code": 400},
    ),
    (
        "llama-cpp-python",
        "abetlen/llama-cpp-python llama_cpp/llama.py",
        500,
        problem("Requested tokens (9271) exceed context window of 4096", type="internal_server_error"),
    ),
    (
        "openrouter-raw",
        "OpenRouter's API, metadata.raw",
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error":{"message":"This model\'s maximum context length is 4096 tokens."}}'},
            }
        },
    ),
    (
        "hermes-chinese",
        _HERMES,
        400,
        problem("输入内容的长度超过最大长度", code="1210"),
    ),
)

# One row that a filter refuses.

_FILTERS: tuple[Row, ...] = (
    (
        "openai-usage",
        "BerriAI/litellm litellm/litellm_core_utils/exception_mapping_utils.py",
        400,
        problem("Invalid prompt: your prompt was flagged as potentially violating our usage policy."),
    ),
    (
        "anthropic",
        "Anthropic's API",
        400,
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"},
        },
    ),
    (
        "gemini",
        "Gemini's API, blockReason",
        400,
        _google("The prompt was blocked. blockReason: PROHIBITED_CONTENT", 400, "INVALID_ARGUMENT"),
    ),
    (
        "xai",
        "xAI's API, SAFETY_CHECK_TYPE",
        403,
        {"code": "The caller does not have permission", "error": "Content violates usage guidelines."},
    ),
    (
        "volcengine",
        "Volcengine's API, SensitiveContentDetected",
        400,
        problem("The request failed because the input text may contain sensitive information.", type="BadRequest"),
    ),
    (
        "minimax",
        "MiniMax's API, code 1026",
        400,
        {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}},
    ),
    (
        "portkey",
        "Portkey-AI/gateway, hooks",
        446,
        problem("The guardrail checks defined in the config failed.", type="hooks_failed"),
    ),
    (
        "cloudflare",
        "Cloudflare AI Gateway, code 2016",
        424,
        {"success": False, "error": [{"code": 2016, "message": "Prompt blocked due to security configurations"}]},
    ),
    (
        "databricks",
        "Databricks, input guardrails",
        400,
        {"error_code": "BAD_REQUEST", "message": "Error: Invalid request: input_guardrail triggered."},
    ),
)

# A fault of the server's own, whatever the status: asked again.

_FAULTS: tuple[Row, ...] = (
    ("client-closed", "nginx, 499", 499, {"error": "client closed request"}),
    ("groq-flex", "Groq's API, flex", 498, problem("Flex tier capacity exceeded", code="capacity_exceeded")),
    ("overloaded-400", "a gateway that says 400", 400, problem("The model is overloaded. Please try again later.")),
    (
        "inner-502",
        "OpenRouter's API, provider errors",
        400,
        {"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "error code: 502"}}},
    ),
    ("throttled-400", "Amazon Bedrock gateways", 400, {"message": "ThrottlingException: Rate exceeded"}),
    ("github-403", "GitHub, secondary rate limit", 403, {"message": "You have exceeded a secondary rate limit."}),
    ("cloudflare-1015", "Cloudflare, error 1015", 429, "error code: 1015"),
    ("cloudflare-520", "Cloudflare, error 520", 520, "error code: 520"),
    ("envoy", "Envoy", 503, "upstream connect error or disconnect/reset before headers. reset reason: overflow"),
    ("kong", "Kong, ring balancer", 503, {"message": "failure to get a peer from the ring-balancer"}),
    ("empty-500", "a server that crashes", 500, ""),
    ("empty-429", "a gateway without a body", 429, ""),
    ("nim-429", "Alishahryar1/free-claude-code#1485", 429, {"status": 429, "title": "Too Many Requests"}),
    (
        "cerebras-queue",
        "Cerebras' API, queue_exceeded",
        429,
        {"message": "We're experiencing high traffic right now!", "param": "queue", "code": "queue_exceeded"},
    ),
    (
        "hugging-face-loading",
        "Hugging Face's API, estimated_time",
        503,
        {"error": "Model m is currently loading", "estimated_time": 20.0},
    ),
    (
        "bedrock-not-ready",
        "Amazon Bedrock, ModelNotReadyException",
        424,
        {"message": "The model is not ready for inference requests"},
    ),
    (
        "vllm-engine",
        "vllm-project/vllm, EngineDeadError",
        500,
        {"object": "error", "message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500},
    ),
)

_LISTED = ("granite-4.1-3b-instruct", "llama-3.3-70b", "qwen3-8b")
_WRONG = "granite-4.1-3b-instuct"


def _row(name: str, source: str, kind: str, about: str, reply: Reply, **more: Any) -> Case:
    usual: dict[str, Any] = {"exit": 3, "answered": 3, "failed": 1, "requests": 6}
    rules = unless(GOOD, (IS_FLAGGED, reply))
    return asked(name, kind, source, about, rules, openai(FLAGGED, "--max-retries", "2"), **(usual | more))


_ENDINGS = (
    ends_at_once(
        "address-redirect",
        "no /v1",
        "nginx, a redirect to https",
        "The address redirects, which is not followed as the key would go elsewhere.",
        always(refuses(308, "", ("Location", "https://models.example/v1/chat/completions"), type="")),
        "redirects",
    ),
    ends_at_once(
        "address-kong",
        "no /v1",
        "Kong, no Route matched",
        "A gateway has no route for the path.",
        unless(GOOD, ({"not_path": "/v1/chat/completions"}, refuses(404, {"message": "no Route matched"}))),
        "/v1",
        args=openai(TWELVE, base="{url}"),
    ),
    ends_at_once(
        "address-cloudflare",
        "no /v1",
        "anomalyco/opencode#23773",
        "A gateway cannot route to the account's path.",
        always(
            refuses(
                404,
                {
                    "success": False,
                    "errors": [{"code": 7003, "message": "Could not route to /client/v4/accounts/a/ai/v1"}],
                },
            )
        ),
        "could not route",
    ),
    ends_at_once(
        "key-login-page",
        "wrong key",
        "a single sign-on proxy",
        "A proxy sends everybody to a page where people sign in.",
        always(refuses(302, web_page("Sign in"), ("Location", "https://login.example/start"), type=HTML)),
        "redirects",
    ),
    *(
        ends_at_once(
            f"{name}-in-parallel",
            kind,
            "the issue: at most 4 x concurrency requests",
            "Eight requests at once make no more than their share of useless ones.",
            always(reply),
            args=openai("many.jsonl", "-c", "8"),
            requests=32,
        )
        for name, kind, reply in (
            ("key", "wrong key", refuses(401, {"detail": "Unauthorized"})),
            ("quota", "quota", refuses(402, problem("Insufficient Balance"))),
            ("model", "unknown model", refuses(400, problem("The model `m` does not exist."))),
        )
    ),
    ends_at_once(
        "quota-in-mid-run",
        "quota",
        "DeepSeek's API, 402",
        "The account runs empty after two rows: what is done is kept, and no other row is charged with it.",
        first(2, GOOD, refuses(402, problem("Insufficient Balance"))),
        "insufficient balance",
        answered=2,
        requests=6,
        failed=0,
        talk=None,
    ),
    ends_at_once(
        "quota-ollama-subscription",
        "quota",
        "ollama/ollama, cloud models",
        "Ollama's cloud wants a subscription for the model.",
        always(refuses(403, {"error": "this model requires a subscription, upgrade for access"})),
        "requires a subscription",
        args=ollama(TWELVE),
    ),
)

CASES: tuple[Case, ...] = (
    *(
        ends_at_once(
            f"quota-w-{name}",
            "quota",
            source,
            "Nothing is left to spend.",
            always(_reply(status, body)),
            "wait until its limit ends",
        )
        for name, source, status, body in _QUOTAS
    ),
    *(
        ends_at_once(
            f"key-w-{name}", "wrong key", source, "The key is not taken.", always(_reply(status, body)), "--key-file"
        )
        for name, source, status, body in _KEYS
    ),
    *(
        ends_at_once(
            f"model-w-{name}",
            "unknown model",
            source,
            "The model is not there; the message names the nearest one that is.",
            always(_reply(status, body)),
            _LISTED[0],
            args=openai(TWELVE, model=_WRONG),
            models=_LISTED,
        )
        for name, source, status, body in _MODELS
    ),
    *(
        asked(
            f"context-w-{name}",
            "context too long",
            source,
            "One row is too long for the context.",
            unless(GOOD, (IS_LONG, _reply(status, body))),
            openai(LONG),
            exit=3,
            answered=2,
            failed=1,
            requests=3,
            kinds=("context-too-long",),
        )
        for name, source, status, body in _CONTEXTS
    ),
    *(
        _row(
            f"row-w-{name}",
            source,
            "one row refused",
            "A filter refuses one row.",
            _reply(status, body),
            kinds=("content-filter",),
            requests=4,
        )
        for name, source, status, body in _FILTERS
    ),
    *(
        answers_all(
            f"soon-w-{name}",
            "a server that is not ready",
            source,
            "The server fails twice, and is asked again.",
            (Rule(GOOD, times=1), Rule(_reply(status, body), times=2), Rule(GOOD)),
            requests=5,
        )
        for name, source, status, body in _FAULTS
    ),
    *_ENDINGS,
)
