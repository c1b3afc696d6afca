"""Errors on the wire: which class a status, an error object or a failed connection gets."""

from __future__ import annotations

import errno
import html
import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from mellea_cli.backends.rate_limits import retry_after_s, wait_in_details, wait_in_words
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    BadOutput,
    ContentFiltered,
    ContextTooLong,
    EndpointMissing,
    ModelMissing,
    NotAuthorized,
    QuotaSpent,
    RateLimited,
    RequestRefused,
    ServerFault,
)

MAX_MESSAGE = 300  # Characters of a server's text that a message repeats

_BY_STATUS: dict[int, type[BackendError]] = {
    **dict.fromkeys((401, 403, 407), NotAuthorized),
    402: QuotaSpent,
    **dict.fromkeys((404, 405), EndpointMissing),
    **dict.fromkeys((408, 409, 421, 424, 425), ServerFault),
    413: ContextTooLong,
    429: RateLimited,
    451: ContentFiltered,
}

# Codes come before words, and words before statuses, as one status has several meanings (429: slow down, or the account
# is empty). Compared without case, `_` and `-`.
_CODES: tuple[tuple[type[BackendError], str], ...] = (
    (QuotaSpent, "insufficientquota insufficientbalance billingnotactive quotaexceeded arrearage setlimitexceeded"),
    (ContextTooLong, "contextlengthexceeded contextexceeded exceedcontextsizeerror stringabovemaxlength"),
    (ContentFiltered, "contentfilter contentpolicyviolation responsibleaipolicyviolation datainspectionfailed"),
    (NotAuthorized, "invalidapikey apikeyinvalid authenticationerror unauthenticated nodbconnection"),
    (ModelMissing, "modelnotfound modelnotavailable modelnotexist invalidmodel unknownmodel deploymentnotfound"),
    (BadOutput, "jsonvalidatefailed toolusefailed outputparsefailed malformedoutput"),
)
_BY_CODE = {code: kind for kind, codes in _CODES for code in codes.split()}
_SLOW_DOWN = frozenset({"ratelimitexceeded", "ratelimiterror", "throttlingerror"})


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_CONTEXT = _words(
    r"context[ _-]?(?:length|window|size|limit)|context the overflows|\bn_ctx\b",
    r"max(?:imum)?[ _](?:allowed )?(?:model|prompt|input|sequence|seq|num)[ _](?:len|tokens|characters)",
    r"(?:model|maximum|max) token limit|maximum (?:allowed )?tokens|\btokens?\b.{0,40}(?:must be <=|at most) ?\d",
    r"\b(?:prompt|input|sequence|payload|messages|tokens?|(?<!queue )(?<!queue, )length)\b.{0,70}"
    r"\b(?:exceed(?:s|ed|ing)?|(?:greater|larger|longer|more) than|only supports?)\b.{0,50}(?:max|(?<!time )limit"
    r"|length|cache|supports|\d{3})",
    r"\bmaxlength: \d+, actual|max_(?:completion_)?tokens\b.{0,40}\bgot -\d|kv cache is full|find a memory slot",
    r"(?:prompt|input|messages?|request|content|entity)s?(?: length| body| you submitted)? (?:is |are |was )?too"
    r" (?:long|large)\b",
    r"reduce (?:the|your) (?:length|size) of|reduce your (?:message|prompt|input)",
    r"(?:input|prompt)[ _](?:length|tokens?)\b[^.]{0,60}(?:exceed|less than|should be|must be)",
    r"tokens? (?:count )?(?:\(\d+\) )?exceeds?\b|`inputs`[^.]{0,60}must",
    r"maximum number of (?:input |prompt )?tokens|too many (?:input|prompt) tokens",
    r"上下文|输入.{0,10}(?:过长|超)|超长",
)
_FILTERED = _words(
    r"\bflagged\b|requires moderation|content ?(?:management )?policy|content exists risk|inappropriate content",
    r"considered high risk|safety (?:system|filter|setting|polic)|content[ _]filter|unsafe content|blockreason",
    r"\b(?:prompt|response|content|input|output)\b[^.]{0,40}\b(?:blocked|harmful|toxic|rejected by the mod)",
    r"guardrail(?! restriction)|(?:risky|toxic) content|jailbreak|prompt (?:injection|attack|blocked)|data inspection",
    r"new_sensitive",
    r"violat\w+ (?:\w+ ){0,4}(?:polic|guideline)|(?:sensitive|prohibited|forbidden) (?:content|information|words?\b)",
    r"敏感|不安全|违规",
)
_QUOTA = _words(
    r"insufficient[ _](?:\w+[ _]){0,3}(?:balance|credit|quota|fund)|credit balance",
    r"balance (?:is )?(?:too low|insufficient|not enough)|credits? has run out|no (?:\w+ )?(?:quota|credits?) left",
    r"not (?:have )?(?:enough|any|sufficient) (?:balance|credit|fund)|n[o']t have any credits",
    r"overdue (?:balance|payment|invoice)|(?:trial|subscription) (?:has |been |is )*(?:expired|ended|suspended|over\b)",
    r"(?:requires?|need) more credits|(?:out of|no (?:more|remaining)) [\w ]{0,12}(?:credits?|quota|funds)",
    r"(?:exhausted|used up|used all|exceeded|reached)[^.]{0,40}\b(?:credits|quota|allowance|allocation|free tier)\b",
    r"\b(?:credits?|balance|budget|allowance|free tier|quota)\b[^.]{0,40}\b(?:exhausted|depleted|used up|spent"
    r"|exceeded|reached)\b",
    r"(?:key|spend(?:ing)?|session|usage|quota|plan|credit) limits?\b[^.]{0,20}(?:reached|exceeded|exhausted)",
    r"spend(?:ing)? (?:limit|cap)|reached your [\w ]{0,30}usage limit|over[ _]budget",
    r"exceeded ?(?:token ?)?budget|budget ?exceeded|rate limit of 0\b|requires? billing|billing disabled",
    r"billing (?:hard )?limit|payment required|in arrears|recharge your",
    r"(?:account|wallet)\b[^.]{0,20} (?:is )?suspended",
    r"(?:额度|配额).{0,4}(?:不足|已|用尽|用完|耗尽)|余额.{0,6}(?:不足|用尽)|欠费|使用上限",
)
_SLOW_DOWN_WORDS = _words(
    r"slow down|too many requests|rate[ _-]?limit|\bthrottl|rate exceeded|parallel request limit"
    r"|quota exceeded for \S+\.googleapis"
)
# As codes: what a message says of quotas and plans is then an offer.
_SLOW_DOWN_CODES = _words(r"throttl|limit (?:requests|burst|tokens)\b")
# A limit of nothing is no limit for a minute: the account has no share of this model.
_NO_SHARE = re.compile(r"\blimit: 0\b")
_BUSY_WORDS = _words(
    r"overloaded|(?:temporarily|service|currently) unavailable|(?:at|over|no) capacity",
    r"capacity (?:temporarily )?exceeded|too busy|\bdegraded\b|provider returned error$",
    r"no healthy (?:upstream|deployment)|channel error|out of memory|繁忙",
    r"upstream (?:error|connect|request failed)|(?:try|retry) (?:your request|again (?:later|shortly|soon|in a ))",
    r"please retry\W*$|serviceunavailable|connection (?:error|reset|refused|lost|closed)|enginedead",
    r"timed out|time-?out (?:error|on)|(?:request|gateway) time-?out|timeout(?:error|exception)|deadline exceeded",
    r"was timeout|disconnected|unexpected (?:eof|error)",
    r"\bcrashed|unexpectedly|\bserver ?error|internal[ _]?error(?!\.algo)|(?:operation|request) cancell?ed",
    r"\bunloaded|(?:still|is|being) load(?:ing|ed)\b|warming up|starting up",
)
# A limit for a minute passes soon, one for a day or longer ends the run. The first that a message names counts: what
# follows is mostly an offer to sell more.
_PERIOD = re.compile(
    r"(?P<soon>(?:per|/)[ _-]?(?:min|sec|hour)|\b[rt]p[ms]\b|(?:hourly|minute) |每(?:分钟|秒))"
    r"|(?P<late>(?:per|/)[ _-]?(?:day|week|month)|byday|\b[rt]pd\b|\b(?:dai|week|month)ly\b|每[日天月]|[今当]日)",
    re.IGNORECASE,
)
_LONG_WAIT_S = 3600.0
_NOT_AUTHORIZED = _words(
    r"(?:api|access|auth\w*|subscription)[ _-]?(?:key|token)s?\b[^.]{0,40}"
    r"(?:not (?:valid|found|provided)|invalid|incorrect|missing|expired|required|revoked|wrong|disabled)",
    r"(?:invalid|incorrect|missing|wrong|expired|no|provide an?) [^.]{0,20}"
    r"(?:\b(?:api|access|subscription)[ _-]?(?:key|token)|x-api-key|credentials?\b)",
    r"unauthori[sz]ed|unauthenticated|authentication (?:error|failed|required|fails)|authorization header",
    r"no connected db|login fail|should match organization|身份验证|鉴权|无效的令牌",
    r"bearer token|authentication (?:credentials|token)|location is not supported|api key could not",
    r"(?:organi[sz]ation|account|project) has been (?:dis|de)a",
)
_MISSING = (
    r"(?:(?:not|n['\u2019]t) (?:be |been |an? )?(?:found|exist|valid|available|deployed|loaded|served|supported"
    r"|allowed|enabled|activated|chat model)\b|(?:does ?n['\u2019]t|do not) exist|no longer|unavailable|invalid|unknown"
    r"|shut down|\bsunset\b|not support (?:chat|completions|(?:the )?generate\w*)\b|is required|is denied"
    r"|end of life|access denied|terms acceptance|(?:is )?(?:disabled|blocked|gated)\b"
    r"|(?:been )?(?:deprecated|decommissioned|retired|discontinued))"
)
_MODEL = _words(
    rf"\b(?:model|deployment|repository|inference profile)s?\b(?: (?:id|name|identifier))?"
    rf"(?:[ :=]+(?!return|output)[`'\"]?[^\s,;]+[`'\"]?)?"
    rf"(?:(?: (?!temporar|current|support|respon|output|return|produc|generat)[\w-]+){{0,5}} |, )?{_MISSING}",
    r"(?:invalid|unknown|unsupported|unavailable|no such|non-?existent|unrecogni[sz]ed|malformed publisher) "
    r"(?:model|deployment)\b",
    r"not an? (?:[\w-]+ ){0,3}model\b|not found the model|valid model (?:id|name)",
    r"(?:unable|failed|cannot|could not|not able) to (?:access|load|find|locate) (?:the )?model|cannot find model",
    r"no endpoints (?:found|available)|not found for (?:account|api version)|model[^.]{0,80}reached its end of life",
    r"(?:provided )?model identifier is invalid|access to (?:the )?model",
    r"模型.{0,20}(?:不存在|未找到|下线|无可用|不可用|错误)|不支持的模型|无权访问",
    r"\bno models? (?:is |are )?(?:currently )?(?:loaded|specified|selected)|multiple models are loaded",
    r"adapters? are not loaded|unexpected model name",
    r"(?:supported|allowed) (?:api )?models?(?: names?)? are|does not work with the specified model",
    r"too large to be loaded",
    r"could not find (?:suitable handler|real modelid)|not allowed to access model|no available channel",
    r"on-demand throughput",
)
# What a refused key says of models: it is good for others.
_MODEL_FOR_KEY = _words(
    r"not allowed to access model|access to (?:the )?model|model access denied|repository ?not ?found"
)
_PATH = _words(
    r"unexpected endpoint|unknown (?:endpoint|path|url|route)|invalid url",
    r"no route (?:matched|found|for)|could not route to|cannot (?:post|get) /|url error",
    r"http request (?:was sent )?to (?:an )?https",
)
_BAD_OUTPUT = _words(
    r"failed to generate json|model (?:generated|produced|returned)[^.]{0,20} invalid json|failed to parse input at",
    r"\bpars(?:e|ing) (?:the )?(?:model|tool call)|model(?:'s)? output pars",
)
# What a 5xx says about a model is mostly that it is busy or does not load; only these words name a wrong name or key.
_MODEL_IN_FAULT = _words(
    r"model [`'\"][^`'\"]+[`'\"](?: is| was)? (?:not found|does not exist)",
    r"(?:invalid|unknown|no such) model\b|model (?:not found|does not exist)|no available channel|无可用渠道",
)
# Ollama calls a schema that it cannot read a fault of its own; to ask again does not help.
_REQUEST_IN_FAULT = _words(r"invalid json schema in format|invalid format: ")
_KEY_IN_FAULT = _words(r"(?:invalid|incorrect) api key|api[ _]key (?:is )?(?:not valid|not set|invalid)|login fail")

