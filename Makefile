# The one door. `make` lists the targets.

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Cases per property in `make fuzz` (256 in `make test`).
CASES ?= 5000
# For how long `make fuzz` tries each fuzz target, in seconds. (`SECONDS` itself is the shell's: `make fuzz SECONDS=60`.)
SECONDS_EACH := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),10)
# More words for `make bench`, such as BENCH=--quick (weft-bench --help).
BENCH ?=
# `make soak`: how long faults come, and what they are drawn from (a run prints it; give it again to repeat the run).
MINUTES ?= 3
SEED ?=
# MiB of its transfer with checksum.
TRANSFER ?= 1024
# Seeds that `make sim` tries, beginning with SEED (a failure prints the command that repeats it).
RUNS ?= 3000
# The same flags everywhere, so that no crate is built twice for another set of features.
WORKSPACE := --workspace --locked

.DEFAULT_GOAL := help
.PHONY: help setup build demo test netns lint fmt fuzz bench scale sim soak images cluster-up cluster-down cluster-loaded try e2e e2e-local e2e-kind

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing (apt-get, with sudo if you are not root); starts no service
	@.ci/setup
	@echo "everything is there"

build: ## build all programs (debug)
	cargo build $(WORKSPACE) --bins

demo: ## two nodes, real programs, the mesh switched on under load; HOLD=1 stays up to play with
	@.ci/setup
	cargo build $(WORKSPACE) --bins --profile quick
	$(TARGET)/quick/weft-demo $(if $(filter-out 0,$(HOLD)),--hold)

test: ## all tests; those that need namespaces say so where the machine forbids them
	@.ci/setup
	cargo build $(WORKSPACE) --all-targets
	cargo test $(WORKSPACE)

netns: ## all tests with namespaces obligatory: as root (if you are), and as an ordinary user
	@.ci/setup
	cargo build $(WORKSPACE) --all-targets
	@if [ "$$(id -u)" = 0 ]; then echo "--- as root"; WEFT_NETNS=root cargo test $(WORKSPACE); \
	else echo "--- NOT run as root, since you are not: sudo make netns"; fi
	@echo "--- as an ordinary user in a user namespace"
	WEFT_NETNS=user cargo test $(WORKSPACE)

lint: ## formatting, clippy, the architecture test; shellcheck and cargo-deny where installed
	cargo fmt --all --check
	cargo clippy $(WORKSPACE) --all-targets -- -D warnings
	cargo test $(WORKSPACE) --test architecture
	@if command -v shellcheck >/dev/null; then shellcheck .ci/setup .ci/run e2e/kind/run; \
	else echo "--- shellcheck is not installed: scripts unchecked (make setup)"; fi
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check licenses bans sources; \
	else echo "--- cargo-deny is not installed: licences unchecked (cargo install cargo-deny --locked)"; fi

fmt: ## format the code
	cargo fmt --all

fuzz: ## each fuzz target for SECONDS (10) from its seeds, then all property tests with many more cases (CASES=5000)
	cargo run -p weft-fuzz --locked -- run --seconds $(SECONDS_EACH)
	PROPTEST_CASES=$(CASES) cargo test $(WORKSPACE) --exclude weft-testkit --exclude weft-e2e --exclude weft-fuzz --lib --bins
	PROPTEST_CASES=$(CASES) cargo test --locked -p weft-identity --test stream

bench: ## Weft against the direct path, two nodes and same node, in one interleaved run of release builds; some minutes
	@.ci/setup
	cargo build $(WORKSPACE) --bins --release
	$(TARGET)/release/weft-bench $(BENCH)

scale: ## what questions and changes cost with 10 and with 100,000 workloads, by ratio (release build)
	cargo test --locked --release -p weft-model --test scale -- --ignored --nocapture
	cargo test --locked --release -p weft-xds-server --test scale -- --ignored --nocapture

sim: ## many seeds of the simulation of control plane, agents and capture (RUNS=3000 SEED=n)
	cargo run -p weft-sim --locked --profile quick -- --runs $(RUNS) --seed $(or $(SEED),$(shell date +%s))

