# Every target makes the environment it needs: `make demo`, `make test`.

PYTHON ?= python3
VENV := .venv
FLOORS := .venv-floors
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Releases differ between Python versions, so each has its own pins.
CONSTRAINTS = constraints/$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt

# No usage reports and no weight downloads from Inference.
export OFFLINE_MODE := True
export METRICS_ENABLED := False

.PHONY: demo serve gallery test test-long floors coverage check format train evaluate benchmarks clean help

help: ## Show what can be made.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(READY) ## Detect, visualize and export on the sample images.
	@$(BIN)/workflow-blocks demo

serve: $(READY) ## Start Inference's server with this plugin on 127.0.0.1:9001.
	@$(BIN)/workflow-blocks serve

# Two processes at most; tests of one file run in one of them (see tests/conftest.py).
PYTEST := $(BIN)/pytest -n 2 --durations=10

test: $(READY) ## Run the tests, but for the long ones.
	$(PYTEST)

test-long: $(READY) ## Run the long tests: full fuzzing, torch.compile, more crash trials, a short soak.
	$(PYTEST) -m long

# `torchvision` is a dependency of Inference; without its floor, uv takes the latest, which needs the latest torch.
floors: $(READY) ## Run the demo with the lowest versions that pyproject.toml declares, in an environment of its own.
	@rm -rf $(FLOORS)
	@$(PYTHON) -m venv --without-pip $(FLOORS)
	@$(BIN)/uv pip install --quiet --python $(FLOORS)/bin/python --resolution lowest-direct '.[dev]' 'torchvision>=0.20'
	@$(FLOORS)/bin/workflow-blocks demo --output $(FLOORS)/demo_output
	@$(FLOORS)/bin/pytest -q -p no:cacheprovider tests/commands/test_help.py tests/moondream2/test_config.py

coverage: $(READY) ## Run all tests and print the line coverage, with that of other processes.
	$(PYTEST) -m "long or not long" --cov=workflow_blocks --cov-report=term-missing:skip-covered

check: $(READY) ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Put the code into its style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: $(READY) ## Train the demo model from nothing, or go on from its last checkpoint (hours).
	$(BIN)/python -m training.train

evaluate: $(READY) ## Measure the demo model on scenes that it has never seen.
	$(BIN)/python -m training.evaluate

benchmarks: $(READY) ## Measure speed and memory side by side, and draw docs/benchmarks (an hour).
	@for name in prompts dtypes images default_id skills answers joined evaluation time_spent overhead released_size scores point_scores dataset_export remote cluster soak playground; do \
	  $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

gallery: $(READY) ## Draw the pictures in docs/gallery again from the workflow definitions.
	@$(BIN)/python -m docs.draw_gallery

clean: ## Remove the environment and what the demo wrote.
	rm -rf $(VENV) $(FLOORS) compare_output demo_output results

# uv installs in a minute what takes pip several; pip is the way where uv cannot reach the packages.
$(READY): pyproject.toml $(wildcard constraints/*.txt)
	@test -f $(CONSTRAINTS) || { echo "Python 3.10 to 3.13 is needed; name one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Making the environment in $(VENV) (once; Inference brings PyTorch, some GB)..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --python $(BIN)/python --constraint $(CONSTRAINTS) --editable '.[dev]' \
	  || $(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@
