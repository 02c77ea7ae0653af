# Everything runs in .venv; `make` alone lists the targets.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.installed
# Only what is committed: no runs of this machine, no experiments of your own.
COMMITTED := HARNESS_EXPERIMENTS= HARNESS_RUNS=/nonexistent HARNESS_RESULTS=$(CURDIR)/results $(BIN)/harness
QUICK := HARNESS_RUNS=$(CURDIR)/.quickstart/runs HARNESS_RESULTS=$(CURDIR)/.quickstart/results

.PHONY: help install quickstart test test-slow programs slurm-ready test-slurm test-gpu test-lowest test-newest fidelity fuzz bench docs tables figures report lint clean

help:
	@echo "make quickstart  install, train table 2 at the tiny scale (minutes), print the table and the verdicts"
	@echo "make test        install and run the tests, without those marked slow"
	@echo "make test-slow   the slow tests; one of them learns eight real images by heart"
	@echo "make programs    what the slow tests drive: Chromium and TeX; installs what is missing (apt-get, root)"
	@echo "make slurm-ready start a real Slurm of two nodes and end it; installs it, munge, slurmdbd and MariaDB (apt-get, root)"
	@echo "make test-slurm  tests on that Slurm, which is started for them"
	@echo "make test-gpu    everything that needs a GPU, on this machine's; without one it fails and says so"
	@echo "make test-lowest losses, kernels, commands and hostile input with the lowest versions that pyproject.toml allows"
	@echo "make test-newest the same with the newest versions that there are"
	@echo "make fidelity    compare with other codebases, on real COCO images, and write docs/fidelity.md"
	@echo "make fuzz        try changed documents on every reader for ten minutes; what fails is in .fuzz/crashes"
	@echo "make bench       compare costs with those of peers (half an hour; on a GPU, the GPU alone), and write docs/performance.md"
	@echo "make docs        build the pages of docs/ as a site in docs/_build; every warning is an error"
	@echo "make tables      render results/tables again from results/records"
	@echo "make figures     draw results/figures again from results/records"
	@echo "make report      write the page of results/records to report/index.html"
	@echo "make lint        ruff and mypy"
	@echo "make clean       remove .venv, .quickstart, docs/_build and report"

install: $(STAMP)

# uv installs in seconds what takes pip minutes; compiled bytecode halves the start-up of torch.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --constraint constraints.txt --editable '.[test,dev,docs]'
	@touch $(STAMP)

quickstart: install
	@$(QUICK) $(BIN)/harness run table2 --profile tiny
	@$(QUICK) $(BIN)/harness table table2 --profile tiny
	@$(QUICK) $(BIN)/harness check table2 --profile tiny
	@echo
	@echo "To type that command as it stands, in this shell and on these runs, first:"
	@echo "  export PATH=$(CURDIR)/$(BIN):\$$PATH HARNESS_RUNS=$(CURDIR)/.quickstart/runs HARNESS_RESULTS=$(CURDIR)/.quickstart/results"

# Each core begins with half of the files; the one that is done first takes over from the other.
test: install
	$(BIN)/python -m pytest -m "not slow and not slurm" -n 2 --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal

# A line for each program: its version, or why what needs it is skipped.
programs: install
	@$(BIN)/python -m tests.programs

# One line: Slurm's version and its idle nodes, or why it cannot be tested here.
slurm-ready: install
	@$(BIN)/python -m tests.slurm.ready

# Two tests run side by side, each on a Slurm of its own: with more, a slow machine starts the processes of a job too late.
# The limit is for a test that hangs, and has room for a slow machine.
test-slurm: slurm-ready
	timeout 3000 $(BIN)/python -m pytest tests/slurm -m slurm -n 2 --maxschedchunk 1 -v

test-gpu: install
	$(BIN)/python -m tests.gpu

# Environments of their own. Of the slow tests only those about versions: every import, and Triton's compiler.
define test_with
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-$(1)
	VIRTUAL_ENV=$(CURDIR)/.venv-$(1) $(BIN)/uv pip install --quiet --compile-bytecode $(2) --editable '.[test]'
	.venv-$(1)/bin/python -m pytest tests/drloss tests/harness/cli tests/hostile -m "not slow" -n 2 --dist loadfile
	.venv-$(1)/bin/python -m pytest tests/harness/test_interface.py tests/drloss/kernels/test_gpu_builds.py tests/drloss/kernels/test_gpu_builds_of_sets.py tests/detector/kernels/test_builds.py -n 2
endef

test-lowest: install
	$(call test_with,lowest,--resolution lowest-direct)

test-newest: install
	$(call test_with,newest,--upgrade)

fidelity: install
	@mkdir -p docs
	$(BIN)/python -m pytest tests/fidelity --ignore tests/fidelity/test_page.py -n 2 --dist loadfile --write-fidelity docs/fidelity.md

# Not part of CI: it finds other things each time.
fuzz: install
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --editable '.[test,fuzz]'
	$(BIN)/python -m tests.hostile.fuzz --minutes 10
	$(BIN)/python -m tests.hostile.counts

bench: install
	$(BIN)/python -m benchmarks --page docs/performance.md

docs: install
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "docs/_build/index.html"

tables: install
	@mkdir -p results/tables/tiny
	$(COMMITTED) table all --profile tiny --format md > results/tables/tiny/tables.md
	$(COMMITTED) table all --profile tiny --format latex > results/tables/tiny/tables.tex
	$(COMMITTED) table ablations --profile tiny --format md > results/tables/tiny/ablations.md
	$(COMMITTED) check all --profile tiny --format md > results/tables/tiny/check.md

figures: install
	$(COMMITTED) figure all --profile tiny --out results/figures/tiny --force

report: install
	$(COMMITTED) report all ablations --profile tiny --out report

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest .quickstart docs/_build report
