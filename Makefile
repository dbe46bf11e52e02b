# make            installs into .venv and runs the demo profile: data, training, spectra, figures, tables, report
# make test       the tests, in the same environment
# make PROFILE=fashion_mnist_cpu   another profile
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= demo
CONFIG := config/$(PROFILE).yaml
CORES ?= all
# On Linux, PyPI's torch brings several GB of CUDA libraries. For a CPU-only install:
#   make PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_OPTIONS ?=

.PHONY: all run report archive test check lock clean
all: run report
	@echo
	@echo "figures: figures/$(PROFILE)/"
	@echo "tables:  results/$(PROFILE)/, a folder a study"
	@echo "report:  results/$(PROFILE)/report.html"

run: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)

report: run
	$(BIN)/snakemake --configfile $(CONFIG) --report results/$(PROFILE)/report.html

# What an appendix needs, from results that are there: config, tables, records, figures, report, versions. With all
# weights: make archive WEIGHTS=--weights
archive: $(VENV)/.installed
	$(BIN)/python workflow/scripts/archive.py results/$(PROFILE) $(WEIGHTS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# Pins what the environment holds now; run it after changing pyproject.toml and installing.
lock:
	@{ echo "# Exact versions that 'make' installs (Python 3.11, any platform that has wheels). Made by: make lock"; \
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock.partial
	@mv requirements.lock.partial requirements.lock

clean:
	rm -rf results/demo figures/demo logs/demo resources .snakemake
