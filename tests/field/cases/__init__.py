"""The table of all cases."""

from __future__ import annotations

from field.cases import answers, errors, forms, kept, processes, streams, tables, wordings
from field.model import Case

CASES: tuple[Case, ...] = (
    *answers.CASES,
    *streams.CASES,
    *errors.CASES,
    *wordings.CASES,
    *forms.CASES,
    *tables.CASES,
    *kept.CASES,
    *processes.CASES,
)