_PLAIN_STATUSES = frozenset({402, 407, 413})  # Statuses that have one meaning, whatever the message says
_REFUSAL_WORDS: tuple[tuple[re.Pattern[str], type[BackendError]], ...] = (
    (_QUOTA, QuotaSpent),
    (_BAD_OUTPUT, BadOutput),
    (_CONTEXT, ContextTooLong),
    (_FILTERED, ContentFiltered),
    (_PATH, EndpointMissing),
    (_NOT_AUTHORIZED, NotAuthorized),
    (_MODEL, ModelMissing),
    (_BUSY_WORDS, ServerFault),
)
_KEY_WORDS: tuple[tuple[re.Pattern[str], type[BackendError]], ...] = (
    (_QUOTA, QuotaSpent),
    (_MODEL_FOR_KEY, ModelMissing),
)
_FAULT_WORDS: tuple[tuple[re.Pattern[str], type[BackendError]], ...] = (
    (_QUOTA, QuotaSpent),
    (_BAD_OUTPUT, BadOutput),
    (_CONTEXT, ContextTooLong),
    (_FILTERED, ContentFiltered),
    (_PATH, EndpointMissing),
    (_KEY_IN_FAULT, NotAuthorized),
    (_MODEL_IN_FAULT, ModelMissing),
    (_REQUEST_IN_FAULT, RequestRefused),
)

