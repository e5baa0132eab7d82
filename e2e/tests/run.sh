#!/bin/bash
# All tests that need a cluster: the whole with kube-proxy in nftables mode, then what concerns
# packets in iptables mode. A failure does not keep the rest from running; the labs are removed in
# any case, also on Ctrl-C, and the logs of what failed are kept.
set -uo pipefail
cd "$(dirname "$0")/../.."

export HERALD_LOGS=${HERALD_LOGS:-${XDG_CACHE_HOME:-$HOME/.cache}/herald/logs/$(date +%Y%m%d-%H%M%S)}
# The errors of these tests say what was expected and what there was; how anyhow got there is noise.
export RUST_LIB_BACKTRACE=0
failed=()

lab() { cargo run --quiet --locked --package herald-lab -- "$@"; }

down() {
	lab --name test down
	lab --name test-two down
	lab --name test-iptables down
}
trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# NAME TEST-ARGUMENTS…
run() {
	printf '\n==== %s\n' "$1"
	shift
	cargo test --locked --package herald-e2e "$@" || failed+=("${HERALD_LAB_NAME:-}: cargo test --package herald-e2e $*")
}

# What can't even be compiled is no failed test.
cargo test --locked --package herald-e2e --no-run || exit 1

run 'without a cluster' --lib --test documents --test dataplane --test dataplane_shapes

export HERALD_LAB_NAME=test HERALD_KUBE_PROXY=nftables
run 'side by side, kube-proxy nftables' --test cluster -- --test-threads 4
run 'one after another' --test disruptive -- --test-threads 1
run 'rights, over all the run' --test rights -- --test-threads 1
[ ${#failed[@]} = 0 ] || lab --name test status
lab --name test down

export HERALD_LAB_NAME=test-iptables HERALD_KUBE_PROXY=iptables
run 'kube-proxy iptables: packets' --test cluster -- --test-threads 4 forwarding:: straight:: announcing::
run 'kube-proxy iptables: failover' --test disruptive -- --test-threads 1 failover::a_speaker_killed failover::a_node_without_power

if [ ${#failed[@]} != 0 ]; then
	printf '\nfailed:\n'
	printf '  %s\n' "${failed[@]}"
	printf 'logs: %s\n' "$HERALD_LOGS"
	exit 1
fi
