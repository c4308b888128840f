# `make demo` and `make test` on a bare machine do everything, set-up included.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check torture lock setup clean

demo: $(STAMP)
	@$(BIN)/lumbung demo $(DEMO_ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 $(TEST_ARGS)

# The hub under fire: half an hour, or as TORTURE_ARGS say. The report is printed; exit status 1 when a promise was broken.
torture: $(STAMP)
	@$(BIN)/lumbung torture $(or $(TORTURE_ARGS),--seconds 1800)

check: $(STAMP)
	@$(BIN)/ruff check src tests
	@$(BIN)/ruff format --check src tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Lumbung needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@echo "Setting up $(VENV) (once, about a minute) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "No venv module: on Debian and Ubuntu install the package python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# Records versions and hashes of everything that is installed, for every platform.
lock:
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
