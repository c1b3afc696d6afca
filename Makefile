.PHONY: help install hooks check lint format test slow coverage structure reference site lock audit build fuzz bench

help:            ## Show these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

install:         ## Install the project and its tools into the active environment
	pip install --quiet -e '.[local,dev]'

hooks:           ## Run the checks of .pre-commit-config.yaml before each commit and push
	uvx pre-commit install --hook-type pre-commit --hook-type pre-push

check: lint test ## Everything that must hold before a commit

lint:            ## Style and types
	ruff check .
	ruff format --check .
	mypy

format:          ## Put the code into its form
	ruff check --fix .
	ruff format .

test:            ## The quick tests, on all cores; `pytest PATH` or `pytest -k NAME` runs what it names, slow or not
	pytest --quiet

slow:            ## The slow tests: kills, faults, fuzz, Ray, real models, a browser, a terminal
	pytest --quiet -m slow

coverage:        ## The quick tests with their coverage: at least 92 %, branches included
	pytest --quiet --cov

structure:       ## Modules, lines, importers, comments (limits in tests/test_structure.py)
	python tests/structure.py

reference:       ## Write the generated pages of docs/ and man/ again: after a change of flags or help texts
	python scripts/reference.py
	python scripts/pipelines_page.py

site:            ## Build the documentation into site/ and check its links (needs the extra docs)
	python scripts/build_site.py

lock:            ## Write requirements.lock again: after a change of the dependencies, or to take newer versions
	uv pip compile pyproject.toml --extra local --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --upgrade --quiet -o requirements.new
	( sed -n '/^#/p' requirements.lock; grep -v '^#' requirements.new ) > requirements.lock.new
	rm requirements.new && mv requirements.lock.new requirements.lock

audit:           ## Look every locked package up among known vulnerabilities (asks a public service)
	uvx pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip

build:           ## Build the wheel and the source archive into dist/
	uv build

fuzz:            ## Ten minutes of random bytes for the readers, ten for the stream decoders (needs the extra fuzz)
	PYTHONPATH=tests python -m fuzz readers --seconds 600
	PYTHONPATH=tests python -m fuzz streams --seconds 600

bench:           ## Ratios against peers in one run (see docs/performance.md)
	python -m benchmarks
