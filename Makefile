# One word each, over CMake. config=sanitize (or SANITIZE=address,undefined | thread) instruments everything and keeps
# its own build folder, as does config=shared.
config ?= release
SANITIZE ?= $(if $(filter sanitize,$(config)),address$(comma)undefined,$(if $(filter thread,$(config)),thread))
JOBS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 20
FILTER ?=
TESTS ?=
comma := ,

ifeq ($(SANITIZE),thread)
  BUILD ?= build-tsan
else ifneq ($(SANITIZE),)
  BUILD ?= build-asan
else ifeq ($(config),shared)
  BUILD ?= build-shared
else
  BUILD ?= build
endif

# CUDA=ON or AUTO builds the CUDA backend too: minutes of nvcc, so only when asked for. CUDA_ARCHITECTURES narrows it.
CUDA ?= OFF
OPTIONS := -DQUANT_CUDA=$(CUDA) $(if $(CUDA_ARCHITECTURES),'-DQUANT_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)')
OPTIONS += -DQUANT_SANITIZE=$(SANITIZE) -DBUILD_SHARED_LIBS=$(if $(filter shared,$(config)),ON,OFF)
# Instrumented code is slow enough; -O1 keeps its build short.
OPTIONS += $(if $(SANITIZE),-DCMAKE_CXX_FLAGS_RELEASE=-O1,)
LAUNCHER := $(shell command -v ccache >/dev/null 2>&1 && echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_C_COMPILER_LAUNCHER=ccache)
GENERATOR = $(if $(wildcard $(BUILD)/CMakeCache.txt),,$(shell command -v ninja >/dev/null 2>&1 && echo -G Ninja))
CONFIGURE = mkdir -p $(BUILD) && cmake -S . -B $(BUILD) $(GENERATOR) $(LAUNCHER) $(OPTIONS) $(1) \
            >$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; exit 1; }
COMPILE = cmake --build $(BUILD) -j $(JOBS) --target $(1)
PACKAGES = sh cmake/install_packages.sh

CUDA_DEVICE ?= cuda:0
VULKAN_DEVICE ?= vulkan:0

.PHONY: help all demo test test-cuda test-cuda-memory test-cuda-build test-vulkan check check-all arm armv7 arm-build bench fuzz format \
        format-check consumers size clean

help:
	@echo "make demo       build the quant command and stream a story from the embedded model"
	@echo "make test       build and run all tests (QUANT_TEST_DATA=DIR adds those that need large reference data)"
	@echo "make check      test, symbols, consumers of an installed copy, formatting"
	@echo "make check-all  the complete set: check, every test under sanitizers, five minutes of each fuzzer"
	@echo "make arm        build for 64-bit ARM, run all tests under qemu on three processors (make armv7: 32-bit ARM)"
	@echo "make test-vulkan  the tests of a Vulkan device, VULKAN_DEVICE=vulkan:0"
	@echo "make test-cuda  build with CUDA, run the kernel and end-to-end tests on \$$(CUDA_DEVICE); fails if there is none"
	@echo "make test-cuda-memory  attention and rope on the device under compute-sanitizer"
	@echo "make bench      kernel benchmarks"
	@echo "make format     clang-format on every source;  make clean"
	@echo "config=sanitize | thread | shared   builds in a folder of its own, for example: make config=sanitize test"

all:
	@$(PACKAGES) build
	@$(call CONFIGURE)
	$(call COMPILE,all)

demo:
	@$(PACKAGES) build
	@$(call CONFIGURE)
	@echo "Building the quant command (a minute or two the first time)"
	@$(call COMPILE,quant_cli)
	@echo
	@printf 'Once upon a time'
	@$(BUILD)/quant run models/tiny -p "Once upon a time" -n 200 --temp 0.8 --seed 42

test:
	@$(PACKAGES) build test
	@$(call CONFIGURE,-DQUANT_BUILD_TESTS=ON -DQUANT_BUILD_EXAMPLES=ON '-DQUANT_TEST_FILTER=$(FILTER)')
	@$(call COMPILE,all $(if $(filter shared,$(config)),,quant_tests))
	cd $(BUILD) && ctest -j $(JOBS) --output-on-failure $(if $(TESTS),-R '$(TESTS)')
	@if [ -n "$$QUANT_TEST_DATA" ]; then echo "Ran all tests, with the reference data in $$QUANT_TEST_DATA."; \
	else echo "Ran the tests that need nothing beyond this repository; QUANT_TEST_DATA=DIR adds those on large reference data."; fi

