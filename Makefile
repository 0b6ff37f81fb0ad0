# Every command of this project. `make demo` and `make test` need only Rust, Python 3 and Debian's packages.
# CARGO_TARGET_DIR is honoured by everything below.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test lint audit unit formats api sdk receivers monitoring page systemd packaged nodes cluster soak bench fuzz build release whole \
  packages image prerequisites
# Two builds of one program follow each other.
.NOTPARALLEL:

# The main job against the embedded emulator, in half a minute; ends by itself and cleans up.
demo:
	cargo run --quiet --locked -- demo

# Everything that proves the daemon: lints, Rust tests, the official SDKs, the receiver kit, Prometheus and Alertmanager, the
# page in a browser, a real systemd, the packages and the image, nodes over a real PostgreSQL (needs root).
test: root prerequisites lint audit unit formats api sdk receivers monitoring page systemd packaged nodes
	@echo "make test: everything passed"

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "make test needs root: its systemd part boots a throwaway container and makes users in it" >&2; exit 1; }

prerequisites:
	tests/prerequisites

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --package renewd --lib --bins --no-default-features -- -D warnings

# Half of the tests wait most of their time for others.
unit: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
unit:
	cargo test --locked --workspace --lib
	$(OPTIMISED) --test it
	$(OPTIMISED) --doc

sdk: build
	tests/sdk/run

# Token files, read back by the libraries that programs read them with.
formats: build
	tests/files/run

# The description of the local socket against a real daemon.
api: build
	tests/api/run

# The receiver kit of docs/receivers, against a real daemon.
receivers: build
	tests/receivers/run

# Metrics, alerts and dashboard of docs/monitoring, by Debian's Prometheus and Alertmanager.
monitoring: build
	tests/monitoring/run

# The page in a real Chromium; pictures of it are left in target/page/screenshots.
page: build
	tests/page/run

# The two pictures of it in README.md, made anew.
.PHONY: pictures
pictures: export PICTURES := docs
pictures: page

systemd: build
	tests/systemd/run

# Packages and image of debug builds, of the whole program and of one without the other side, as the server is: made,
# looked through, installed, upgraded, taken back, removed, purged, run.
DEBUG := $(or $(CARGO_TARGET_DIR),target)/debug
packaged:
	cargo build --locked --package renewd --no-default-features --features simulation
	cp $(DEBUG)/renewd $(DEBUG)/renewd-server
	$(MAKE) build
	tests/packages/run

# Two nodes over a real PostgreSQL, and what may happen to them.
nodes: build
	tests/cluster/run

# The same with three nodes and a PostgreSQL that fails over: three etcd, three Patroni. A table with a figure for each
# failure, in less than 20 minutes on a machine that does nothing else.
cluster: build
	tests/cluster/run --replicated

# Tests through the interfaces live whole months, so what they run is optimised a little: they take two thirds of the time,
# the build included. The program for all other tests comes from the same command: `cargo build` alone gives some dependencies
# fewer features, and all of the daemon would be compiled once more.
OPTIMISED := CARGO_PROFILE_TEST_OPT_LEVEL=1 cargo test --locked --workspace
build:
	$(OPTIMISED) --test it --no-run
	CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo build --locked --workspace --examples

# The server package, without the emulator: the program stripped, what debuggers and traces need of it in
# `renewd.debug` beside it.
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
release:
	cargo build --locked --release --package renewd --no-default-features
	objcopy --only-keep-debug $(RELEASE)/renewd $(RELEASE)/renewd.debug
	cd $(RELEASE) && objcopy --strip-all --add-gnu-debuglink=renewd.debug renewd renewd.stripped
	mv $(RELEASE)/renewd.stripped $(RELEASE)/renewd

# The whole program, put aside before `release` builds the server's in its place.
whole:
	cargo build --locked --release --package renewd
	cp $(RELEASE)/renewd $(RELEASE)/renewd-emulator

# Packages for Debian and Red Hat, of the server and of the whole program.
PACKAGES := $(or $(CARGO_TARGET_DIR),target)/packages
packages: whole release
	packaging/build --server $(RELEASE)/renewd --whole $(RELEASE)/renewd-emulator --out $(PACKAGES)

# An OCI image of the server, made without an engine.
image: release
	tests/prerequisites umoci skopeo
	packaging/image --server $(RELEASE)/renewd --out $(PACKAGES)

# What takes longer than a change should wait for. A month of three machines is seven minutes of an optimised build.
soak: build
	RENEWD_TEST_SCALE=soak $(OPTIMISED) --test it -- chaos:: files::a_reader file_proofs::a_kill dispatchers::bundles life::poisoned simulation::faults campaigns::thousands sources::a_change
	RENEWD_TEST_SCALE=soak cargo test --locked --release --test it -- life::cluster::three_machines

# The figures of the README, all in one run: half an hour on a machine that does nothing else.
bench: export PYTHONDONTWRITEBYTECODE = 1
bench:
	tests/prerequisites wrk
	cargo build --locked --release --bins --example neutral
	tests/sdk/install
	benches/run
	benches/scale
	benches/delivery
	benches/watchers
	benches/import
	benches/attacks
	benches/limit
	benches/cluster

# Bans, licences and sources, by a pinned cargo-deny; advisories only where their database can be reached.
audit:
	tests/audit/run

# Every parser and interface, SECONDS each; TARGETS="list schedule" for some. Only here libFuzzer is built and used.
SECONDS := 600
TARGETS :=
fuzz:
	tests/fuzz/run $(SECONDS) $(TARGETS)
