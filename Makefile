# Verbs over the presets of CMakePresets.json. Everything they make lies under build/.
#
#   make                      configure and build build/release: tools in bin, test programs in tests
#   make setup [DRY=1]        install what is missing (Debian packages); DRY=1 only prints it
#   make demo [CORPUS=file]   from text to a trained, evaluated, inspected model
#   make test                 all that CI runs: every test that needs no GPU, almost all under ASan and UBSan, what threads
#                             share under TSan, then 60 s of each fuzz target
#   make test PRESET=x        one preset alone: release, asan, tsan, fuzz, debug
#   make test LABEL=x         tests of one label alone (see ctest --print-labels)
#   make bench                benchmarks of this machine, JSON under build/release/bench
#   make install PREFIX=dir   tools, library, headers, CMake and pkg-config files, man pages, completions
#   make format               lay all sources out as CI wants them
#
# PRESET=debug|asan|tsan|fuzz|cuda picks another preset; JOBS=n the number of parallel jobs; WERROR=ON
# makes warnings errors.
PRESET ?= release
JOBS   ?= $(shell nproc)
PREFIX ?= /usr/local
BUILD  := build/$(PRESET)

# Sanitizers and fuzzing take clang where it is: it compiles with them in half of GCC's time, and
# only it has libFuzzer.
SANITIZED := asan tsan fuzz
TESTED    ?= release asan tsan fuzz
CLANG     := $(firstword $(foreach name,clang++-14 clang++,$(shell command -v $(name))))
COMPILER  := $(addprefix -DCMAKE_CXX_COMPILER=,$(CLANG))

.DEFAULT_GOAL := build
.PHONY: build tools configure setup demo test test-everything test-preset bench install format
.NOTPARALLEL:

build: configure
	cmake --build --preset $(PRESET) --parallel $(JOBS)

tools: configure
	cmake --build --preset $(PRESET) --parallel $(JOBS) --target tools

configure:
	@scripts/require cmake ninja c++
	cmake --preset $(PRESET) $(if $(filter $(SANITIZED),$(PRESET)),$(COMPILER),$(if $(WERROR),-DSW_WERROR=$(WERROR)))

setup:
	@scripts/setup.sh $(if $(filter-out 0,$(DRY)),--dry-run)

demo: setup tools
	@BUILD=$(BUILD) scripts/demo.sh $(if $(CORPUS),--corpus '$(CORPUS)')

# Everything, unless a preset or a label is asked for.
test: $(if $(filter file,$(origin PRESET)$(LABEL)),test-everything,test-preset)

test-everything:
	@for preset in $(TESTED); do $(MAKE) test-preset PRESET=$$preset || exit; done
	@scripts/test_summary $(patsubst %,build/%,$(filter-out release,$(TESTED)) $(filter release,$(TESTED)))

test-preset: setup build
ifeq ($(filter $(SANITIZED),$(PRESET)),)
	scripts/check_layers
	scripts/format --check
endif
	ctest --preset $(PRESET) --no-tests=error --parallel $(JOBS) --output-log $(BUILD)/tests.log \
	  $(if $(LABEL),--label-regex '^$(LABEL)$$')

bench: build
	@scripts/bench.sh $(BUILD)

install: tools
	cmake --install $(BUILD) --prefix '$(PREFIX)'

format:
	scripts/format
