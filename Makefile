# Each target needs nothing but Python 3.11 or newer: it makes a virtual environment in $(VENV)
# first, and installs again only when the package's metadata has changed.

PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= demo

bin      := $(VENV)/bin
parallel := --numprocesses auto --dist worksteal
xplique  := xplique==2.0.2

# setuptools warns of every editable installation.
install := PYTHONWARNINGS=ignore::UserWarning \
           $(bin)/python -m pip install --quiet --disable-pip-version-check

.DELETE_ON_ERROR:
.PHONY: demo test lint bench docs clean

# Trains a small network on handwritten digits and logs why it decides as it does.
demo: $(VENV)/installed
	$(bin)/python examples/digits.py --out $(DEMO)
	@echo "Open TensorBoard with:"
	@echo "  $(bin)/tensorboard --logdir $(DEMO)/logs --samples_per_plugin images=1000"

# What CI checks, but for the slow tests.
test: lint
	$(bin)/pytest $(parallel) -m "not slow"

lint: $(VENV)/installed-test
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

# Prints the tables of benchmarks/README.md.
bench: $(VENV)/installed-bench
	$(bin)/python -m benchmarks

# The API reference as HTML, from the docstrings.
docs: $(VENV)/installed-docs
	$(bin)/pdoc --docformat google --output-directory docs/api keras_explain

clean:
	rm -rf $(VENV) $(DEMO) build dist docs/api *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/installed: $(VENV)/made pyproject.toml setup.cfg
	@echo "Installing into $(VENV): this takes a minute or two."
	$(install) --editable .
	@touch $@

$(VENV)/installed-test $(VENV)/installed-docs: $(VENV)/installed-%: $(VENV)/made pyproject.toml setup.cfg
	$(install) --editable '.[$*]'
	@touch $@

# Without its dependencies: they would replace TensorFlow by an older one and its CUDA build.
$(VENV)/installed-bench: $(VENV)/made pyproject.toml setup.cfg Makefile
	$(install) --editable '.[bench]'
	$(install) --no-deps $(xplique)
	@touch $@

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Expected Python 3.11 or newer. Received: " + sys.version.split()[0] + \
	  ". Name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(install) --upgrade pip
	@touch $@
