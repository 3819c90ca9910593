# Everything runs from .venv in this folder; nothing but Python 3.11+ and make is needed before.
# Settings of the service come from the environment: `make serve PORT=9000`, `VTAG_...=... make serve`.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# cpu or gpu: which of the two wheels of ONNX Runtime the service gets.
RUNTIME ?= cpu
# Handed to pytest by `make test`, e.g. PYTEST_ARGS="-k pooling -x".
PYTEST_ARGS ?=
# How many test files run at the same time; 0 for all in one process.
PYTEST_WORKERS ?= 2

# The first Python that is new enough; PYTHON=... overrides it.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for name in python3.11 python3; do \
	"$$name" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo "$$name"; break; }; done)
endif

# A stamp says that a step was done with the pins as they are: a second start installs nothing.
SERVICE := $(VENV)/.installed-service-$(RUNTIME)
TRAINING := $(VENV)/.installed-training
TEST := $(VENV)/.installed-test
LINT := $(VENV)/.installed-lint
AUDIT := $(VENV)/audit/.installed
BENCH := $(VENV)/.installed-bench

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install install-training serve test test-slow lint check demo-model reproduce \
	bench bench-search bench-index capacity schema dashboards drill metrics-table wheel \
	compose-check sbom audit licences constraints hooks clean distclean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-18s %s\n' "$$name" "$$text"; done

install: $(SERVICE) ## fill .venv with what the service needs (no torch)

install-training: $(TRAINING) ## add torch and what training needs

serve: $(SERVICE) ## start the service on http://127.0.0.1:8000
	@exec $(PY) -m service

test: $(TEST) ## install what the tests need and run them all
	$(PY) -m pytest -m "not slow" -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

test-slow: $(TEST) ## run the tests that take minutes: networks of real size
	$(PY) -m pytest -m slow $(PYTEST_ARGS)

lint: $(LINT) ## formatting, lint, types, import rules, spelling
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell

check: lint wheel test ## what has to pass before a change goes in

demo-model: $(TRAINING) ## rebuild model_store/demo from nothing
	$(PY) -m training demo

reproduce: $(TRAINING) ## train all systems of the papers, write training/REPRODUCTION.md (38 minutes on two cores)
	$(PY) -m training reproduce

bench: $(TEST) ## measure decoding, encoding and requests on this machine
	$(PY) -m tests.benchmarks

bench-search: $(TEST) ## measure how well search finds, over HTTP and without a service (Motion World)
	$(PY) -m tests.benchmarks.bench_search

# How many segments; a million takes the better part of an hour on two cores.
SEGMENTS ?= 50000
bench-index: $(BENCH) ## measure the index beside FAISS and LanceDB (SEGMENTS=1000000, VTAG_TEST_DATA)
	$(PY) -m tests.benchmarks.bench_index --segments $(SEGMENTS)

capacity: $(TEST) ## write deploy/CAPACITY.md from tests/benchmarks/unit_costs.toml
	$(PY) -m tests.benchmarks.capacity

schema: $(SERVICE) ## write model_store/manifest.schema.json from the Manifest class
	$(PY) -c 'import json; from service.videoclip.manifest import Manifest; print(json.dumps(Manifest.model_json_schema(), indent=2, ensure_ascii=False))' > model_store/manifest.schema.json

dashboards: $(TEST) ## write deploy/grafana/dashboards from tests/operations/boards
	$(PY) -m tests.operations.boards

drill: $(TEST) ## break a running service in seven ways and see each in a real Prometheus
	$(PY) -m tests.operations.drill

metrics-table: $(SERVICE) ## write deploy/METRICS.md from what the service declares
	$(PY) -m service metrics > deploy/METRICS.md

wheel: $(LINT) ## build dist/*.whl
	$(PY) -m build --wheel --no-isolation

# Of the compose file, Dockerfiles and manifests what a machine without a container engine can tell, and
# the processes they start, on this machine.
compose-check: $(TEST) ## schema, linter, kustomize, and the compose file's processes answer requests
	$(PY) -m pytest tests/contracts/test_compose.py tests/contracts/test_kubernetes.py tests/compose $(PYTEST_ARGS)
	@if docker compose version >/dev/null 2>&1; \
	then docker compose config --quiet && docker compose --profile gpu config --quiet; \
	else echo "compose-check: no docker compose here: its own reading of the file was not tried"; fi

