"""The table of all cases."""

from __future__ import annotations

from field.cases import (
    answers,
    errors,
    exports,
    files_later,
    forms,
    kept,
    processes,
    reports,
    servers,
    streams,
    tables,
    wordings,
)
from field.model import Case

CASES: tuple[Case, ...] = (
    *answers.CASES,
    *streams.CASES,
    *errors.CASES,
    *wordings.CASES,
    *forms.CASES,
    *tables.CASES,
    *exports.CASES,
    *kept.CASES,
    *reports.CASES,
    *files_later.CASES,
    *servers.CASES,
    *processes.CASES,
)
