# Every target sets up what it needs: on a bare machine, python3, make and git are enough.
SERVES := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
NAMES := python3 python3.14 python3.13 python3.12 python3.11
ifndef PYTHON  # the first that serves; make PYTHON=… names another
PYTHON := $(shell for name in $(NAMES); do "$$name" -c '$(SERVES)' 2>/dev/null && echo "$$name" && break; done)
endif
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FUZZ := .venv-fuzz
AUDIT := .venv-audit
DOCS := .venv-docs

export PATH := $(CURDIR)/$(BIN):$(PATH)
# uv ends where its cache cannot be written, as without a home of one's own.
CACHE := "$${UV_CACHE_DIR:-$${XDG_CACHE_HOME:-$${HOME:-/dev/null}/.cache}/uv}"
ifneq ($(shell mkdir -p $(CACHE) 2>/dev/null && test -w $(CACHE) && echo yes),yes)
export UV_CACHE_DIR := $(CURDIR)/$(VENV)/uv-cache
endif
export DO_NOT_TRACK := 1

.PHONY: docs up down status demo compare camvid camvid-compare teacher test test-all test-containers lint types lock sbom audit fuzz clean help

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)  ## Run the whole pipeline on the embedded world (about ten minutes on two cores).
	$(BIN)/python -m flows.local full-pipeline --profile demo

# On models this small the start of Ray's workers, four times a run, costs more than the second core gives.
compare: $(READY)  ## Set all methods side by side on the embedded world, three seeds each (an hour or more).
	$(BIN)/python -m flows.local compare --profile demo --seeds 0,1,2 --set compute.workers=0

camvid: $(READY)  ## Run the pipeline on real images: CamVid day to dusk (CAMVID=folder with camvid/ and bsds500/).
	$(BIN)/python -m flows.local full-pipeline --profile camvid $(if $(CAMVID),--set data.root=$(CAMVID))

camvid-compare: $(READY)  ## Set all methods side by side on CamVid (about half an hour a seed; SEEDS=0,1,2).
	$(BIN)/python -m flows.local compare --profile camvid --seeds $(or $(SEEDS),0) --set compute.workers=0 $(if $(CAMVID),--set data.root=$(CAMVID))

# Ports: make up PREFECT_PORT=4300 MLFLOW_PORT=5001 WORKER_PORT=4301. PostgreSQL: GKD_DATABASE_URL, see docs/platform.md.
up: $(READY)  ## Start the platform on loopback: Prefect server, MLflow server, worker (docs/platform.md).
	@$(BIN)/python -m flows.local_platform up

down: $(READY)  ## Stop the platform, flow runs included.
	@$(BIN)/python -m flows.local_platform down

status: $(READY)  ## Show what of the platform runs where.
	@$(BIN)/python -m flows.local_platform status

teacher: $(READY)  ## Train the demo's teacher again, from nothing, into artifacts/demo-teacher.
	$(BIN)/gkd demo-teacher --output artifacts/demo-teacher/teacher.safetensors

# Two processes share the tests, then three those of real servers, which wait more than they work: the longest files first.
test: $(READY) $(AUDIT)/.ready  ## Run the tests that are quick enough for every change.
	$(BIN)/python -m pytest -m "not slow and not integration and not containers" -n 2 --dist loadscope
	$(BIN)/python -m pytest -m "not slow and integration and not containers" -n 3 --dist loadfile \
		tests/integration/test_ray_train.py tests/integration/test_deployment.py tests/integration/test_pins.py tests/integration tests

# Ray's clusters keep both cores busy: they take turns on one of the two processes.
test-all: test  ## Run all tests, the long ones too (about an hour and a half on two cores).
	$(BIN)/python -m pytest -m "hypothesis and not slow and not integration" --hypothesis-profile wide -n 2
	$(BIN)/python -m pytest -m slow -n 2 --dist loadgroup tests

