# SPDX-License-Identifier: BSD-3-Clause
# `make demo` runs the main job, `make test` the tests; each installs all that it needs into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := $(shell git ls-files --cached --others --exclude-standard ext alpine bess_plugins e2ctl embark_gw pyproject.toml setup.py)
CXX_FILES := $(shell git ls-files --cached --others --exclude-standard 'ext/*.cc' 'ext/*.h')
# The bindings are mostly pybind11's code, which is not for us to mend.
TIDY_FILES := $(filter-out ext/bindings/%,$(filter %.cc,$(CXX_FILES)))

.PHONY: demo demo-e2 demo-embark test bench bench-alpine bench-e2 bench-embark docs lint sanitize clean

$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet '.[test,lint,bench]'
	touch $@

demo: $(STAMP)
	rm -rf out/demo out/demo-sanitized4k
	$(BIN)/python examples/make_capture.py out/demo.pcap
	$(BIN)/e2ctl run examples/figure-3.1.e2 --nfs examples/nfs.yaml --in in0=out/demo.pcap --out out/demo
	@capture="$${E2_DATA:-../shared/data}/traces/sanitized4k.pcap"; if [ -f "$$capture" ]; then \
	  $(BIN)/e2ctl run examples/figure-3.1.e2 --nfs examples/nfs.yaml --in in0="$$capture" --out out/demo-sanitized4k; fi

# As root, with Debian's openvswitch-switch, iproute2 and ethtool.
demo-e2: $(STAMP)
	rm -rf out/demo-e2
	$(BIN)/python examples/make_capture.py out/demo.pcap
	@capture="$${E2_DATA:-../shared/data}/traces/sanitized4k.pcap"; test -f "$$capture" || capture=out/demo.pcap; \
	  $(BIN)/python examples/cluster_demo.py "$$capture" out/demo-e2

# As root, with Debian's iproute2, ethtool and curl.
demo-embark: $(STAMP)
	rm -rf out/demo-embark
	$(BIN)/python examples/embark_demo.py out/demo-embark

# Tests run from their own folder, so that the installed package is what is tested.
test: $(STAMP)
	$(BIN)/python -P -m pytest tests

bench: $(STAMP)
	mkdir -p out
	$(BIN)/python -P -m pytest bench --benchmark-only --benchmark-quiet \
	  --table=out/bench.txt --benchmark-json=out/bench.json

# The script's own folder has what it imports.
bench-alpine: $(STAMP)
	$(BIN)/python bench/alpine_evaluation.py --out out

bench-e2: $(STAMP)
	$(BIN)/python bench/e2_evaluation.py --out out

# As root, with Debian's iproute2, ethtool and procps, or without pages.
bench-embark: $(STAMP)
	$(BIN)/python bench/embark_evaluation.py --out out

docs: $(STAMP)
	$(BIN)/python docs/generate.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	printf '%s\n' $(TIDY_FILES) | xargs -P $$(nproc) -I{} $(BIN)/clang-tidy --quiet {} -- -std=c++17 -Iext

sanitize: $(STAMP)
	$(BIN)/python tests/sanitize.py

clean:
	rm -rf $(VENV) build out *.egg-info
