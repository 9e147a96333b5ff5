# Everything a newcomer needs: Python 3.11 or newer, make, and a package registry. No compiler.
#
#   make demo     serve the FastAPI example with two workers, and say what to try
#   make test     lint, types and the whole test suite
#   make tools    the proxies and checkers by others that tests/proxies needs; `make test` does it too
#   make bench    measure Cavalcade and its peers on every kind of work (needs wrk; h2load and nginx for all of it)
#   make bench-docs   put what `make bench` has measured into docs/performance.md
#   make bench-overhead   what supervision costs: all of it against none (needs wrk and valgrind)
#   make bench-access-log   what an access line costs, in instructions (needs valgrind)
#   make bench-metrics   what the metrics cost a request, in instructions and in time (needs wrk and valgrind)
#   make bench-async   one FastAPI app behind uvicorn, gunicorn + uvicorn worker and Cavalcade: does it stay asynchronous?
#   make faults   reload, recycle, break, scale, kill and stop a server under traffic, and count the lost requests: none
#   make faults-peers   the same for gunicorn + uvicorn-worker, uvicorn, granian and hypercorn, where they offer it
#   make format   format the source

# The first Python that is new enough; `make PYTHON=... test` takes another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PORT ?= 8000
VENV ?= .venv
COMPILED ?= .venv-compiled
PEERS ?= .venv-peers
# More processes than CPUs: a test of real processes mostly waits for them. With three on two CPUs a fifth of the CPU time was idle.
JOBS ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 2) * 2)))
# The tests look here, and skip what is not there.
TOOLS = .venv-tools
BIN = $(VENV)/bin
PIP = python -m pip install --quiet --quiet --disable-pip-version-check
SOURCES := $(shell find src -name '*.py' -o -name '*.pxd' -o -name 'py.typed')

# `make PORT=9000 demo` is for this file; the server itself would read PORT too.
unexport PORT
# Container images often set it; every process of a test run would then rewrite and compile all tests anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-compiled tools lint types pytest bench bench-docs bench-overhead bench-access-log bench-metrics bench-async faults faults-peers format docs clean
.DEFAULT_GOAL := test

demo: $(VENV)/.installed
	@sh examples/try.sh $(PORT) $(VENV)/demo.pid
	@$(BIN)/cavalcade main:app --app-dir examples/fastapi_demo --workers 2 --bind 127.0.0.1:$(PORT) --pid $(VENV)/demo.pid

# First both environments, at once: half the time pip waits for the registry.
test:
	@$(MAKE) --no-print-directory --silent -j2 $(VENV)/.installed $(TOOLS)/.installed
	@$(MAKE) --no-print-directory lint types pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

# The servers under test write no bytecode (testing/live.py says why): each of hundreds would compile all that it imports, for 0.4 s.
pytest: $(VENV)/.installed $(TOOLS)/.installed
	@$(BIN)/python -m compileall -q src
	EXPECT_BUILD=pure $(BIN)/pytest -n $(JOBS) --dist worksteal -m "not alone" $(PYTEST_ARGS)
	EXPECT_BUILD=pure $(BIN)/pytest -m alone $(PYTEST_ARGS) || test $$? = 5  # none of them was asked for

# The same suite against an ordinary, compiled install. With REPEAT=1 what would only say the same once more is left out.
test-compiled: $(COMPILED)/.installed $(TOOLS)/.installed
	EXPECT_BUILD=$(EXPECT_BUILD) $(COMPILED)/bin/pytest -n $(JOBS) --dist worksteal -m "not alone $(if $(REPEAT),and not any_build)" $(PYTEST_ARGS)
	EXPECT_BUILD=$(EXPECT_BUILD) $(COMPILED)/bin/pytest -m alone $(PYTEST_ARGS) || test $$? = 5

tools: $(TOOLS)/.installed

# It makes the environments of what it measures itself, one for each CPython (`BENCH_ARGS="--python python3.13"`) in .venv-bench.
bench: $(VENV)/.installed
	@$(BIN)/python bench/run.py $(BENCH_ARGS)

bench-docs: $(VENV)/.installed
	@$(BIN)/python bench/run.py --docs

bench-overhead: $(VENV)/.installed
	$(BIN)/python bench/overhead.py --require 0.01 $(OVERHEAD_ARGS)

bench-access-log: $(VENV)/.installed $(COMPILED)/.installed
	$(BIN)/python bench/access_log.py --require 0.05 --python $(COMPILED)/bin/python $(BENCH_ARGS)

bench-metrics: $(COMPILED)/.installed
	$(VENV)/bin/python bench/metrics_cost.py --python $(COMPILED)/bin/python $(BENCH_ARGS)

bench-async: $(VENV)/.installed $(PEERS)/.installed
	@$(BIN)/python bench/async_answer.py --peers-python $(PEERS)/bin/python $(BENCH_ARGS)

faults: $(VENV)/.installed
	@$(BIN)/python bench/faults $(FAULTS_ARGS)

faults-peers: $(VENV)/.installed $(PEERS)/.installed
	@$(BIN)/python bench/faults --peers $(PEERS)/bin/python $(FAULTS_ARGS)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The option table is made from the declarations; a test fails when it is behind.
docs: $(VENV)/.installed
	$(BIN)/python docs/options.py

# Editable and never compiled: an extension beside its source would hide every edit of it.
$(VENV)/.installed: pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing into $(VENV), about a minute ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@CAVALCADE_PURE=1 $(BIN)/$(PIP) --editable '.[dev]'
	@touch $@

# An ordinary install, compiled where there is a compiler.
$(COMPILED)/.installed: pyproject.toml setup.py $(SOURCES)
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "building and installing into $(COMPILED), about a minute ..."
	@test -x $(COMPILED)/bin/python || $(PYTHON) -m venv $(COMPILED)
	@$(COMPILED)/bin/$(PIP) '.[dev]'
	@$(COMPILED)/bin/cavalcade --version
	@touch $@

# The servers that ours is compared with, each as it comes from the registry today.
$(PEERS)/.installed: bench/peers.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing into $(PEERS) ..."
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/$(PIP) --upgrade -r $<
	@touch $@

# One by one: what there is no wheel of for this machine is left out, and its tests say so.
$(TOOLS)/.installed: tests/proxies/tools.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "installing into $(TOOLS) ..."
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@for tool in $$(grep -o '^[^#]*' $<); do $(TOOLS)/bin/$(PIP) --only-binary :all: "$$tool" || echo "not to be had here: $$tool"; done
	@touch $@

clean:
	rm -rf $(VENV) $(COMPILED) $(PEERS) $(TOOLS) .venv-other .venv-bench build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/results
	find src -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
