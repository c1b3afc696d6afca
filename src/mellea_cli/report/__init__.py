"""From rows to figures: what `mellea report` and `mellea compare` say about the output of a run."""
