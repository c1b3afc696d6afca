"""`mellea summarise`: flags in, one batch run out.

The signature is the list of flags: Typer reads it, weighs flag, environment and configuration file, and hands the
values over in the context.
"""

from __future__ import annotations

from typing import Annotated

import typer

from mellea_cli.cli.flags import (
    DISPLAY,
    INPUT,
    LIMITS,
    MODEL,
    OUTPUT,
    QUEUE,
    RUN,
    SAFETY,
    BackendName,
    EngineName,
    FormatName,
    OnBadRow,
    PipelineName,
    duration,
    flag,
    in_flight,
    time_limit,
)


def summarise(
    ctx: typer.Context,
    input: Annotated[
        str | None, typer.Argument(help="JSONL, JSON, CSV or TSV file, also .gz; - for stdin.", show_default=False)
    ] = None,
    output: Annotated[
        str, flag(OUTPUT, "--output", "-o", help="Where the rows go: a file (.jsonl .json .csv .tsv) or - for stdout.")
    ] = "-",
    output_format: Annotated[
        FormatName | None, flag(OUTPUT, "--output-format", help="Instead of the output's suffix.")
    ] = None,
    unordered: Annotated[
        bool, flag(OUTPUT, "--unordered", help="To stdout: rows as they are completed, not in input order.")
    ] = False,
    errors_file: Annotated[
        str | None, flag(OUTPUT, "--errors-file", help="Write failed items here as input rows, to be fed back.")
    ] = None,
    raw_csv: Annotated[
        bool, flag(OUTPUT, "--raw-csv", help="Leave CSV cells that a spreadsheet would run as formulas as they are.")
    ] = False,
    format: Annotated[
        FormatName | None, flag(INPUT, "--format", "-f", help="Instead of the input's suffix or first bytes.")
    ] = None,
    text_field: Annotated[
        str | None, flag(INPUT, "--text-field", help="Column with the feedback; by default text, feedback, comment, …")
    ] = None,
    id_field: Annotated[str | None, flag(INPUT, "--id-field", help="Column with the id; by default id.")] = None,
    encoding: Annotated[
        str | None, flag(INPUT, "--encoding", help="Of the input; by default UTF-8, or UTF-16 by its mark.")
    ] = None,
    delimiter: Annotated[
        str | None, flag(INPUT, "--delimiter", "-d", help="Between CSV columns; by default the likeliest of , ; tab |")
    ] = None,
    limit: Annotated[int | None, flag(INPUT, "--limit", "-n", min=1, help="Take the first N items only.")] = None,
    sample: Annotated[
        int | None, flag(INPUT, "--sample", min=1, help="Take N items at random, in their order.")
    ] = None,
    seed: Annotated[int, flag(INPUT, "--seed", help="Chooses the random items of --sample.")] = 0,
    on_bad_row: Annotated[
        OnBadRow, flag(INPUT, "--on-bad-row", help="auto: fail before the first request, skip where that is too late.")
    ] = "auto",
    model: Annotated[
        str | None, flag(MODEL, "--model", "-m", help="A name the backend knows, or a .gguf file.", show_default=False)
    ] = None,
    backend: Annotated[
        BackendName, flag(MODEL, "--backend", "-b", help="auto: a running Ollama that has the model, else local.")
    ] = "auto",
    base_url: Annotated[
        list[str] | None,
        flag(
            MODEL,
            "--base-url",
            help="Where the server is, its key in OPENAI_API_KEY; repeated: several servers.",
        ),
    ] = None,
    pool: Annotated[
        str | None, flag(MODEL, "--pool", metavar="NAME", help="Several servers: [pool.NAME] of the configuration.")
    ] = None,
    key_file: Annotated[
        str | None,
        flag(MODEL, "--key-file", metavar="FILE", help="A file with the server's key that only you can read."),
    ] = None,
    pipeline: Annotated[
        PipelineName, flag(MODEL, "--pipeline", "-p", help="single: one call an item; steps: the tutorial's three.")
    ] = "single",
    temperature: Annotated[
        float, flag(MODEL, "--temperature", "-t", min=0.0, max=2.0, help="0 for the likeliest answer.")
    ] = 0.0,
    model_seed: Annotated[
        int | None, flag(MODEL, "--model-seed", help="Makes sampling repeatable where the server can.")
    ] = None,
    pull: Annotated[bool, flag(MODEL, "--pull", help="Fetch the model first if it is missing.")] = False,
    concurrency: Annotated[
        int | None,
        flag(
            RUN,
            "--concurrency",
            "-c",
            parser=in_flight,
            metavar="N|auto",
            help="Requests in flight; auto finds the number that brings the most.",
            show_default="auto",
        ),
    ] = None,
    max_concurrency: Annotated[
        int | None, flag(RUN, "--max-concurrency", min=1, help="-c auto never goes beyond this.")
    ] = None,
    dedupe: Annotated[
        bool, flag(RUN, "--dedupe/--no-dedupe", help="Ask about identical texts once, and give all the answer.")
    ] = True,
    engine: Annotated[
        EngineName, flag(RUN, "--engine", help="ray: workers on a Ray cluster answer the items; see docs/ray.md.")
    ] = "here",
    ray_address: Annotated[
        str | None,
        flag(RUN, "--ray-address", help="auto, HOST:PORT or ray://HOST:PORT; by default RAY_ADDRESS, else its own."),
    ] = None,
    ray_workers: Annotated[
        int | None, flag(RUN, "--ray-workers", min=1, help="Workers on the cluster; by default one for each node.")
    ] = None,
    timeout: Annotated[
        float,
        flag(LIMITS, "--timeout", parser=time_limit, metavar="DURATION", help="One call may take so long: 90s, 15m."),
    ] = 600.0,
    first_token_timeout: Annotated[
        float | None,
        flag(
            LIMITS,
            "--first-token-timeout",
            parser=time_limit,
            metavar="DURATION",
            help="Its first token may; by default as --timeout.",
        ),
    ] = None,
    stall_timeout: Annotated[
        float,
        flag(LIMITS, "--stall-timeout", parser=time_limit, metavar="DURATION", help="Two tokens may lie so far apart."),
    ] = 180.0,
    max_retries: Annotated[
        int, flag(RUN, "--max-retries", min=0, help="Times a request is sent again when the server is at fault.")
    ] = 5,
    max_wait: Annotated[
        float,
        flag(LIMITS, "--max-wait", parser=duration, metavar="DURATION", help="Wait so long for a server that is away."),
    ] = 300.0,
    grace: Annotated[
        float,
        flag(
            RUN, "--grace", parser=duration, metavar="DURATION", help="Items in flight may take so long after Ctrl-C."
        ),
    ] = 10.0,
    rpm: Annotated[float | None, flag(LIMITS, "--rpm", min=0.1, help="Requests a minute at most.")] = None,
    tpm: Annotated[float | None, flag(LIMITS, "--tpm", min=1, help="Tokens a minute at most, both ways.")] = None,
    deadline: Annotated[
        str | None,
        flag(LIMITS, "--deadline", metavar="TIME", help="Stop after 90s, 15m, 6h, or at 06:30; keep what is done."),
    ] = None,
    max_errors: Annotated[
        str | None,
        flag(LIMITS, "--max-errors", metavar="N|P%", help="Stop when so many items, or so large a share, failed."),
    ] = None,
    max_tokens_total: Annotated[
        int | None, flag(LIMITS, "--max-tokens-total", min=1, help="Stop before the run uses more tokens.")
    ] = None,
    max_cost: Annotated[
        float | None, flag(LIMITS, "--max-cost", min=0.0, help="Stop before the run costs more; needs the prices.")
    ] = None,
    price_in: Annotated[
        float | None, flag(LIMITS, "--price-in", min=0.0, help="What a million tokens of prompts cost.")
    ] = None,
    price_out: Annotated[
        float | None, flag(LIMITS, "--price-out", min=0.0, help="What a million tokens of answers cost.")
    ] = None,
    redact: Annotated[
        bool, flag(SAFETY, "--redact", help="Mask e-mail, phone, card and IBAN before a text leaves.")
    ] = False,
    local_only: Annotated[
        bool, flag(SAFETY, "--local-only", help="Refuse every connection but those to this machine.")
    ] = False,
    allow_http: Annotated[bool, flag(SAFETY, "--allow-http", help="Allow http without TLS to other machines.")] = False,
    offload: Annotated[
        bool, flag(QUEUE, "--offload", help="Ask by the provider's batch queue: half the price, up to a day.")
    ] = False,
    wait: Annotated[
        bool, flag(QUEUE, "--wait/--no-wait", help="Stay until the batches are done, or hand in and come back.")
    ] = True,
    export_batch: Annotated[
        str | None, flag(QUEUE, "--export-batch", metavar="FILE", help="Write the requests to a file; send nothing.")
    ] = None,
    import_batch: Annotated[
        str | None, flag(QUEUE, "--import-batch", metavar="FILE", help="Take the answers from a batch's output file.")
    ] = None,
    batch_requests: Annotated[
        int, flag(QUEUE, "--batch-requests", min=1, help="Requests in one batch file at most.")
    ] = 50_000,
    batch_bytes: Annotated[
        int, flag(QUEUE, "--batch-bytes", min=1, help="Bytes in one batch file at most.")
    ] = 200_000_000,
    batch_window: Annotated[
        str, flag(QUEUE, "--batch-window", help="The completion window, as the server calls it.")
    ] = "24h",
    batch_poll: Annotated[
        float,
        flag(QUEUE, "--batch-poll", parser=time_limit, metavar="DURATION", help="The longest time between two looks."),
    ] = 60.0,
    fresh: Annotated[bool, flag(RUN, "--fresh", help="Forget earlier answers and start over.")] = False,
    retry_failed: Annotated[
        bool, flag(RUN, "--retry-failed/--no-retry-failed", help="Ask again about items that failed earlier.")
    ] = True,
    nightly: Annotated[
        bool, flag(RUN, "--nightly", help="For cron: no talk, one line of JSON on stderr at the end.")
    ] = False,
    dry_run: Annotated[bool, flag(RUN, "--dry-run", help="Show what would run; send nothing.")] = False,
    quiet: Annotated[bool, flag(DISPLAY, "--quiet", "-q", help="Errors only.")] = False,
    verbose: Annotated[
        int, flag(DISPLAY, "--verbose", "-v", count=True, help="Say why attempts failed; -vv: the model server's log.")
    ] = 0,
    live: Annotated[bool, flag(DISPLAY, "--live/--no-live", help="Panels at a terminal, or plain lines.")] = True,
    json: Annotated[bool, flag(DISPLAY, "--json", help="The closing summary as one line of JSON on stderr.")] = False,
    summary_file: Annotated[
        str | None, flag(DISPLAY, "--summary-file", help="The closing summary as JSON in a file.")
    ] = None,
    log_file: Annotated[
        str | None, flag(DISPLAY, "--log-file", help="Every event but the tokens, as JSON lines.")
    ] = None,
) -> None:
    """Summary, sentiment and issues for each piece of feedback in INPUT.

    Typed again, the same command asks only for what is missing, edited or failed.
    """
    from mellea_cli.cli.batch_run import stdin_has_data, stdin_is_terminal
    from mellea_cli.cli.batch_run import summarise as launch
    from mellea_cli.cli.flags import Flags
    from mellea_cli.cli.pools import weighed

    parameters = weighed(ctx.params, ctx.get_parameter_source)
    if parameters["input"] is None:
        if stdin_is_terminal() and not parameters["nightly"]:
            typer.echo(ctx.get_help())
            raise typer.Exit(0)
        # A forgotten input, as under a scheduler, is refused where every other error is.
        parameters["input"] = "-" if stdin_has_data() else ""
    raise typer.Exit(launch(Flags.read(parameters)))
