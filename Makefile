# Development commands; `make help` lists them. Needed: Python >= 3.10, a C compiler and make.

PYTHON ?= python3

# Two environments: .venv holds the tools and runs the source folder (extensions built in place);
# .venv-wheel holds nothing of ours but the installed wheel, and runs the suite and the demo.
# Builds with checks lie in folders below build/, and are run by what .venv holds.
DEV := .venv
WHEEL := .venv-wheel
STAMPS := build/stamps
SOURCES := $(shell find fastpump -name '*.py' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi')
PACKAGING := pyproject.toml setup.py MANIFEST.in LICENSE
CHECKED := fastpump tests bench demo setup.py
TESTS := tests
# A file of tests is one process's, since the nodes of its tests are.
IN_PARALLEL := -n auto --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv build wheel lint types test debug sanitized demo bench format clean
# A failed recipe must not leave a stamp that looks fresh.
.DELETE_ON_ERROR:

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

venv: $(STAMPS)/dev ## Make .venv with the tools for working in the source folder

build: $(STAMPS)/inplace ## Compile the extensions in place

wheel: $(STAMPS)/wheel ## Build the wheel into dist/

lint: $(STAMPS)/dev ## Check formatting and style, Python and Cython
	$(DEV)/bin/ruff format --check $(CHECKED)
	$(DEV)/bin/ruff check $(CHECKED)
	PATH="$(CURDIR)/$(DEV)/bin:$$PATH" cython-lint fastpump

types: $(STAMPS)/dev ## Check the types strictly
	$(DEV)/bin/mypy

test: lint types $(STAMPS)/installed $(STAMPS)/test ## Build, lint, check types, run the suite on the wheel
	FASTPUMP_TEST_WHEEL=1 $(WHEEL)/bin/pytest $(IN_PARALLEL)

debug: $(STAMPS)/debug ## Run the suite on a build with bounds checks and assertions; TESTS=… chooses
	$(call run_suite,debug,)

sanitized: $(STAMPS)/sanitized ## Run the suite under AddressSanitizer and UBSan; TESTS=… chooses
	rm -f build/sanitized/finding.*
	$(call run_suite,sanitized,$(SANITIZER)) ; status=$$? ; \
	cat build/sanitized/finding.* 2>/dev/null && exit 1 ; exit $$status

demo: $(STAMPS)/installed ## Publish 336,776 real events into the embedded node and replay them
	$(WHEEL)/bin/python demo/flights.py --folder build/demo

bench: $(STAMPS)/installed $(STAMPS)/bench $(STAMPS)/chart ## Compare with photon-pump and with the limit in C
	$(WHEEL)/bin/python bench/run.py

format: $(STAMPS)/dev ## Format the Python files and apply the safe fixes
	$(DEV)/bin/ruff format $(CHECKED)
	$(DEV)/bin/ruff check --fix $(CHECKED)

clean: ## Remove everything that was built
	rm -rf $(DEV) $(WHEEL) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find fastpump bench \( -name '*.so' -o -name '*.c' -path 'fastpump/*' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/dev: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --upgrade pip
	$(DEV)/bin/python -m pip install --quiet --group dev
	@mkdir -p $(@D) && touch $@

$(STAMPS)/inplace: $(STAMPS)/dev setup.py $(SOURCES)
	$(DEV)/bin/python setup.py --quiet build_ext --inplace
	@mkdir -p $(@D) && touch $@

$(STAMPS)/debug: BUILD_OPTION := FASTPUMP_DEBUG=1
$(STAMPS)/sanitized: BUILD_OPTION := FASTPUMP_SANITIZE=1
$(STAMPS)/debug $(STAMPS)/sanitized: $(STAMPS)/%: $(STAMPS)/dev $(PACKAGING) $(SOURCES)
	rm -rf build/$*
	$(BUILD_OPTION) $(DEV)/bin/python setup.py --quiet build --build-base build/$* --build-lib build/$*/lib
	@mkdir -p $(@D) && touch $@

# Started in the folder of the build, where also what the tests start finds it first. Python's own
# allocator would hide the ends of objects from the sanitizer. A finding ends the process; one of
# AddressSanitizer leaves a file, too, so that no process of a test can hide it. libstdc++ has to be
# there before anything can throw.
run_suite = cd build/$(1)/lib && $(2) FASTPUMP_TEST_BUILD=$(1) PYTHONPATH=$(CURDIR)/build/$(1)/lib \
	$(CURDIR)/$(DEV)/bin/pytest $(IN_PARALLEL) -c $(CURDIR)/pyproject.toml $(addprefix $(CURDIR)/,$(TESTS))
SANITIZER = PYTHONMALLOC=malloc \
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=$(FINDINGS):detect_leaks=0:detect_stack_use_after_return=1 \
	UBSAN_OPTIONS=$(FINDINGS):print_stacktrace=1
FINDINGS = log_path=$(CURDIR)/build/sanitized/finding:abort_on_error=1:allocator_may_return_null=1

$(STAMPS)/wheel-venv:
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip install --quiet --upgrade pip
	@mkdir -p $(@D) && touch $@

$(STAMPS)/wheel: $(STAMPS)/wheel-venv $(PACKAGING) README.md $(SOURCES)
	rm -rf dist build/lib.*
	$(WHEEL)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@mkdir -p $(@D) && touch $@

$(STAMPS)/installed: $(STAMPS)/wheel
	$(WHEEL)/bin/python -m pip install --quiet --upgrade "$$(ls dist/fastpump-*.whl)[cli,cluster]"
	$(WHEEL)/bin/python -m pip install --quiet --no-deps --force-reinstall dist/fastpump-*.whl
	@mkdir -p $(@D) && touch $@

$(STAMPS)/test $(STAMPS)/bench $(STAMPS)/chart: $(STAMPS)/%: $(STAMPS)/wheel-venv pyproject.toml
	$(WHEEL)/bin/python -m pip install --quiet --group $*
	@mkdir -p $(@D) && touch $@
