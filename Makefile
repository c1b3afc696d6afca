.PHONY: help check lint format test lock audit fuzz bench

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

test:            ## All tests; `pytest -m "not live and not terminal and not field"` for the quick ones
	pytest --quiet

lock:            ## Write requirements.lock again: after a change of the dependencies, or to take newer versions
	uv pip compile pyproject.toml --extra local --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --upgrade --quiet -o requirements.new
	( sed -n '/^#/p' requirements.lock; grep -v '^#' requirements.new ) > requirements.lock.new
	rm requirements.new && mv requirements.lock.new requirements.lock

audit:           ## Look every locked package up among known vulnerabilities (asks a public service)
	uvx pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip

fuzz:            ## Ten minutes of random bytes for the readers, ten for the stream decoders (needs the extra fuzz)
	PYTHONPATH=tests python -m fuzz readers --seconds 600
	PYTHONPATH=tests python -m fuzz streams --seconds 600

bench:           ## Ratios against peers in one run (see docs/performance.md)
	python -m benchmarks
