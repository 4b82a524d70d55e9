# SPDX-License-Identifier: BSD-3-Clause
# `make demo` runs the main job, `make test` the tests; each installs all that it needs into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMMA := ,
SOURCES := $(shell git ls-files --cached --others --exclude-standard ext bess_plugins e2ctl pyproject.toml setup.py)
# One process a file, as many as there are CPUs; the bindings are pybind11's business.
TIDY = printf '%s\n' $(filter-out ext/bindings/%,$(filter %.cc,$(CXX_FILES))) | \
	xargs -P $$(nproc) -I{} $(BIN)/clang-tidy --quiet $(1) {} -- -std=c++17 -Iext
CXX_FILES := $(shell git ls-files --cached --others --exclude-standard 'ext/*.cc' 'ext/*.h')

.PHONY: demo test bench docs lint analyze sanitize clean

$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet '.[test,lint]'
	touch $@

demo: $(STAMP)
	rm -rf out/demo out/demo-sanitized4k
	$(BIN)/python examples/make_capture.py out/demo.pcap
	$(BIN)/e2ctl run examples/figure-3.1.e2 --nfs examples/nfs.yaml --in in0=out/demo.pcap --out out/demo
	@capture="$${E2_DATA:-../shared/data}/traces/sanitized4k.pcap"; if [ -f "$$capture" ]; then \
	  $(BIN)/e2ctl run examples/figure-3.1.e2 --nfs examples/nfs.yaml --in in0="$$capture" --out out/demo-sanitized4k; fi

# Tests run from their own folder, so that the installed package is what is tested.
test: $(STAMP)
	$(BIN)/python -P -m pytest tests

bench: $(STAMP)
	$(BIN)/python -P -m pytest bench --benchmark-only

docs: $(STAMP)
	$(BIN)/python docs/generate.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(call TIDY,)

# The slow part of clang-tidy: minutes where lint takes one.
analyze: $(STAMP)
	$(call TIDY,--checks='-*$(COMMA)clang-analyzer-*$(COMMA)-clang-analyzer-optin.performance.Padding')

sanitize: $(STAMP)
	$(BIN)/python tests/sanitize.py

clean:
	rm -rf $(VENV) build out *.egg-info
