"""The flags that `mellea summarise` and `mellea themes` share, as one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mellea_cli.ui.show import Look


@dataclass(frozen=True, slots=True)
class Flags:
    """What was asked for, after flags, environment and configuration file have been weighed."""

    input: str
    output: str
    output_format: str | None
    unordered: bool
    errors_file: str | None
    raw_csv: bool
    format: str | None
    text_field: str | None
    id_field: str | None
    encoding: str | None
    delimiter: str | None
    limit: int | None
    sample: int | None
    seed: int
    on_bad_row: Literal["auto", "fail", "skip"]
    model: str | None
    backend: str
    base_url: str | None
    base_urls: tuple[str, ...]
    pool: str | None
    key_file: str | None
    pipeline: str
    temperature: float
    model_seed: int | None
    pull: bool
    concurrency: int | None
    max_concurrency: int | None
    dedupe: bool
    engine: str
    ray_address: str | None
    ray_workers: int | None
    timeout: float
    first_token_timeout: float | None
    stall_timeout: float
    max_retries: int
    max_wait: float
    grace: float
    rpm: float | None
    tpm: float | None
    deadline: str | None
    max_errors: str | None
    max_tokens_total: int | None
    max_cost: float | None
    price_in: float | None
    price_out: float | None
    redact: bool
    local_only: bool
    allow_http: bool
    offload: bool
    wait: bool
    export_batch: str | None
    import_batch: str | None
    batch_requests: int
    batch_bytes: int
    batch_window: str
    batch_poll: float
    fresh: bool
    retry_failed: bool
    nightly: bool
    dry_run: bool
    quiet: bool
    verbose: int
    live: bool
    json: bool
    summary_file: str | None
    log_file: str | None

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Flags:
        """Take the flags from a command's parameters; those of other commands are left out."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: parameters[name] for name in names})

    @property
    def queued(self) -> bool:
        """Whether the answers go by batch files, this way or that."""
        return bool(self.offload or self.export_batch or self.import_batch)

    def look(self) -> Look:
        """How the run is to be shown; a nightly one says nothing but one line of JSON at its end."""
        return Look(
            quiet=self.quiet or self.nightly,
            verbose=self.verbose,
            live=self.live and not self.nightly,
            json=self.json or self.nightly,
            summary_file=self.summary_file,
            log_file=self.log_file,
        )
