# make            installs into .venv and runs the demo profile: data, training, spectra, figures, tables, claims, report
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

.PHONY: all run report archive test check lock clean docs
all: run report
	@echo
	@echo "figures: figures/$(PROFILE)/"
	@echo "tables:  results/$(PROFILE)/, a folder a study"
	@echo "report:  results/$(PROFILE)/report.html; Snakemake's own: results/$(PROFILE)/workflow.html"

run: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)

# Snakemake's own report: times of jobs, the graph of rules, captions. `run` has made report.html already.
report: run
	$(BIN)/snakemake --configfile $(CONFIG) --report results/$(PROFILE)/workflow.html

# What an appendix needs, from results that are there: config, tables, records, figures, report, versions. With all
# weights: make archive WEIGHTS=--weights
archive: $(VENV)/.installed
	$(BIN)/python workflow/scripts/archive.py results/$(PROFILE) $(WEIGHTS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# The tests, and which share of the package's lines they ran, in their own processes (jobs of the pipeline's are not
# counted); the least covered files first.
coverage: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --cov=hessketch --cov-report=
	@$(BIN)/coverage report --sort=cover --skip-covered --precision=1 > .coverage.txt
	@head -22 .coverage.txt; tail -3 .coverage.txt

# Style, types and the workflow's rules; half a minute on one core.
check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/python workflow/lint.py
	$(BIN)/mypy

# The parts of README.md and docs/ that are made: configuration, rule graph, claims in short.
docs: $(VENV)/.installed
	$(BIN)/python workflow/scripts/write_documents.py

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
