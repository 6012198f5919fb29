# What a user, a contributor and a build machine run; `make` alone lists it.
#
#   .venv/.made        an empty environment
#   .venv/.used        qtools in it as a user has it, for `make demo`
#   .venv/.tested      this checkout in it, editable, with what the tests need; from then on it serves the demo too
#   .venv/.compiled    bytecode beside the sources: an editable install has none, and a start takes twice as long without

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
DIST := $(CURDIR)/dist
# Said aloud: one that does not write bytecode as it goes (PYTHONDONTWRITEBYTECODE) still installs it.
INSTALL := "$(BIN)/python" -m pip install -qq --compile --no-input --disable-pip-version-check
SOURCES := $(shell find qtools -name __pycache__ -prune -o -print)
INSTALLED := $(if $(wildcard $(VENV)/.tested),$(VENV)/.compiled,$(VENV)/.used)

.DEFAULT_GOAL := help
.PHONY: help demo test cover prove bench site dist clean
.DELETE_ON_ERROR:
.NOTPARALLEL: # two installs into one environment would spoil it

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## run the main job on the embedded broker with real input, and prove that nothing changed
	@PATH="$(BIN):$$PATH" demo/run.sh

# Each test runs once: one that fails now and then has found a race, in the product or in itself. Six at a time on two
# cores, as the tests wait for programs and for time more than they compute. Meanwhile mypy runs, the other core compiles
# the tests, so that the six need not do it six times.
test: $(VENV)/.compiled ## run every check: ruff, mypy --strict, pytest
	@PATH="$(BIN):$$PATH"; export PATH; failed=; \
	check() { echo "$$ $$*"; "$$@" || failed="$$failed, $$*"; }; \
	PYTHONDONTWRITEBYTECODE= pytest --collect-only -q -m "not slow" >/dev/null 2>&1 & \
	check ruff check .; \
	check ruff format --check .; \
	check mypy; \
	wait; \
	check pytest --no-header -n 6 --dist worksteal -m "not slow"; \
	test -z "$$failed" || { echo "failed: $${failed#, }" >&2; exit 1; }

prove: $(VENV)/.compiled ## run the tests that take long, then the benchmarks
	@echo '$$ pytest -m slow'; PATH="$(BIN):$$PATH" pytest -m slow || test $$? -eq 5 # 5: there are none
	@echo '$$ pytest -m forks, every program executed'; PATH="$(BIN):$$PATH" QTOOLS_TESTS_EXECUTE=1 \
	    pytest -n 6 --dist worksteal -m "forks and not slow"
	@$(MAKE) --no-print-directory bench

cover: $(VENV)/.compiled ## run the tests and show which lines and branches they leave out
	@PATH="$(BIN):$$PATH" pytest --no-header -q -n 2 -m "not slow" --cov --cov-report=term-missing:skip-covered

bench: $(VENV)/.compiled ## measure the hot loops, then the commands side by side with NSQ's own
	@echo '$$ pytest bench'; PATH="$(BIN):$$PATH" pytest bench || test $$? -eq 5
	@echo '$$ bench/compare.py'; PATH="$(BIN):$$PATH" python bench/compare.py
	@echo '$$ bench/over_http.py'; PATH="$(BIN):$$PATH" python bench/over_http.py
	@echo '$$ bench/many.py'; PATH="$(BIN):$$PATH" python bench/many.py

site: $(VENV)/.tested ## make a web site of docs/ in site/; a link that leads nowhere fails
	@"$(BIN)/mkdocs" build --strict --quiet
	@echo "open site/index.html"

# The same sources give the same bytes: the date in them is that of the commit, or of the files of an unpacked sdist.
# The wheel is built from the sdist, which shows that the sdist is complete.
dist: $(VENV)/.tested ## build the sdist, and the wheel from it, into dist/
	@rm -rf "$(DIST)"; mkdir -p "$(DIST)/unpacked"
	@if [ -z "$$SOURCE_DATE_EPOCH" ] && [ -e .git ]; then SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); \
	elif [ -z "$$SOURCE_DATE_EPOCH" ]; then \
	    SOURCE_DATE_EPOCH=$$("$(BIN)/python" -c 'import os; print(int(os.stat("pyproject.toml").st_mtime))'); fi; \
	export SOURCE_DATE_EPOCH; \
	"$(BIN)/python" -m hatchling build -t sdist -d "$(DIST)" >/dev/null && \
	tar -xzf "$(DIST)"/qtools_cli-*.tar.gz -C "$(DIST)/unpacked" && \
	cd "$(DIST)/unpacked"/qtools_cli-* && "$(BIN)/python" -m hatchling build -t wheel -d "$(DIST)" >/dev/null
	@rm -rf "$(DIST)/unpacked"; ls "$(DIST)"/*

clean: ## remove the environment and everything else that was made
	rm -rf $(VENV) build dist site htmlcov .coverage .coverage.* .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "qtools needs Python 3.11 or newer, and $(PYTHON) is not: name one, as in make PYTHON=python3.12" >&2; exit 1; }
	@echo "making $(VENV)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.used: pyproject.toml $(SOURCES) | $(VENV)/.made
	@echo "installing qtools into $(VENV)"
	@$(INSTALL) '.[fast,snappy,regex,kafka,redis]'
	@touch $@

$(VENV)/.tested: pyproject.toml | $(VENV)/.made
	@echo "installing qtools and its tests' tools into $(VENV)"
	@$(INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.compiled: $(SOURCES) $(VENV)/.tested
	@"$(BIN)/python" -m compileall -q qtools
	@touch $@