sbom: $(AUDIT) ## write dist/sbom-cpu.cdx.json and dist/sbom-gpu.cdx.json (CycloneDX 1.6)
	@mkdir -p dist
	@for runtime in cpu gpu; do \
		$(VENV)/audit/bin/cyclonedx-py requirements --output-reproducible --sv 1.6 --of JSON \
			--pyproject pyproject.toml --mc-type application \
			-o dist/sbom-$$runtime.cdx.json deploy/docker/requirements-$$runtime.txt || exit 1; \
	done

# With OFFLINE=1 no advisory is asked for: every line of the requirements is still read, pinned and hashed.
audit: $(AUDIT) ## ask the advisory database about every package of the images (OFFLINE=1: pins and hashes only)
	@for name in build cpu gpu; do \
		$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip $(if $(OFFLINE),--dry-run) \
			-r deploy/docker/requirements-$$name.txt || exit 1; \
	done

licences: $(AUDIT) $(LINT) $(BENCH) ## write deploy/LICENCES.md from what is installed
	$(VENV)/audit/bin/python constraints/licences.py

constraints: $(AUDIT) ## resolve all dependencies anew: constraints/*.txt, deploy/docker/requirements-*.txt
	$(PY) constraints/resolve.py
	$(VENV)/audit/bin/python constraints/hashes.py

hooks: $(LINT) ## run the quick checks before every commit
	$(VENV)/bin/pre-commit install

clean: ## remove build results and caches
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find service training tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment as well
	rm -rf $(VENV)

$(PY):
	@test -n "$(PYTHON)" || { echo "vtag needs Python 3.11 or newer: none found on the PATH; name one with PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || { echo "vtag needs Python 3.11 or newer: PYTHON=$(PYTHON) is not" >&2; exit 1; }
	@echo "==> creating $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot create virtual environments: install its venv module (Debian: python3-venv)" >&2; exit 1; }

# The build tools are installed first and used as they are, so that the build is pinned too.
$(SERVICE): constraints/service.txt pyproject.toml | $(PY)
	@echo "==> installing the service ($(RUNTIME))"
	$(PIP) install -c constraints/service.txt hatchling editables
	@for other in $(filter-out $@,$(wildcard $(VENV)/.installed-service-*)); do \
		$(PIP) uninstall --yes onnxruntime onnxruntime-gpu && rm "$$other" || exit 1; done
	$(PIP) install -c constraints/service.txt --no-build-isolation --editable ".[$(RUNTIME)]"
	@$(PY) -m compileall -q service # also where PYTHONDONTWRITEBYTECODE would compile it at each start
	@touch $@

# torch goes first and alone: its build (CPU or CUDA) decides which one torchvision settles for.
$(TRAINING): constraints/training.txt $(SERVICE)
	@echo "==> installing torch and what training needs"
	$(PIP) install -c constraints/training.txt torch
	$(PIP) install -c constraints/training.txt --no-build-isolation --editable ".[$(RUNTIME),training]"
	@touch $@

$(TEST): constraints/dev.txt $(TRAINING)
	@echo "==> installing what the tests need"
	$(PIP) install -c constraints/dev.txt --no-build-isolation --editable ".[$(RUNTIME),training,test]"
	@$(PY) -m compileall -q service training tests
	@touch $@

$(LINT): constraints/dev.txt $(TEST)
	@echo "==> installing the checks"
	$(PIP) install -c constraints/dev.txt --no-build-isolation --editable ".[$(RUNTIME),training,test,lint]"
	@touch $@

# Apart from what they look at: one of their libraries makes every import of jsonschema take seconds.
$(AUDIT): constraints/audit.txt constraints/dev.txt | $(PY)
	@echo "==> installing what audits"
	$(PY) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check install -c constraints/audit.txt \
		cyclonedx-bom pip-audit pip-licenses uv
	@touch $@

$(BENCH): constraints/bench.txt $(TEST)
	@echo "==> installing the engines that the index is compared with"
	$(PIP) install -c constraints/bench.txt --no-build-isolation --editable ".[$(RUNTIME),training,test,bench]"
	@touch $@
