"""The program as a process: closed files, missing certificates, file systems without locks, signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from field.cases.common import THREE, TWELVE, openai, scripted
from field.model import Case, Expect, Put, Run
from field.wire import ANSWER, GOOD, Reply, Rule, always, delta, stream, texts

_ISSUE = "the issue: processes"


def _process(case: str, source: str, about: str, *runs: Run | Put, **more: Any) -> Case:
    usual: dict[str, Any] = {"files": (THREE, TWELVE), "rules": always(GOOD)}
    return Case(id=f"process-{case}", kind="processes", source=source, about=about, steps=runs, **(usual | more))


def _run(expect: Expect, *args: str, env: Mapping[str, str | None] | None = None, **more: Any) -> Run:
    return Run(args=args or openai(), expect=expect, env=env or {}, **more)


_ALL = Expect(answered=3, failed=0, requests=3)

CASES: tuple[Case, ...] = (
    _process("closed-stdout", _ISSUE, "Standard output is closed, and the output is a file.", _run(_ALL, closed=(1,))),
    _process("closed-stderr", _ISSUE, "Standard error is closed.", _run(_ALL, closed=(2,))),
    _process("closed-stdin", _ISSUE, "Standard input is closed.", _run(_ALL, closed=(0,))),
    _process("closed-all", "a daemon's three closed files", "All three are closed.", _run(_ALL, closed=(0, 1, 2))),
    _process(
        "certificate-file",
        "ContinuumIO/anaconda-issues#13509",
        "SSL_CERT_FILE names a file that is not there, and the server speaks http.",
        _run(_ALL, env={"SSL_CERT_FILE": "/nowhere/cacert.pem"}),
    ),
    _process(
        "certificate-file-https",
        "Aider-AI/aider#3710",
        "The same with https: one line names the variable.",
        _run(
            Expect(exit=(2, 4), says=("SSL_CERT_FILE",), talk=5),
            *(
                "summarise",
                THREE,
                "-o",
                "out.jsonl",
                "-b",
                "openai",
                "-m",
                "m",
                "--base-url",
                "https://127.0.0.1:9/v1",
                "-c",
                "1",
            ),
            *("--max-wait", "1s"),
            env={"SSL_CERT_FILE": "/nowhere/cacert.pem"},
        ),
    ),
    _process(
        "certificate-file-doctor",
        "ContinuumIO/anaconda-issues#13509",
        "The doctor works, and names the variable.",
        _run(
            Expect(exit=(0, 2), stdout=("SSL_CERT_FILE",), silent=("traceback",)),
            "doctor",
            env={"SSL_CERT_FILE": "/nowhere/cacert.pem"},
            output="none",
        ),
    ),
    _process(
        "no-locks",
        "yt-dlp/yt-dlp#3022",
        "The file system has no locks: one line says so and names the flag.",
        _run(
            Expect(exit=(2, 5), requests=0, says=("lock", "--no-lock"), talk=4),
            env={"PYTHONPATH": "{files}/nolocks:{path}"},
        ),
    ),
    *(
        _process(
            f"no-locks-{code.lower()}",
            source,
            f"The same where the system's word for it is {code}.",
            _run(
                Expect(exit=(2, 5), requests=0, says=("lock", "--no-lock"), silent=("traceback",), talk=4),
                env={"PYTHONPATH": "{files}/nolocks:{path}", "FIELD_LOCK_ERROR": code},
            ),
        )
        for code, source in (("ENOSYS", "tox-dev/filelock#67"), ("EOPNOTSUPP", ""), ("EBADF", "rss2email/rss2email#58"))
    ),
    _process(
        "no-locks-flag",
        "tox-dev/filelock#289",
        "The same with --no-lock.",
        _run(_ALL, *openai(THREE, "--no-lock"), env={"PYTHONPATH": "{files}/nolocks:{path}"}),
    ),
    _process(
        "interrupt-without-server",
        _ISSUE,
        "Ctrl-C while the server is away ends the run at once.",
        _run(
            Expect(exit=130, answered=0),
            *("summarise", THREE, "-o", "out.jsonl", "-b", "openai", "-m", "m", "--base-url", "{nobody}/v1", "-c", "1"),
            *("--max-wait", "60s"),
            signals=((5.0, "SIGINT"),),
            seconds=20.0,
        ),
    ),
    _process(
        "interrupt-hanging-server",
        _ISSUE,
        "Ctrl-C twice while the server says nothing.",
        _run(Expect(exit=130, answered=0), *openai(THREE, "--grace", "1s"), signals=((5.0, "SIGINT"),), seconds=20.0),
        rules=always(Reply(end="hang")),
    ),
    _process(
        "stop-and-continue",
        _ISSUE,
        "The process is stopped and goes on.",
        _run(Expect(answered=12, failed=0), *openai(TWELVE), signals=((0.6, "SIGTSTP"), (1.0, "SIGCONT"))),
    ),
    _process(
        "broken-settings-doctor",
        _ISSUE,
        "A configuration that cannot be read does not stop the doctor, who names it.",
        Put(name="settings/mellea/config.toml", content="backend = \n"),
        _run(
            Expect(exit=(0, 2), stdout=("config.toml",), silent=("traceback",)),
            "doctor",
            env={"XDG_CONFIG_HOME": "{folder}/settings"},
            output="none",
        ),
    ),
    _process(
        "broken-settings",
        _ISSUE,
        "A configuration that cannot be read stops a run before anything is sent.",
        Put(name="settings/mellea/config.toml", content="backend = \n"),
        _run(Expect(exit=2, requests=0, says=("config.toml",), talk=4), env={"XDG_CONFIG_HOME": "{folder}/settings"}),
    ),
    _process(
        "models-help",
        _ISSUE,
        "models without a subcommand shows its help.",
        _run(Expect(exit=0, stdout=("list", "pull")), "models", output="none"),
    ),
    _process(
        "jobs-help",
        _ISSUE,
        "jobs without a subcommand shows its help.",
        _run(Expect(exit=0, stdout=("list", "cancel")), "jobs", output="none"),
    ),
    _process(
        "no-home",
        "containers whose user has no home",
        "There is no folder for settings and state.",
        _run(
            _ALL,
            env={
                "HOME": "/dev/null",
                "XDG_CONFIG_HOME": None,
                "XDG_STATE_HOME": None,
                "XDG_CACHE_HOME": None,
                "XDG_DATA_HOME": None,
            },
        ),
    ),
    _process(
        "ascii-locale",
        "cron and containers: LANG=C",
        "The locale knows ASCII only, and rows go to stdout.",
        _run(
            Expect(rows=2, answered=2, summaries=("zu spät", "schön")),
            *("summarise", "excel_unicode.txt", "-b", "scripted", "--text-field", "Kommentar"),
            env={"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
            output="-",
        ),
        files=("excel_unicode.txt",),
    ),
    _process(
        "connection-closed",
        "NousResearch/hermes-agent#115289",
        "The server closes the connection behind each answer, although it promised to keep it: that is no retry.",
        _run(Expect(answered=12, failed=0, requests=12, says=('"retries": 0',)), *openai(TWELVE, "--json")),
        rules=always(Reply(GOOD.body, end="close")),
    ),
    _process(
        "connection-closed-often",
        "the issue: llama.cpp's own server",
        "The same with several requests in flight is no outage either.",
        _run(Expect(answered=12, failed=0, requests=12, says=('"retries": 0',)), *openai(TWELVE, "--json", "-c", "4")),
        rules=always(Reply(GOOD.body, end="close")),
    ),
    _process(
        "retries-agree",
        "the issue: retried on the line and retries in the JSON",
        "A request that is sent again is counted as a retry.",
        _run(Expect(answered=3, failed=0, requests=4, says=('"retries": 1',)), *openai(THREE, "--json")),
        rules=(Rule(stream(delta(role="assistant"), *texts(ANSWER)[:4], done=False), times=1), Rule(GOOD)),
    ),
    _process(
        "unwritable-output",
        "",
        "The output's folder does not exist: one line, and nothing is sent.",
        _run(
            Expect(exit=(2, 5), requests=0, says=("nowhere",), talk=4),
            *("summarise", THREE, "-o", "nowhere/out.jsonl", "-b", "openai", "-m", "m", "--base-url", "{url}/v1"),
            output="nowhere/out.jsonl",
        ),
    ),
    _process(
        "dead-letters",
        "",
        "The rows that failed are input again.",
        _run(Expect(exit=0, rows=3, answered=3), *scripted(THREE, "--errors-file", "failed.jsonl")),
    ),
    *(
        _process(f"environment-{case}", source, about, _run(_ALL, env=env))
        for case, source, about, env in (
            ("narrow", "", "The terminal has 12 columns.", {"COLUMNS": "12", "LINES": "3"}),
            ("odd-columns", "wrappers that export COLUMNS=0", "The terminal has no columns.", {"COLUMNS": "0"}),
            ("word-columns", "", "COLUMNS is no number.", {"COLUMNS": "wide", "LINES": "-1"}),
            ("dumb", "Emacs and CI: TERM=dumb", "The terminal can do nothing.", {"TERM": "dumb"}),
            ("no-term", "systemd and cron", "There is no TERM.", {"TERM": None}),
            ("color", "CI: FORCE_COLOR", "Colours are forced.", {"FORCE_COLOR": "1", "NO_COLOR": None}),
            (
                "no-temporary-folder",
                "containers with a read-only root",
                "TMPDIR does not exist.",
                {"TMPDIR": "/nowhere"},
            ),
            (
                "turkish",
                "PHP, Java: the dotless i",
                "A Turkish locale.",
                {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
            ),
            (
                "no-user",
                "containers with an unknown user id",
                "There is neither HOME nor USER.",
                {"HOME": None, "USER": None, "LOGNAME": None},
            ),
            ("warnings", "PYTHONWARNINGS=error", "Warnings are errors.", {"PYTHONWARNINGS": "error"}),
            ("optimised", "PYTHONOPTIMIZE=2", "No docstrings and no asserts.", {"PYTHONOPTIMIZE": "2"}),
            (
                "no-bytecode",
                "read-only installations",
                "No byte code, and a safe path.",
                {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"},
            ),
        )
    ),
    _process(
        "full-disk",
        "a full disk",
        "The output is a device that is full: one line says so.",
        _run(
            Expect(exit=5, says=("/dev/full",), silent=("traceback",), talk=6),
            *("summarise", THREE, "-o", "/dev/full", "-b", "scripted"),
            output="none",
        ),
    ),
    _process(
        "null-device",
        "cron: output to nowhere",
        "The output is /dev/null, and stays a device.",
        _run(Expect(exit=0), *("summarise", THREE, "-o", "/dev/null", "-b", "scripted"), output="none"),
        _run(Expect(exit=0), *("summarise", THREE, "-o", "/dev/null", "-b", "scripted"), output="none"),
    ),
    _process(
        "empty-stdin",
        "a pipe from a command that printed nothing",
        "Nothing is piped in: no rows, and no error.",
        _run(
            Expect(exit=(0, 2), silent=("traceback",), talk=6),
            *("summarise", "-", "-b", "scripted"),
            stdin="",
            output="none",
        ),
    ),
)