# The kernel table and whole models on one Vulkan device, with the validation layer: one message of it is a failure.
test-vulkan:
	@$(PACKAGES) build test vulkan
	@$(call CONFIGURE,-DQUANT_BUILD_TESTS=ON -DQUANT_BUILD_EXAMPLES=ON -DQUANT_VULKAN=ON)
	@$(call COMPILE,quant_tests quant_cli)
	sh tests/vulkan.sh $(BUILD) $(VULKAN_DEVICE)

# The kernel tables and whole models on a CUDA device. CUDA=ON for other targets builds the backend in.
test-cuda:
	@$(PACKAGES) build test
	@$(MAKE) --no-print-directory test-cuda-build BUILD=build-cuda CUDA=ON
	QUANT_DEVICE=$(CUDA_DEVICE) build-cuda/tests/quant_tests "[kernels],[device]" -d yes

# Some of the kernel tests under NVIDIA's memory checker, which makes them slow.
test-cuda-memory:
	@$(PACKAGES) build test
	@$(MAKE) --no-print-directory test-cuda-build BUILD=build-cuda CUDA=ON
	QUANT_DEVICE=$(CUDA_DEVICE) compute-sanitizer --error-exitcode 1 build-cuda/tests/quant_tests "attention*,rope*"

test-cuda-build:
	@$(call CONFIGURE,-DQUANT_BUILD_TESTS=ON -DQUANT_BUILD_EXAMPLES=ON)
	@$(call COMPILE,quant_tests quant_cli)

check: test consumers format-check

# Every test instrumented, then the fuzzers. CHECK_VULKAN=OFF leaves out the Vulkan device, whose driver's own leaks are
# not looked for.
CHECK_VULKAN ?= ON
check-all: check
	$(MAKE) config=sanitize test
	$(if $(filter ON,$(CHECK_VULKAN)),ASAN_OPTIONS=detect_leaks=0 $(MAKE) config=sanitize test-vulkan)
	$(MAKE) config=thread test
	$(MAKE) config=shared test
	$(MAKE) fuzz FUZZ_SECONDS=300

consumers:
	@$(PACKAGES) build consumers
	sh tests/consumers/run.sh $(BUILD)-consumers

fuzz:
	@$(PACKAGES) build fuzz
	@CC=clang CXX=clang++ $(MAKE) --no-print-directory fuzz-build BUILD=build-fuzz SANITIZE=address,undefined
	sh tests/fuzz/run.sh build-fuzz $(FUZZ_SECONDS)

fuzz-build:
	@$(call CONFIGURE,-DQUANT_BUILD_FUZZERS=ON -DQUANT_BUILD_TESTS=OFF -DQUANT_BUILD_EXAMPLES=OFF)
	@$(call COMPILE,all)

# Cross-compiled, tested under qemu once per feature level; EXTENT=reduced: see tests/arm.sh.
EXTENT ?= whole
arm:
	@$(PACKAGES) build test arm
	@$(MAKE) --no-print-directory arm-build BUILD=build-arm TOOLCHAIN=aarch64-linux-gnu
	sh tests/arm.sh aarch64 build-arm $(EXTENT)

armv7:
	@$(PACKAGES) build test armv7
	@$(MAKE) --no-print-directory arm-build BUILD=build-armv7 TOOLCHAIN=arm-linux-gnueabihf
	sh tests/arm.sh armv7 build-armv7 $(EXTENT)

arm-build:
	@$(call CONFIGURE,-DCMAKE_TOOLCHAIN_FILE=cmake/toolchains/$(TOOLCHAIN).cmake)
	@$(call COMPILE,all)

bench:
	@$(PACKAGES) build bench
	@$(call CONFIGURE,-DQUANT_BUILD_BENCH=ON)
	@$(call COMPILE,quant_bench)
	$(BUILD)/quant_bench $(BENCH_FLAGS)

SOURCES = $(shell git ls-files '*.cpp' '*.h' '*.c' '*.inl' '*.cu' '*.cuh')
format:
	clang-format -i $(SOURCES)
format-check:
	@$(PACKAGES) format
	clang-format --dry-run --Werror $(SOURCES)

# The stripped size of a program that links the whole library statically.
size: all
	@strip -o $(BUILD)/hello.stripped $(BUILD)/hello && echo "hello.c, static, stripped: $$(wc -c <$(BUILD)/hello.stripped) bytes"

clean:
	rm -rf build build-*
