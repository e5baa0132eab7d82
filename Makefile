# `make` lists the targets. Every one of them installs what it needs first.

MAKEFLAGS += --no-builtin-rules
.NOTPARALLEL:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PROFILE ?= release
# Outside the tree, so that a fresh clone builds warm. Keyed by compiler: a new one starts anew.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/herald
ifndef CARGO_TARGET_DIR
  CARGO_TARGET_DIR := $(CACHE)/target-$(shell rustc --version | cut -d ' ' -f 2)
endif
export CARGO_TARGET_DIR

TARGET := $(shell uname -m)-unknown-linux-musl
BUILT := $(CARGO_TARGET_DIR)/$(TARGET)/$(patsubst dev,debug,$(PROFILE))
# The programs without symbols, as the images have them; those in BUILT tell a debugger the lines.
export HERALD_BINARIES := $(CARGO_TARGET_DIR)/image
# ring has some C.
export CC_x86_64_unknown_linux_musl ?= musl-gcc
export CC_aarch64_unknown_linux_musl ?= musl-gcc

UNIT_LOG := $(CARGO_TARGET_DIR)/unit.log
E2E_LOG := $(CARGO_TARGET_DIR)/e2e.log

HELM = $$(ls -d $(CACHE)/helm-*/helm | tail -n 1)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo '  Builds go to $(CARGO_TARGET_DIR)'

.PHONY: setup
setup: ## install what builds, lab and tests need (Debian or Ubuntu, root or sudo)
	@e2e/lab/setup.sh

# What compiles needs no Kubernetes.
.PHONY: packages
packages:
	@e2e/lab/setup.sh packages

.PHONY: demo
demo: setup build ## the whole story on a cluster of three nodes, told step by step
	cargo run --quiet --locked --package herald-e2e --bin herald-demo

# Kubernetes, if it is not there yet, is built from what cargo leaves of the processors.
.PHONY: test
test: packages ## every test there is, those on the cluster included
	@e2e/lab/setup.sh kubernetes & kubernetes=$$!; trap 'wait' EXIT; \
	$(MAKE) --no-print-directory lint-rust unit images; \
	wait $$kubernetes; \
	$(MAKE) --no-print-directory lint-chart e2e
	@awk '/^test result:/ { passed += $$4; failed += $$6 } END { print passed " passed, " failed " failed" }' $(UNIT_LOG) $(E2E_LOG)

.PHONY: lint
lint: lint-rust lint-chart ## format, clippy, chart

.PHONY: lint-rust
lint-rust: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings

.PHONY: lint-chart
lint-chart: setup
	$(HELM) lint --strict --quiet helm

.PHONY: unit
unit: packages ## tests that need no cluster
	@mkdir -p $(CARGO_TARGET_DIR)
	cargo test --workspace --exclude herald-e2e --locked --no-fail-fast 2>&1 | tee $(UNIT_LOG)

.PHONY: e2e
e2e: setup build ## tests on the cluster and in network namespaces, as root
	e2e/tests/run.sh 2>&1 | tee $(E2E_LOG)

.PHONY: build
build: packages ## controller and speaker, static, as the images have them, and kubectl-herald
	cargo build --profile $(PROFILE) --locked --target $(TARGET) \
	  --package herald-controller --package herald-speaker --package herald-cli
	@mkdir -p $(HERALD_BINARIES)
	@for program in herald-controller herald-speaker kubectl-herald; do \
	  llvm-strip --strip-all -o $(HERALD_BINARIES)/$$program $(BUILT)/$$program; \
	done

.PHONY: images
images: build ## build, and fail if an image were not below 20 MB; the lab packs them by itself
	@stat --format '%s  %n' $(HERALD_BINARIES)/herald-* \
	  | awk '{ print } $$1 >= 20000000 { big = 1 } END { exit big }'

.PHONY: lab
lab: setup build ## a cluster with Herald on it that stays
	cargo run --quiet --package herald-lab -- up

# More in docs/failover.md: BENCH='--part lease --output json'
ROUNDS ?= 5
BENCH ?=
.PHONY: bench-failover
bench-failover: setup build ## how long a client has no answer when the announcer fails; ROUNDS=20, BENCH=--help
	cargo run --quiet --locked --package herald-e2e --bin herald-bench-failover -- --rounds $(ROUNDS) $(BENCH)

.PHONY: bench-dataplane
bench-dataplane: setup build ## what packets, connections and thousands of Services cost; ROUNDS=20, BENCH=--help
	cargo run --release --quiet --locked --package herald-e2e --example herald-bench-dataplane -- --rounds $(ROUNDS) $(BENCH)

ALLOC ?=
.PHONY: bench-alloc
bench-alloc: setup build ## what an address costs in a full pool, and 10,000 Services beside a bare client; ALLOC=--help
	cargo run --release --quiet --locked --package herald-controller-core --example bench-alloc
	cargo run --quiet --locked --package herald-e2e --bin herald-bench-alloc -- $(ALLOC)

SOAK ?=
.PHONY: soak
soak: setup build ## Services come and go while controller, API server and etcd fail; a quarter of an hour; SOAK=--help
	cargo run --quiet --locked --package herald-e2e --bin herald-soak -- $(SOAK)

.PHONY: clean-lab
clean-lab: ## remove every lab, also what a crash left
	cargo run --quiet --package herald-lab -- down --all

# What libFuzzer needs the compiler to count: edges, and the values that are compared.
FUZZ_SECONDS ?= 600
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_TARGET := $(shell uname -m)-unknown-linux-gnu
.PHONY: fuzz
fuzz: setup ## feed decoders and the ring with what nobody sends, FUZZ_SECONDS=600 each; cov: edges reached
	@command -v c++ >/dev/null || { [ "$$(id -u)" = 0 ] || sudo=sudo; $${sudo-} apt-get install -qy --no-install-recommends g++; }
	RUSTFLAGS='$(FUZZ_FLAGS)' cargo build --locked --release --target $(FUZZ_TARGET) \
	  --manifest-path fuzz/Cargo.toml --target-dir $(CARGO_TARGET_DIR)/fuzz
	@for target in ring-codec ring-machine wire; do \
	  mkdir -p fuzz/corpus/$$target fuzz/artifacts; \
	  $(CARGO_TARGET_DIR)/fuzz/$(FUZZ_TARGET)/release/$$target -max_total_time=$(FUZZ_SECONDS) \
	    -timeout=60 -max_len=4096 -len_control=0 -print_final_stats=1 -artifact_prefix=fuzz/artifacts/ fuzz/corpus/$$target; \
	done

.PHONY: crds
crds: ## write helm/crds from the Rust types
	cargo run --quiet --package herald-api --bin crdgen helm/crds

.PHONY: docs
docs: ## write docs/values.md and docs/fields.md from the chart
	cargo run --quiet --package herald-e2e --bin herald-docs

.PHONY: fmt
fmt: ## format the Rust sources
	cargo fmt --all

.PHONY: deny
deny: ## check licences, duplicates and advisories of the dependencies
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny@0.20.2
	cargo deny check
