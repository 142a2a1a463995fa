PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := pyproject.toml constraints.txt $(shell find protos -name '*.proto')

.PHONY: demo test lint bench format proto docs dashboard clean

demo: $(VENV)/.demo ## start a server, stream two documents up, ask, stop
	$(BIN)/python examples/demo.py

# Two processes of one thread each: most tests wait for other processes.
test: $(VENV)/.dev ## all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/.dev ## style, types, wire contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cd protos && ../$(BIN)/buf lint

bench: $(VENV)/.dev ## tables on screen and in benchmarks/results/
	$(BIN)/python -m benchmarks

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

proto: $(VENV)/.dev ## after a change to a .proto file
	$(BIN)/python protos/generate.py

docs: $(VENV)/.dev ## after a change to a module's first sentence
	$(BIN)/python docs/modules.py

dashboard: $(VENV)/.dev ## after a change to k8s/dashboard
	$(BIN)/python -m k8s.dashboard

clean:
	rm -rf $(VENV) .checkov dist

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch alone and first: with the pinned build in place nothing else pulls another one.
$(VENV)/.demo: $(VENV)/.created $(SOURCES)
	$(PIP) torch
	$(PIP) --editable '.[client,server,embedded]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[client,server,embedded,dev]'
	@.ci/servers & .ci/checkov & wait
	@touch $@
