.PHONY: help check lint format test fuzz bench

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

fuzz:            ## Ten minutes of random bytes for the readers, ten for the stream decoders (needs the extra fuzz)
	PYTHONPATH=tests python -m fuzz readers --seconds 600
	PYTHONPATH=tests python -m fuzz streams --seconds 600

bench:           ## Ratios against peers in one run (see docs/performance.md)
	python -m benchmarks