soak: ## minutes of random faults under checked traffic on two nodes (MINUTES=3 SEED=n TRANSFER=1024), and the long tests
	@.ci/setup
	cargo build $(WORKSPACE) --bins --profile quick
	$(TARGET)/quick/weft-soak --seconds $$(( $(MINUTES) * 60 )) $(if $(SEED),--seed $(SEED)) --transfer $(TRANSFER) --crowd
	$(TARGET)/quick/weft-sim --runs $(RUNS) --seed $(or $(SEED),$(shell date +%s))
	cargo build $(WORKSPACE) --bins
	cargo test --locked -p weft-e2e --test mesh -- --ignored
	cargo test --locked -p weft-node-agent --test capture_netns -- --ignored

# Stamped into the images, where this is a clone.
REVISION = $(addprefix --revision ,$(shell git rev-parse HEAD 2>/dev/null))

images: ## the images of Weft as OCI archives in target/images (release build, no container engine)
	cargo build $(WORKSPACE) --bins --release
	$(TARGET)/release/weft-image --programs $(TARGET)/release --output $(TARGET)/images $(REVISION)

# On which cluster `make e2e` runs: the local one, or kind's (Docker; e2e/kind/run says what it wants).
PROVIDER ?= local

# The local cluster's shape: iptables, nftables (kube-proxy's modes) or dual-stack (IPv6 beside IPv4). `make cluster-down` before another one.
MODE ?= iptables
SHAPE = $(if $(filter dual-stack,$(MODE)),--dual-stack,--proxy $(MODE))

# Where the local cluster lives: programs (built once), images, clusters.
CLUSTER = $(TARGET)/debug/weft-cluster --folder $(TARGET)/cluster

cluster-up: ## a real Kubernetes cluster of three nodes on this machine (root; Go builds it the first time, 7 to 14 minutes)
	@.ci/setup cluster
	cargo build --locked -p weft-cluster
	$(CLUSTER) up $(SHAPE)

cluster-down: ## end it; nothing is left but what was built
	cargo build --locked -p weft-cluster
	$(CLUSTER) down

e2e: e2e-$(PROVIDER) ## Weft on Kubernetes: images, `weft install`, then the tests of e2e/tests/kubernetes (PROVIDER=local or kind; MODE=iptables, nftables, dual-stack)

# A cluster, and Weft's images on its nodes.
cluster-loaded: cluster-up
	cargo build $(WORKSPACE) --bins --profile quick
	$(TARGET)/quick/weft-image --programs $(TARGET)/quick --output $(TARGET)/cluster/images
	$(CLUSTER) load $(TARGET)/cluster/images/xds-server.tar $(TARGET)/cluster/images/node-agent.tar

try: cluster-loaded ## a cluster of three nodes on this machine with a shop in it, to type README's two commands at (root and Go)
	$(CLUSTER) kubectl apply -f e2e/try/shop.yaml
	$(CLUSTER) kubectl -n shop rollout status deployment/web --timeout=120s
	$(CLUSTER) kubectl -n shop rollout status deployment/client --timeout=120s
	@echo; echo "A shop runs in plaintext on a cluster of three nodes. Now:"; echo
	@echo "  export KUBECONFIG=$$($(CLUSTER) kubeconfig) PATH=$(abspath $(TARGET))/quick:\$$PATH"
	@echo "  weft install"
	@echo "  weft enroll shop --wait"; echo
	@echo "Then: weft connections, weft check, weft unenroll shop --wait. 'make cluster-down' ends it."

e2e-local: cluster-loaded
	$(TARGET)/quick/weft install --kubeconfig $$($(CLUSTER) kubeconfig)
	$(CLUSTER) build
	WEFT_HELM=$(abspath $(TARGET))/cluster/bin/helm WEFT_KUBECTL="$(abspath $(TARGET))/cluster/bin/kube kubectl" \
	  cargo test --locked -p weft-cli --test chart
	KUBECONFIG=$$($(CLUSTER) kubeconfig) WEFT_KUBECTL="$(abspath $(TARGET))/cluster/bin/kube kubectl" \
	  WEFT_CLUSTER="$(abspath $(TARGET))/debug/weft-cluster --folder $(abspath $(TARGET))/cluster" \
	  WEFT_HELM=$(abspath $(TARGET))/cluster/bin/helm \
	  cargo test --locked -p weft-e2e --test kubernetes -- --ignored

# Release builds: kind's nodes have a C library of their own, which the CNI plugin must not need.
e2e-kind:
	e2e/kind/run check
	$(MAKE) images
	cargo build --locked -p weft-cluster
	e2e/kind/run test $(TARGET)
