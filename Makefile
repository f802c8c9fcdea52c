# What a newcomer, a developer and CI type. "make run" is all it takes; docs/install.md has the rest.

VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: help run setup test bench lock lint lint-code lint-format lint-types lint-imports lint-templates

help:
	@echo "make run    set up what is missing, then run cluster, web, worker and beat; Ctrl-C stops them"
	@echo "make setup  only set up (a virtual environment in $(VENV))"
	@echo "make test   lint, then every test (as root or with sudo it installs browser and RabbitMQ for them)"
	@echo "make lint   only the linters"
	@echo "make bench  the benchmark, beside RabbitMQ where that is installed"
	@echo "make lock   resolve the dependencies anew, into requirements/*.lock"

run: setup
	@exec $(BIN)/python manage.py run

setup: $(VENV)/.run-installed

# Stamps live inside the environment: when it goes, so do they.
$(VENV)/.run-installed: requirements/run.lock requirements/setup.sh
	@sh requirements/setup.sh $(VENV) requirements/run.lock
	@touch $@

$(VENV)/.dev-installed: requirements/dev.lock requirements/setup.sh
	@sh requirements/setup.sh $(VENV) requirements/dev.lock
	@touch $@ $(VENV)/.run-installed

test: lint
	@sh requirements/debian.sh
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT \
		&& MQ_HOME="$$home" $(BIN)/python -m pytest --durations=25 $(PYTEST_ARGS)

# Apart, so that "make -k lint" shows all there is to mend.
lint: lint-code lint-format lint-types lint-imports lint-templates

lint-code: $(VENV)/.dev-installed
	$(BIN)/ruff check .

lint-format: $(VENV)/.dev-installed
	$(BIN)/ruff format --check .

lint-types: $(VENV)/.dev-installed
	$(BIN)/mypy

lint-imports: $(VENV)/.dev-installed
	$(BIN)/lint-imports --no-logo

lint-templates: $(VENV)/.dev-installed
	$(BIN)/djlint templates --lint --quiet

bench: $(VENV)/.dev-installed
	$(BIN)/python -m tests.bench

LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(VENV)/.dev-installed
	$(LOCK) --output-file requirements/run.lock pyproject.toml
	$(LOCK) --output-file requirements/dev.lock --constraints requirements/run.lock --group dev pyproject.toml
