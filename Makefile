.PHONY: help check lint format test bench

help:            ## Show these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

check: lint test ## Everything that must hold before a commit

lint:            ## Style and types
	ruff check .
	ruff format --check .
	mypy

format:          ## Put the code into its form
	ruff check --fix .
	ruff format .

test:            ## All tests; `pytest -m "not live and not terminal"` for the quick ones
	pytest --quiet

bench:           ## Ratios against peers in one run (see docs/performance.md)
	python -m benchmarks
