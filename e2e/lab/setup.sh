#!/bin/bash
# Installs what the lab and the build need: Debian packages, Rust's musl target, Prometheus, Kubernetes, Helm.
# Where all of it is there it does nothing, within a second. Two at once wait for each other.
#   setup.sh [packages | kubernetes]   all; or only the first three, or the last two
set -euo pipefail
cd "$(dirname "$0")"

# src/tools.rs names the same versions; a unit test compares them.
KUBE_VERSION=v1.35.4
HELM_VERSION=v4.3.1

cache=${XDG_CACHE_HOME:-$HOME/.cache}/herald

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# command (or file) : Debian package. The command is asked for, not the package, so that another
# package or a build of one's own that gives the same command will do.
needs='
clang:clang
llvm-strip:llvm
/usr/include/bpf/bpf_helpers.h:libbpf-dev
musl-gcc:musl-tools
make:make
containerd:containerd
runc:runc
/usr/lib/cni/bridge:containernetworking-plugins
nft:nftables
iptables:iptables
conntrack:conntrack
ip:iproute2
ethtool:ethtool
arping:arping
ping:iputils-ping
tcpdump:tcpdump
modprobe:kmod
sysctl:procps
nsenter:util-linux
jq:jq
openssl:openssl
curl:curl
'

install_packages() {
	local need what missing=()
	for need in $needs; do
		what=${need%:*}
		[ -e "$what" ] || PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null || missing+=("${need##*:}")
	done
	[ ${#missing[@]} = 0 ] && return
	say "installing ${missing[*]}"
	as_root apt-get update -q >&2
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >&2
}

install_musl_target() {
	local target
	target=$(uname -m)-unknown-linux-musl
	# Asking rustup takes longer than all the rest; the folder tells the same.
	[ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] && return
	say "adding the Rust target $target"
	rustup target add "$target" >&2
}

# Prometheus and promtool, unpacked and not installed: an installed one runs, and on people's machines.
install_prometheus() {
	local dir tmp
	# src/tools.rs knows the same folder.
	dir=$cache/prometheus-$(. /etc/os-release && echo "$ID$VERSION_ID")
	[ -x "$dir/promtool" ] && return
	exec 9>"$cache/setup.lock"
	flock 9
	[ -x "$dir/promtool" ] && return
	say "unpacking the package prometheus"
	tmp=$(mktemp -d "$cache/build-XXXXXX")
	(
		cd "$tmp"
		apt-get download -q prometheus >&2 || {
			as_root apt-get update -q >&2
			apt-get download -q prometheus >&2
		}
		dpkg-deb -x prometheus_*.deb .
	) || {
		rm -rf "$tmp"
		say "unpacking the package prometheus failed"
		exit 1
	}
	rm -rf "$dir"
	mv "$tmp/usr/bin" "$dir"
	rm -rf "$tmp"
}

need_go() {
	command -v go >/dev/null && return
	say "go is missing: install Go 1.25 or later"
	exit 1
}

# Nobody debugs these: without DWARF, and with less garbage collection, it compiles faster.
export GOGC=400
without_dwarf=-gcflags=all=-dwarf=false

# The multi-call binary: every Kubernetes component, kubectl and etcd.
install_kube() {
	local key dir tmp
	# src/tools.rs computes the same key.
	key=$(cat kube/main.go kube/go.mod | sha256sum | cut -c1-12)
	dir=$cache/kube-$KUBE_VERSION-$key
	[ -x "$dir/kube" ] && return
	need_go
	exec 9>"$cache/setup.lock"
	flock 9
	[ -x "$dir/kube" ] && return
	say "building Kubernetes $KUBE_VERSION; about 8 minutes on two cores, once"
	rm -rf "$cache"/build-?????? # of a killed run; the lock is ours
	tmp=$(mktemp -d "$cache/build-XXXXXX")
	cp kube/main.go kube/go.mod kube/go.sum "$tmp"
	(
		cd "$tmp"
		export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off
		IFS=. read -r major minor _ <<<"${KUBE_VERSION#v}"
		version=k8s.io/component-base/version
		nice go build -trimpath "$without_dwarf" -ldflags "-s -w -X $version.gitVersion=$KUBE_VERSION -X $version.gitMajor=$major -X $version.gitMinor=$minor" -o kube .
	) || {
		rm -rf "$tmp"
		say "building Kubernetes failed"
		exit 1
	}
	mkdir -p "$dir"
	mv "$tmp/kube" "$dir/kube"
	rm -rf "$tmp"
	say "built $dir/kube"
}

install_helm() {
	local dir=$cache/helm-$HELM_VERSION tmp
	[ -x "$dir/helm" ] && return
	need_go
	exec 9>"$cache/setup.lock"
	flock 9
	[ -x "$dir/helm" ] && return
	say "building Helm $HELM_VERSION; about 5 minutes on two cores, once"
	tmp=$(mktemp -d "$cache/build-XXXXXX")
	CGO_ENABLED=0 GOFLAGS= GOWORK=off GOBIN=$tmp nice go install -trimpath "$without_dwarf" \
		-ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=$HELM_VERSION" \
		"helm.sh/helm/v4/cmd/helm@$HELM_VERSION" || {
		rm -rf "$tmp"
		say "building Helm failed"
		exit 1
	}
	mkdir -p "$dir"
	mv "$tmp/helm" "$dir/helm"
	rm -rf "$tmp"
	say "built $dir/helm"
}

mkdir -p "$cache"
what=${1:-all}
case $what in
all | packages | kubernetes) ;;
*)
	say "packages or kubernetes, not \"$what\""
	exit 2
	;;
esac
if [ "$what" != kubernetes ]; then
	install_packages
	install_musl_target
	install_prometheus
fi
if [ "$what" != packages ]; then
	install_kube
	install_helm
fi
