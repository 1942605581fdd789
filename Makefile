# `make help` lists the targets. Each sets up what it needs: any of them can be the first command in a clone.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
INSTALLED := .venv/.installed
BACKBONE_CACHE := .cache
SOURCES := agent controlplane examples migrations protos/generate.py tests
# Two cores run two tests at a time; more than four at a time contend for the timing of real processes.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n > 4 ? 4 : n )))
# What is pinned and installed of pyproject.toml: all but torch and quantize, which are gigabytes.
EXTRAS := controlplane agent otel training plots dev
# A file's tests stay together: many share processes that a fixture of the file started.
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# What the proto contract may not break: where this branch left main, else the commit before.
PROTO_BASE ?= $(shell base=$$(git merge-base HEAD origin/main 2>/dev/null || true); \
	if [ -n "$$base" ] && [ "$$base" != "$$(git rev-parse HEAD)" ]; then echo "$$base"; \
	else git rev-parse --quiet --verify HEAD~1 2>/dev/null || true; fi)

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- set-up ---------------------------------------------------------------------------------------

.PHONY: setup
setup: $(INSTALLED) ## Install everything into .venv, as requirements.lock pins it

$(INSTALLED): requirements.lock pyproject.toml .ci/install
	@.ci/install
	@touch $@

.PHONY: lock
lock: $(INSTALLED) ## Pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 $(addprefix --extra ,$(EXTRAS)) --generate-hashes \
		--upgrade --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.lock

.PHONY: protos
protos: $(INSTALLED) ## Generate protos/gen from the .proto files
	$(BIN)/buf format --write protos
	$(BIN)/python protos/generate.py

.PHONY: format
format: $(INSTALLED) ## Format the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix-only --quiet $(SOURCES)

.PHONY: clean
clean: ## Remove what the other targets made, but .cache
	rm -rf .venv .demo .bench dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# --- what people run ------------------------------------------------------------------------------

.PHONY: demo
demo: $(INSTALLED) ## Controller, three agents, two rollouts, then drift and retraining; KEEP=1 leaves it running
	$(BIN)/python -m examples.solar.demo $(if $(KEEP),--keep)

.PHONY: demo-stop
demo-stop: $(INSTALLED) ## End what `make demo KEEP=1` left running
	$(BIN)/python -m examples.solar.demo --stop

.PHONY: loop
loop: ROUNDS ?= 5
loop: $(INSTALLED) ## The loop of the demo for ROUNDS=5 rounds, then what labels are worth by how they were chosen
	$(BIN)/python -m examples.solar.rounds --rounds $(ROUNDS)
	$(BIN)/python -m tests.bench.sample_policies

.PHONY: test
test: $(INSTALLED) ## Run every test but those of test-nightly and test-peers
	$(PYTEST) -m "not peers and not nightly"

.PHONY: test-nightly
test-nightly: $(INSTALLED) ## Thirty agents on two controllers, every source format, sixty swaps under load
	$(BIN)/python -m pytest -m nightly

.PHONY: test-peers
test-peers: $(INSTALLED) ## Hold the agent's protocol against real Triton and its clients, which are installed into .cache
	$(BIN)/python -m pytest -m peers

.PHONY: bench
bench: $(INSTALLED) ## Measure against the limits of the machine; tables here, numbers in .bench
	$(BIN)/python -m tests.bench

.PHONY: bench-serving
bench-serving: $(INSTALLED) ## Images a second against benchmark_app and real Triton; ROUNDS=1 is quick; numbers in .bench/serving.json
	$(BIN)/python -m tests.bench.serving $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS_EACH),--seconds $(SECONDS_EACH))

.PHONY: bench-samples
bench-samples: $(INSTALLED) ## What a label is worth by the policy that picked it; SEEDS=3 is quick; picture and numbers in .bench
	$(BIN)/python -m tests.bench.sample_policies $(if $(SEEDS),--seeds $(SEEDS))

.PHONY: bench-finetune
bench-finetune: $(INSTALLED) ## What a full fine-tune gains over its head alone, with LABELS=400; fetches torch; numbers in .bench
	$(BIN)/python -m tests.bench.fine_tune $(if $(LABELS),--labels $(LABELS)) $(if $(EPOCHS),--epochs $(EPOCHS))

.PHONY: bench-lake
bench-lake: $(INSTALLED) ## Questions over RESULTS=10000000 results, as they come and merged; numbers in .bench/lake.json
	$(BIN)/python -m tests.bench.lake $(if $(RESULTS),--results $(RESULTS))

.PHONY: bench-ingest
bench-ingest: $(INSTALLED) ## Results and samples into a controller, against curl to nginx and the disk; numbers in .bench/ingest.json
	$(BIN)/python -m tests.bench.ingest

.PHONY: bench-fleet
bench-fleet: $(INSTALLED) ## What AGENTS=10000 cost a controller, and a tenth of them; table here, numbers in .bench/fleet.json
	$(BIN)/python -m tests.bench.scale $(if $(AGENTS),--agents $(AGENTS))

.PHONY: simulate
simulate: SEEDS ?= 200
simulate: FIRST ?= 0
simulate: $(INSTALLED) ## Simulate seeds on all cores: SEEDS=2000 FIRST=0; failing ones are printed and kept
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --first $(FIRST)

# --- what CI runs ---------------------------------------------------------------------------------

.PHONY: check
check: check-format check-lint check-types check-imports check-protos check-migrations test demo ## All that must hold before a merge

.PHONY: check-format
check-format: $(INSTALLED) ## Code and protos are formatted
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/buf format --diff --exit-code protos

.PHONY: check-lint
check-lint: $(INSTALLED) ## Lint the code and the protos
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/buf lint protos

.PHONY: check-types
check-types: $(INSTALLED) ## Types, strictly
	$(BIN)/mypy

.PHONY: check-imports
check-imports: $(INSTALLED) ## Imports run downward only
	PYTHONPATH=. $(BIN)/lint-imports

.PHONY: check-protos
check-protos: $(INSTALLED) ## The generated code is fresh and the contract breaks nobody
	$(BIN)/python -m pytest --quiet tests/architecture/test_generated_protos.py
	@if [ -z "$(PROTO_BASE)" ] || ! git cat-file -e "$(PROTO_BASE):protos/buf.yaml" 2>/dev/null; then \
		echo "buf breaking: no earlier contract in this clone to compare with"; \
	else \
		earlier=$$(mktemp -d); trap 'rm -rf "$$earlier"' EXIT; \
		git archive "$(PROTO_BASE)" protos | tar -x -C "$$earlier"; \
		$(BIN)/buf breaking protos --against "$$earlier/protos" && echo "buf breaking: none since $(PROTO_BASE)"; \
	fi

.PHONY: check-migrations
check-migrations: $(INSTALLED) ## The migrations build exactly the tables of the code
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	alembic="$(BIN)/alembic -x database_url=sqlite:///$$folder/check.db"; \
	$$alembic upgrade head && $$alembic check