Hints = Mapping[type[BackendError], str]  # Hints by class of error; `{model}` becomes the model's name

DEFAULT_HINTS: Hints = {
    BackendUnavailable: "is the server running, and is the address right?",
    EndpointMissing: "is the address right?",
    QuotaSpent: "top up the account behind the key or wait until its limit ends, or use --backend local",
}


_TEXT_KEYS = (
    *("message", "Message", "msg", "status_msg", "error_msg", "error_message", "errorMessage", "error_description"),
    *("detail", "details", "error", "title"),
)
_CODE_KEYS = ("code", "Code", "type", "__type", "status", "error_type", "error_code", "reason", "quotaId")
_STATUS_KEYS = ("code", "status", "status_code", "http_status_code", "statusCode")
_NAMING_KEYS = ("type", "Code", "error_code", *_STATUS_KEYS)
# Objects inside an error: what stands next to its message, and what holds it.
_DETAIL_KEYS = ("details", "innererror", "metadata", "violations")
_HOLDING_KEYS = ("base_resp", "errors", "error_chain", "message", "detail", "error")
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """A server's error in any shape: objects in objects or lists, or a text."""

    message: str = ""
    codes: tuple[str, ...] = ()  # The error's codes and types where they are texts
    param: str = ""
    status: int | None = None  # The `code` or `status` where it is an HTTP status
    wait_s: float | None = None  # Seconds until the request may be sent again, where the error says so
    output: str = ""  # The model's answer, where the server refuses that
    sign_in: str = ""  # Address where the user can sign in

    @classmethod
    def parse(cls, text: str) -> ErrorObject:
        """Parse the body of a response."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return cls(page_title(text) if text.lstrip().startswith("<") else text, wait_s=wait_in_words(text))
        return cls.read(value)

    @classmethod
    def read(cls, value: object) -> ErrorObject:
        """Read an error from a JSON value."""
        parts = list(_parts(value, _DEEPEST))
        message = next((text for part in parts[::-1] for text in _texts(part)), "")
        if not message:
            inner = value.get("error", value.get("detail", "")) if isinstance(value, Mapping) else value
            message = inner if isinstance(inner, str) else json.dumps(inner) if is_set(inner) else ""
        if message.lstrip().startswith("{") and (nested := cls.parse(message)).message not in ("", message):
            return nested
        codes = tuple(str(part[key]) for part in parts for key in _CODE_KEYS if isinstance(part.get(key), str))
        statuses = (_as_status(part.get(key)) for part in parts for key in (*_STATUS_KEYS, "type"))
        waits = (wait_in_details(part) for part in parts)
        # OpenRouter repeats what its provider said, which says more than its own message.
        if raw := next((text for part in parts if isinstance(text := part.get("raw"), str) and text.strip()), ""):
            inner = cls.parse(raw)
            message, codes = f"{message}: {inner.message or raw}", (*codes, *inner.codes)
        return cls(
            message,
            codes,
            next((str(part["param"]) for part in parts if part.get("param")), ""),
            next((status for status in statuses if status), None),
            next((wait for wait in waits if wait is not None), wait_in_words(message)),
            next((text for part in parts if isinstance(text := part.get("failed_generation"), str)), ""),
            next((text for part in parts if isinstance(text := part.get("signin_url"), str)), ""),
        )


def _parts(value: object, depth: int) -> Iterator[Mapping[str, Any]]:
    """The objects of an error; the last one with a text holds the message."""
    if isinstance(value, list) and depth:
        for one in value[:10]:
            yield from _parts(one, depth - 1)
    elif isinstance(value, Mapping):
        for key in _DETAIL_KEYS if depth else ():
            yield from _parts(value.get(key), depth - 1)
        yield value
        for key in _HOLDING_KEYS if depth else ():
            yield from _parts(value.get(key), depth - 1)


def _texts(part: Mapping[str, Any]) -> Iterator[str]:
    where = part.get("loc")
    place = ".".join(map(str, where)) + ": " if isinstance(where, list) and isinstance(part.get("msg"), str) else ""
    for key in _TEXT_KEYS:
        text = part.get(key)
        if (isinstance(text, str) and text.strip()) or (key == "message" and isinstance(text, int | float)):
            yield f"{place}{text}"


# Types of errors that stand for a status where an error has none of its own, without "error" at their end.
_STATUS_NAMES = {"badrequest": 400, "invalidrequest": 400, "invalidargument": 400, "unprocessableentity": 422}
_STATUS_NAMES |= {"permission": 403, "permissiondenied": 403, "notfound": 404}


def _as_status(value: object) -> int | None:
    if isinstance(value, str):
        name = _plain_code(value).removesuffix("error")
        value = int(value) if len(value) == 3 and value.isdecimal() else _STATUS_NAMES.get(name)
    return value if type(value) is int and 400 <= value <= 599 else None


def _plain_code(code: str) -> str:
    return re.sub(r"[\W_]", "", code).lower()


def is_set(value: object) -> bool:
    """Whether a field that is mostly empty, such as `error`, says something."""
    return any(value.values()) if isinstance(value, dict) else bool(value) and value != "null"


def is_error(event: Mapping[str, Any]) -> bool:
    """Whether an event of a stream is an error, in whatever shape."""
    base = event.get("base_resp")
    refused = event.get("success") is False or (isinstance(base, dict) and base.get("status_code"))
    if refused or any(event.get(key) and is_set(event[key]) for key in ("error", "errors", "error_code")):
        return True
    if event.get("choices") or isinstance(event.get("message"), dict):
        return False
    if event.get("object") == "error" or event.get("type") == "error":
        return True
    if "choices" in event:
        return False
    named = any(key in event for key in _NAMING_KEYS)
    said = bool(event.get("detail")) or isinstance(event.get("error"), dict)
    return said or (named and any(isinstance(event.get(key), str) for key in _TEXT_KEYS[:-2]))


def classify(status: int, error: ErrorObject, headers: Mapping[str, str]) -> type[BackendError]:
    """Return the class of an error; an error object inside a stream has its own code as status, or 500."""
    # A gateway that says 400 for whatever its provider says.
    if status == 400 and error.status is not None and (error.status == 429 or error.status >= 500):
        status = error.status
    codes = [_plain_code(code) for code in error.codes]
    by_code = next((_BY_CODE[code] for code in codes if code in _BY_CODE), None)
    if status != 413 and (status == 429 or any(code in _SLOW_DOWN for code in codes)):
        return _too_many(error, by_code)
    by_words = None
    if status not in _PLAIN_STATUSES:
        table = _FAULT_WORDS if status >= 500 else _KEY_WORDS if status == 401 else _REFUSAL_WORDS
        name = "" if " " in error.message else error.message
        texts = (error.message, *map(_as_words, (name, *error.codes)))
        by_words = next((kind for text in texts for words, kind in table if words.search(text)), None)
    if (known := by_code or by_words) is not None:
        return known
    said = error.message
    if status in (400, 403, 500, 502, 503) and _SLOW_DOWN_WORDS.search(said):
        return _too_many(error, None)
    if (status == 404 and "model" in said.lower()) or error.param == "model" or said.startswith("body.model:"):
        return ModelMissing
    if status == 503 and retry_after_s(headers) is not None:
        return RateLimited
    # Statuses that are not registered are those of proxies, which tell of their own trouble.
    is_fault = status >= 500 or reason_phrase(status) == str(status)
    return _BY_STATUS.get(status, EndpointMissing if status < 400 else ServerFault if is_fault else RequestRefused)


def _as_words(code: str) -> str:
    """A code such as `token_quota_reached` or `AccessDenied` as the words of a message."""
    return re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", code)


def _too_many(error: ErrorObject, by_code: type[BackendError] | None) -> type[BackendError]:
    """Tell a rate limit, which passes, from a quota, which does not, and from a request that is too large for both."""
    said = error.message
    if re.search(r"request too large|reduced? in order to run", said, re.IGNORECASE):
        return ContextTooLong
    if by_code is QuotaSpent or (error.wait_s or 0.0) >= _LONG_WAIT_S or _NO_SHARE.search(said):
        return QuotaSpent
    for text in (*error.codes, said):
        if period := _PERIOD.search(text):
            return RateLimited if period["soon"] else QuotaSpent
    codes = [_as_words(code) for code in error.codes]
    if any(_QUOTA.search(code) for code in codes):
        return QuotaSpent
    if error.wait_s is not None or _SLOW_DOWN_WORDS.search(said) or any(map(_SLOW_DOWN_CODES.search, codes)):
        return RateLimited
    return QuotaSpent if _QUOTA.search(said) else RateLimited


HUNG_UP = "the server closed the connection without an answer"


def describe_failure(exc: BaseException) -> str:
    """Return the reason of a failed connection in a few words, from the innermost cause that is known."""
    import aiohttp

    chain = [exc]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    reasons = {
        ssl.SSLCertVerificationError: "the server's TLS certificate is not trusted",
        ssl.SSLError: "TLS failed: does the server speak https?",
        socket.gaierror: "the host's name cannot be resolved",
        ConnectionRefusedError: "connection refused",
        aiohttp.ClientResponseError: "what answers there is not valid HTTP",
        aiohttp.ServerDisconnectedError: HUNG_UP,
        ConnectionResetError: HUNG_UP,
        BrokenPipeError: HUNG_UP,
        TimeoutError: "no connection in time",
    }
    for kind, reason in reasons.items():
        if any(isinstance(link, kind) for link in chain):
            return reason
    # When all addresses of a host refuse, the one error for them has the number but not the class.
    if any(getattr(link, "errno", None) == errno.ECONNREFUSED for link in chain):
        return "connection refused"
    return one_line(str(exc)) or type(exc).__name__


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Shorten `text` to one line of at most `limit` characters without control characters."""
    # Cut before cleaning too: a body may be long, and only its beginning is shown.
    plain = "".join(character if character.isprintable() else " " for character in text[: 4 * limit])
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def page_title(text: str) -> str:
    """The title of a web page, which says who answers."""
    found = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return one_line(html.unescape(found[1])) if found else ""


def reason_phrase(status: int) -> str:
    """Return a status with its name, such as `503 Service Unavailable`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
