# make demo | test | check | bench     (make help lists them all)
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
LOCALSTACK := .venv-localstack
GOOGLE_PLUGIN := .venv-google-plugin
# Most tests wait: for Terraform, for machines. More of them at once than there are cores are quicker.
WORKERS ?= 4
# Terraform and its plugins collect garbage less often: memory for a seventh of their processor time.
TERRAFORM_SPEED := GOGC=400
# Terraform comes from pip where neither terraform nor tofu is on the PATH.
EXTRAS := $(if $(shell command -v terraform || command -v tofu),,[terraform])

.DEFAULT_GOAL := help
.PHONY: help demo environments test test-slow virtual-machine hostile chaos walks soak check check-ansible format bench simulate localstack lock wheel docs clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/.user: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.$(EXTRAS)'
	@touch $@

$(BIN)/.dev: $(BIN)/.user
	$(BIN)/pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check --group dev
	@touch $@

$(LOCALSTACK)/.done: localstack/install.sh
	@sh localstack/install.sh $(LOCALSTACK)

$(GOOGLE_PLUGIN)/.done: tests/google_plugin/install.sh tests/google_plugin/simulated/extract.py
	@sh tests/google_plugin/install.sh $(GOOGLE_PLUGIN)

demo: $(BIN)/.user ## Run three real jobs, each on a machine of its own
	$(BIN)/tango-cloud run examples/c-calculator examples/python-grader examples/loud --machines 3 --output output --show 12 || test $$? -eq 1

environments: $(BIN)/.dev $(LOCALSTACK)/.done $(GOOGLE_PLUGIN)/.done

test: ## Set up and run the tests (ARGS="-k name" for some of them)
	@$(MAKE) --no-print-directory --jobs=3 environments
	@sh tests/install-servers.sh
	$(TERRAFORM_SPEED) $(BIN)/pytest --numprocesses $(WORKERS) --dist load --maxschedchunk 1 $(ARGS)

test-slow: ## Run the tests that `make test` leaves out
	@$(MAKE) --no-print-directory test ARGS="-m slow"

virtual-machine: ## Make what the tests on a whole machine with systemd boot (root, minutes); `make test-slow` runs them
	@sh tests/virtual_machine/install.sh .virtual-machine

hostile: $(BIN)/.dev virtual-machine ## Let hostile jobs loose at every level; writes docs/hostile-jobs.md (ten minutes)
	@sh tests/install-servers.sh
	$(BIN)/pytest -m "slow or not slow" --junitxml=output/hostile.xml tests/contract/test_hostile_jobs.py $(ARGS)
	$(BIN)/python -m tests.hostile_table output/hostile.xml docs/hostile-jobs.md

chaos: ## Kill a life at every step of it, and see that nothing stays wrong (an hour)
	@$(MAKE) --no-print-directory --jobs=3 environments
	@sh tests/install-servers.sh
	PYTHONPATH=localstack $(BIN)/python -m tests.chaos.kill $(ARGS)

walks: $(BIN)/.dev ## Let callers, clouds and accidents interleave at random in several processes (minutes)
	$(BIN)/python -m tests.chaos.walk $(ARGS)

soak: $(BIN)/.dev ## Half an hour of random load and faults; nothing may grow or stay
	PYTHONPATH=localstack $(BIN)/python -m tests.chaos.soak $(ARGS)

check: $(BIN)/.dev ## Formatter, linter, strict types, import rules, terraform fmt
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tango_cloud.terraform fmt -check -recursive terraform

check-ansible: $(BIN)/.dev ## ansible-lint on all of ansible/ (half a minute)
	$(BIN)/pip install --quiet --disable-pip-version-check --group ansible
	cd ansible && ANSIBLE_HOME="$(abspath $(VENV))/ansible" "$(abspath $(BIN))/ansible-lint" -q

format: $(BIN)/.dev ## Format Python and Terraform
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m tango_cloud.terraform fmt -recursive terraform

bench: $(BIN)/.dev ## Measure: job overhead, provisioning, footprint (minutes); see docs/benchmarks.md
	$(BIN)/python -m bench

simulate: $(BIN)/.dev ## Simulate bursts on the limits of real clouds; writes docs/simulation/
	$(BIN)/pip install --quiet --disable-pip-version-check --group plots
	$(BIN)/python -m bench.simulation --plots docs/simulation

localstack: $(BIN)/.dev $(LOCALSTACK)/.done ## Run an emulated EC2 with real hosts; prints the environment
	@sh tests/install-servers.sh
	@PYTHONPATH=localstack $(BIN)/python -m emulation $(ARGS)

lock: $(BIN)/.user ## Lock the AWS plugin for the common platforms, by what its registry says
	@for module in envelope wave; do \
		$(BIN)/python -m tango_cloud.terraform -chdir=terraform/aws/$$module providers lock \
			$(addprefix -platform=,linux_amd64 linux_arm64 darwin_amd64 darwin_arm64) || exit; done

wheel: $(BIN)/.dev ## Build the wheel into dist/
	$(BIN)/python -m build --wheel

docs: $(BIN)/.dev ## Write docs/settings.md from the settings
	$(BIN)/python docs/render_settings.py docs/settings.md

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(LOCALSTACK) $(GOOGLE_PLUGIN) .virtual-machine dist output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