# The engine stays for the next time; tests/containers/set-up down removes it with everything it has.
test-containers: $(READY)  ## Run the tests that want an engine of containers, which they set up: root on Debian (half an hour).
	tests/containers/set-up
	$(BIN)/python -m pytest -m containers tests/containers

# Under atheris, which steers by coverage; where it has no wheel, mutations alone. What led to a fault stays in artifacts/fuzz.
fuzz: $(READY) $(FUZZ)/.ready  ## Fuzz every reader of foreign bytes (about three minutes, or SECONDS=600).
	PYTHONPATH=$(FUZZ) $(BIN)/python -m tests.security.fuzz.run --seconds $(or $(SECONDS),150)

lint: $(READY)  ## Check style.
	$(BIN)/ruff check .

types: $(READY)  ## Check types.
	$(BIN)/mypy

lock:  ## Compile requirements.txt and those of fuzz, audit and docs from pyproject.toml.
	test -x $(BIN)/uv || { "$(PYTHON)" -m venv $(VENV) && $(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-uv.txt; }
	$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements.txt
	for group in fuzz audit docs; do \
		$(BIN)/uv pip compile --quiet --group pyproject.toml:$$group --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements-$$group.txt || exit 1; \
	done

# Strict: a dead link, or a page outside the navigation, fails.
docs: $(READY) $(DOCS)/.ready  ## Build the documentation's site into artifacts/site/html, its reference from the program.
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/site.py
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --config-file docs/mkdocs.yml

sbom: $(READY)  ## Write the bill of materials of what requirements.txt pins, CycloneDX, to artifacts/sbom.json.
	mkdir -p artifacts
	$(BIN)/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --output-reproducible --no-validate \
		--output-file artifacts/sbom.json

# In an environment of its own. Without network: ADVISORIES=folder with the unpacked OSV archive of PyPI.
audit: $(READY) $(AUDIT)/.ready  ## Look the pinned versions up: online, or in a folder of OSV files (ADVISORIES=folder).
	$(AUDIT)/bin/python infra/audit.py $(if $(ADVISORIES),--advisories "$(ADVISORIES)") requirements.txt requirements-*.txt

clean:  ## Remove the environment and everything that runs left behind.
	rm -rf $(VENV) $(FUZZ) $(AUDIT) $(DOCS) artifacts .dvc/cache .dvc/tmp dvc.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

# uv installs the pinned list in seconds; pip would search for many minutes among dvc's and boto3's botocore pins.
# Compiled once here: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each process would else compile torch anew.
$(READY): requirements.txt requirements-uv.txt pyproject.toml
	@command -v git >/dev/null || { echo "make: git is missing; install it (Debian: apt-get install git)" >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -c '$(SERVES)' 2>/dev/null || { \
		echo "make: $(or $(PYTHON),none of $(NAMES)) is no Python of 3.11 to 3.14 with its module venv (Debian:" \
			"apt-get install python3-venv); install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# A folder of packages beside those of $(VENV), which the readers need as well.
$(FUZZ)/.ready: requirements-fuzz.txt $(READY)
	rm -rf $(FUZZ) && mkdir -p $(FUZZ)
	$(BIN)/uv pip install --quiet --require-hashes --python $(BIN)/python --target $(FUZZ) -r $< || echo "atheris does not install here"
	touch $@

$(AUDIT)/.ready: requirements-audit.txt $(READY)
	test -x $(AUDIT)/bin/python || "$(PYTHON)" -m venv $(AUDIT)
	$(BIN)/uv pip install --quiet --require-hashes --python $(AUDIT)/bin/python -r $<
	touch $@

$(DOCS)/.ready: requirements-docs.txt $(READY)
	test -x $(DOCS)/bin/python || "$(PYTHON)" -m venv $(DOCS)
	$(BIN)/uv pip install --quiet --require-hashes --python $(DOCS)/bin/python -r $<
	touch $@
