# Verbs over the presets of CMakePresets.json. Everything they make lies under build/.
#
#   make                      configure and build build/release: tools in bin, test programs in tests
#   make setup [DRY=1]        install what is missing (Debian packages); DRY=1 only prints it
#   make demo [CORPUS=file]   from text to a trained, evaluated, inspected model
#   make test [LABEL=x]       every test that needs no GPU, or those of one label (see ctest --print-labels)
#   make bench                benchmarks of this machine, JSON under build/release/bench
#   make install PREFIX=dir   tools, library, headers, CMake and pkg-config files, man pages, completions
#   make format               lay all sources out as CI wants them
#
# PRESET=debug|asan|cuda picks another preset; JOBS=n the number of parallel jobs; WERROR=ON makes
# warnings errors.
PRESET ?= release
JOBS   ?= $(shell nproc)
PREFIX ?= /usr/local
BUILD  := build/$(PRESET)

.DEFAULT_GOAL := build
.PHONY: build tools configure setup demo test bench install format
.NOTPARALLEL:

build: configure
	cmake --build $(BUILD) --parallel $(JOBS)

tools: configure
	cmake --build $(BUILD) --parallel $(JOBS) --target tools

configure:
	@scripts/require cmake ninja c++
	cmake --preset $(PRESET) $(if $(WERROR),-DSW_WERROR=$(WERROR))

setup:
	@scripts/setup.sh $(if $(filter-out 0,$(DRY)),--dry-run)

demo: setup tools
	@BUILD=$(BUILD) scripts/demo.sh $(if $(CORPUS),--corpus '$(CORPUS)')

test: setup build
	scripts/check_layers
	scripts/format --check
	ctest --preset $(PRESET) --no-tests=error --parallel $(JOBS) $(if $(LABEL),--label-regex '^$(LABEL)$$')

bench: build
	@scripts/bench.sh $(BUILD)

install: tools
	cmake --install $(BUILD) --prefix '$(PREFIX)'

format:
	scripts/format
