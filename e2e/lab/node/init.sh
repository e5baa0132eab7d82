#!/bin/bash
# Process 1 of a node, in network, mount, pid, uts and ipc namespaces of its own: puts the node's own
# files at the places where everything expects them, then keeps containerd, kubelet and kube-proxy running.
# Environment: LAB, NODE, NODE_IPS.
set -eu
D=$LAB/nodes/$NODE

hostname "$NODE"
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run

# Its own view of /sys (its links), with the machine's cgroups and a bpffs of its own. `ip netns exec`
# would have put a /sys without cgroups there.
mkdir /run/sys
mount -t sysfs sysfs /run/sys
mount --rbind /sys/fs/cgroup /run/sys/fs/cgroup
mount -t bpf bpf /run/sys/fs/bpf
mount --move /run/sys /sys
rmdir /run/sys

# The node's disk. /var/lib and /etc are covered whole, so that nothing is created on the machine.
mount -t tmpfs -o mode=755 tmpfs /var/lib
for dir in containerd kubelet cni herald; do
	mkdir -p "$D/$dir" "/var/lib/$dir"
	mount --bind "$D/$dir" "/var/lib/$dir"
done
mount --bind "$D/varlog" /var/log
mount -t overlay -o "lowerdir=/etc,upperdir=$D/etc-upper,workdir=$D/etc-work" overlay /etc
mkdir -p /etc/cni/net.d
cp "$D/etc/cni.conflist" /etc/cni/net.d/10-lab.conflist
echo "$NODE" >/etc/hostname

# kubelet writes some sysctls of the whole machine: give it files that already hold what it wants.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	fake=/run/fake-sysctl-$(echo "${setting%=*}" | tr / _)
	echo "${setting#*=}" >"$fake"
	mount --bind "$fake" "/proc/sys/${setting%=*}"
done
mount --make-rshared /

# Keeps NAME running, as systemd would; not while $D/hold/NAME exists.
run() {
	local name=$1
	shift
	while :; do
		until [ ! -e "$D/hold/$name" ]; do sleep 0.1; done
		"$@" >>"$D/log/$name.log" 2>&1 || true
		sleep 1
	done &
}

run containerd containerd -c "$D/etc/containerd.toml"
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$LAB"/images/*.tar; do
	ctr -n k8s.io images import "$image" >>"$D/log/images.log" 2>&1
done
# A kubelet that finds no API server backs off for seconds.
until [ -e "$LAB/cp/was-ready" ]; do sleep 0.1; done
run kubelet "$LAB/bin/kubelet" --config "$D/etc/kubelet.yaml" --kubeconfig "$LAB/pki/$NODE.conf" \
	--hostname-override "$NODE" --node-ip "$NODE_IPS" --root-dir /var/lib/kubelet -v 2
run kube-proxy "$LAB/bin/kube-proxy" --config "$D/etc/kube-proxy.yaml" -v 2
while :; do wait -n || true; done
