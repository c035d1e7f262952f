# The front door; meson does the work. Every target installs the Debian packages it needs first.
BUILD ?= build

all: build

deps:
	@scripts/install-deps build

$(BUILD)/build.ninja:
	@scripts/install-deps build
	@meson setup $(BUILD) --buildtype=release -Ddebug=true

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

check:
	@scripts/check

check-full:
	@scripts/check --full

demo:
	@scripts/demo

bench:
	@scripts/bench $(ARGS)

asan:
	@scripts/check build-asan asan-unit asan-protocol asan-thirdparty

tsan:
	@scripts/check build-tsan tsan-unit tsan-protocol tsan-thirdparty

lint:
	@scripts/lint

clean:
	rm -rf build build-*

.PHONY: all deps build check check-full demo bench asan tsan lint clean
