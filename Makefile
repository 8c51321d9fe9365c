# Everything a fresh clone needs: Python >= 3.11 and make.
#   make demo    set up, then run the main job on a model and data that ship
#   make test    set up, then run the tests (`make test-all`: every case of each)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SHARED := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all test-slow test-gpu test-lm cluster check format bench studies docs screenshots example clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'sensprobe needs Python 3.11 or newer: make PYTHON=python3.12')"
	@echo "setting up $(VENV): a minute or two, about 2 GB (PyTorch)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/sensprobe demo

test: $(READY)
	$(BIN)/python -m pytest $(SHARED) -q

test-all: $(READY)
	SENSPROBE_ALL_TESTS=1 $(BIN)/python -m pytest $(SHARED) -q

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

test-gpu: $(READY)
	$(BIN)/python -m pytest -q -m gpu

cluster: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cluster]'

test-lm: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,lm]'
	$(BIN)/python -m pytest -q -m lm

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m sensprobe.cli.reference --check docs/commands.md
	$(BIN)/python docs/generated.py --check

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python -m sensprobe.cli.reference --write docs/commands.md
	$(BIN)/python docs/generated.py --write

bench: $(READY)
	$(BIN)/python studies/000_speed/bench.py
	$(BIN)/python studies/000_speed/language.py

studies: $(READY)
	for study in studies/*/run.py; do $(BIN)/python $$study || exit 1; done

screenshots: $(READY)
	$(BIN)/python studies/readme/screenshots.py

# The run that the dashboard shows where there is none yet.
EXAMPLE := app/sensprobe_app/example/s4d-digits
example: $(READY)
	rm -rf $(EXAMPLE)
	$(BIN)/sensprobe profile s4d-digits --data digits --run $(EXAMPLE)
	$(BIN)/sensprobe profile s4d-digits --data digits --run $(EXAMPLE) --method taylor
	$(BIN)/sensprobe search --run $(EXAMPLE) --budget 1.5KiB --budget 1.75KiB --evaluations 40
	$(BIN)/sensprobe tune --run $(EXAMPLE) --plan 1.5KiB --epochs 20

clean:
	rm -rf $(VENV) build dist *.egg-info
