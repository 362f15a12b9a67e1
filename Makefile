# Works with GNU make 3.81 and later. Needs a Python from 3.11 to 3.14; PYTHON=... names one.
VENV = .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
READY_PARITY = $(VENV)-parity/.ready
READY_NOTEBOOKS = $(VENV)/.ready-notebooks
READY_DOCS = $(VENV)/.ready-docs
READY_AOT = $(VENV)-aot/.ready
READY_LMMS = $(VENV)-lmms/.ready
READY_CUDA = $(VENV)-aot-cuda/.ready
JOBS = 2
HERE = not gpu and not tpu and not parity and not slow

# Compiled programs are kept between runs: quicker, and nothing else changes without them.
export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0.1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.PHONY: help demo test lint types wheel parity notebooks docs aot plan processes aot-cuda harnesses nightly lock clean

help:
	@echo "make demo     set up, then see the main job done (SEED=1 changes all of it)"
	@echo "make test     set up, then run the tests that this machine can run"
	@echo "make lint types wheel parity notebooks docs aot plan processes aot-cuda harnesses nightly lock clean: see CONTRIBUTING.md"

demo: $(READY)
	$(BIN)/mres demo $(if $(SEED),--seed $(SEED)) $(ARGS)

# Programs of tests run for moments, so compiling them for speed does not pay; `make nightly` compiles as users do.
test: export JAX_DISABLE_MOST_OPTIMIZATIONS = 1
test: $(READY)
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "$(HERE)" $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/pyright

# Builds the wheel, installs it where the source tree is not, and uses it from there.
wheel: $(READY)
	rm -rf build dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	scripts/check_wheel.sh dist/*.whl $(VENV)

# Live transformers on torch, in an environment of their own.
parity: $(READY_PARITY)
	$(VENV)-parity/bin/pytest -n $(JOBS) -m parity tests/parity $(ARGS)

# Every notebook from top to bottom, and whether it is that of its script; ARGS="run quickstart" takes one, "write" keeps outputs.
notebooks: $(READY_NOTEBOOKS)
	$(BIN)/python scripts/notebooks.py $(or $(ARGS),run)

# The site, into build/site; a link or reference that leads nowhere is an error.
docs: $(READY_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

# The TPU kernels through the real TPU compiler, and what they cost there against what they may.
aot: $(READY_AOT)
	$(VENV)-aot/bin/python kernels/aot/budgets.py bundles $(ARGS)
	$(VENV)-aot/bin/python kernels/aot/budgets.py memory $(ARGS)

# A small run's step through the same compiler, for four chips.
plan: $(READY_AOT)
	$(VENV)-aot/bin/mres plan configs/tiny/pages.py --topology v5e-4 $(ARGS)

# Two real processes that are one run; -m slow without -k tries all that can happen to them.
processes: $(READY)
	$(BIN)/pytest -m slow tests/training/test_processes.py -k "alone and fsdp" $(ARGS)

# The GPU kernels through the real CUDA compiler; 5 GB of its own, so not a part of anything else but nightly.
aot-cuda: $(READY_CUDA)
	$(VENV)-aot-cuda/bin/python kernels/aot/cuda.py $(ARGS)

# One model asked by lmms-eval, by mres eval and by a client; 7 GB of its own, so nightly alone runs it.
harnesses: $(READY_LMMS)
	$(VENV)-lmms/bin/python experiments/2026-11-harnesses/run.py $(ARGS)

nightly: $(READY)
	$(BIN)/python scripts/nightly.py $(ARGS)

lock: $(READY)
	$(BIN)/python scripts/lock.py write

clean:
	rm -rf $(VENV) $(VENV)-* .cache build dist

$(READY): pyproject.toml scripts/lock.py scripts/setup.sh
	@scripts/setup.sh $(VENV) dev
	@touch $@

$(READY_PARITY): pyproject.toml scripts/lock.py scripts/setup.sh
	@scripts/setup.sh $(VENV)-parity dev parity
	@touch $@

$(READY_NOTEBOOKS): $(READY)
	@scripts/setup.sh $(VENV) dev notebooks
	@touch $@

$(READY_DOCS): $(READY)
	@scripts/setup.sh $(VENV) dev docs
	@touch $@

$(READY_AOT): pyproject.toml scripts/lock.py scripts/setup.sh
	@scripts/setup.sh $(VENV)-aot aot
	@touch $@

# lmms-eval's pins are not those of the lock, so none of them hold here.
$(READY_LMMS): pyproject.toml scripts/find_python.sh
	$(or $(PYTHON),$(shell scripts/find_python.sh)) -m venv $(VENV)-lmms
	$(VENV)-lmms/bin/pip install --no-compile --editable '.[lmms,parquet]' openai
	@touch $@

$(READY_CUDA): pyproject.toml scripts/lock.py scripts/setup.sh
	@scripts/setup.sh $(VENV)-aot-cuda aot-cuda
	@touch $@
