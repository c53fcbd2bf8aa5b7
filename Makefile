# make demo   sets up this machine and shows the main job, step by step
# make test   sets up this machine and runs every test
#
# `make help` lists the rest. Everything runs as root on Debian 12.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.SUFFIXES:

# A process that may not keep what it has compiled compiles it anew at each start, and tests start thousands.
unexport PYTHONDONTWRITEBYTECODE

PYTHON := .venv/bin/python
CARGO := setup/cargo
ENGINE := --manifest-path engine/Cargo.toml --locked
# Two processes, one for each core, as tests/order.py gives out the tests. PYTEST_ARGS='-n0 -x' runs them one by one.
PYTEST_ARGS ?= -n 2

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## sets up, then: create a VM, and the array makes, opens and serves its disk
	@setup/prepare
	@$(PYTHON) -m gespann.main.demo

.PHONY: test
test: ## sets up, then every test: engine, Python, real guests
	@setup/prepare test
	@tests/run -q --durations=30 --durations-min=5 $(PYTEST_ARGS)

.PHONY: crash
crash: ## kills the engine under writers (UNDER=guest, UNDER=fio) until Ctrl-C or a loss; KILLS=n ends it, SEED=n repeats a run
	@setup/prepare test
	@$(PYTHON) -m tests.fault.engine.crash $(if $(UNDER),--under $(UNDER)) $(if $(KILLS),--kills $(KILLS)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep)

.PHONY: kills
kills: ## kills coordinator, agent, group and engine in the middle of operations, for SECONDS (600); SEED=n, TRIAL=name
	@setup/prepare test
	@$(PYTHON) -m tests.product.whole.kills --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(if $(TRIAL),--trial "$(TRIAL)")

EXAMPLES ?= 5000

.PHONY: search
search: ## tries the tests of random input with other input each time, EXAMPLES=5000 for each, until all have held
	@setup/prepare test
	GESPANN_EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest -q $(PYTEST_ARGS) -m hypothesis --hypothesis-profile=search --timeout=0

FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: ## sends the engine's parsers what nobody would, FUZZ_SECONDS=60 for each; what breaks them is kept
	@setup/prepare test
	@engine/fuzz/run -t $(FUZZ_SECONDS)

.PHONY: up
up: ## sets up and starts a lab that stays: an array group, and a pool with HOSTS (1) hosts
	@setup/prepare
	@$(PYTHON) -m gespann.main.lab up --hosts $(or $(HOSTS),1)

.PHONY: down
down: ## stops the lab of `make up` and leaves nothing behind
	@setup/prepare python
	@$(PYTHON) -m gespann.main.lab down

.PHONY: check
check: ## style, types and rules, without running the product
	@setup/prepare test
	$(PYTHON) -m pytest -q tests/style

.PHONY: fmt
fmt: ## formats Python and Rust
	@setup/prepare test
	.venv/bin/ruff check --fix --quiet .
	.venv/bin/ruff format --quiet .
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --manifest-path engine/Cargo.toml --all; \
	else echo "fmt: no rustfmt on this machine; Debian's is in the package rustfmt-web"; fi

.PHONY: crash-model
crash-model: ## crashes a simulated disk under the store, at random, for SECONDS (600)
	@setup/prepare test
	GESPANN_MODEL_SECONDS=$(or $(SECONDS),600) $(CARGO) test $(ENGINE) -p gespann-store --test model open_ended -- --nocapture

.PHONY: bench
bench: bench-engine bench-snapshots bench-api ## every measurement: the engine, a large pool's API, VM start step by step, xe
	@$(PYTHON) -m bench.pool

.PHONY: bench-engine
bench-engine: ## the engine against Debian's targets and its own limits; cores; sessions
	@setup/prepare test
	@$(PYTHON) -m bench.engine
	@$(PYTHON) -m bench.engine_cores
	@$(PYTHON) -m bench.engine_sessions
	@$(PYTHON) -m bench.engine_waits
	@$(PYTHON) -m bench.engine_pieces

.PHONY: bench-snapshots
bench-snapshots: ## what snapshots and clones cost: pauses, stalls of writers, space
	@setup/prepare test
	@$(PYTHON) -m bench.engine_snapshots
	@$(PYTHON) -m bench.engine_scale

.PHONY: bench-many
bench-many: ## 50 VMs cloned and started at once, and 8 real guests
	@setup/prepare test
	@$(PYTHON) -m bench.pool_many --keep

.PHONY: bench-api
bench-api: ## the XenAPI of a pool with 10,000 VMs
	@setup/prepare test
	@$(PYTHON) -m bench.api --keep

.PHONY: conformance
conformance: ## libiscsi's conformance suite, each skip with its reason
	@setup/prepare test
	@$(PYTHON) -m tests.product.engine.conformance

.PHONY: lock
lock: ## makes the lock files of Python anew from setup/*.in
	@setup/prepare test
	cd setup && for name in requirements requirements-dev; do \
	  ../.venv/bin/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --allow-unsafe \
	    --strip-extras -o $$name.lock $$name.in || exit 1; done

.PHONY: clean
clean: down ## removes what was built, and the lab's data; keeps var/cache
	rm -rf build var/lab var/demo var/log
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
