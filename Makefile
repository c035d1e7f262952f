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

clean:
	rm -rf build build-*

.PHONY: all deps build clean
