# Callboard: `make run` starts a node, `make test` checks everything. Nothing else is needed on a fresh machine.

CARGO ?= cargo
USERS_PATH := $(PATH)
# Where rustup puts cargo, for shells that have not read its settings yet.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
CARGO_BIN ?= $(or $(CARGO_INSTALL_ROOT),$(CARGO_HOME),$(HOME)/.cargo)/bin
DATA ?= data
LISTEN ?= 127.0.0.1:8080
BUILT := $(or $(CARGO_TARGET_DIR),target)/release/callboard
# The versions that `make test` installs when they are missing.
NEXTEST_VERSION := 0.9.143
DENY_VERSION := 0.20.2

.PHONY: run build install test bench chaos apps fmt help

help:
	@echo 'make run     build Callboard, put the command on your PATH and start a node'
	@echo 'make test    format, lints, dependencies and every test: what CI runs'
	@echo 'make bench   the benchmarks, each against its peer in the same run'
	@echo 'make chaos   the fault campaign: SEED=<number> repeats one, DURATION=<seconds> bounds it'
	@echo 'make apps    the apps of many tools, deployed unmodified: docs/compatibility.md has the table'
	@echo 'make fmt     format the code'

run: install
	@echo
	@PATH="$(CARGO_BIN):$$PATH" exec callboard dev --data '$(DATA)' --listen '$(LISTEN)'

build:
	@scripts/toolchain
	@echo '-----> Building callboard (the first time takes some minutes)'
	@$(CARGO) build --release --locked --bin callboard

# A copy without debugging information, so that a node that runs is not disturbed by the next build.
install: build
	@mkdir -p '$(CARGO_BIN)'
	@strip -g -o '$(CARGO_BIN)/.callboard.new' '$(BUILT)' 2>/dev/null || cp -f '$(BUILT)' '$(CARGO_BIN)/.callboard.new'
	@mv -f '$(CARGO_BIN)/.callboard.new' '$(CARGO_BIN)/callboard'
	@echo '-----> Installed $(CARGO_BIN)/callboard'
	@case ":$(USERS_PATH):" in *":$(CARGO_BIN):"*) ;; *) \
	  echo '       It is not on your PATH yet: export PATH="$(CARGO_BIN):$$PATH"';; esac

test:
	@scripts/toolchain
	@NEXTEST_VERSION=$(NEXTEST_VERSION) DENY_VERSION=$(DENY_VERSION) scripts/test

bench:
	@scripts/toolchain
	@scripts/bench

chaos:
	@scripts/toolchain
	@scripts/chaos

apps: build
	@scripts/apps

fmt:
	@$(CARGO) fmt --all
