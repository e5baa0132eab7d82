#!/bin/bash
# The control plane: etcd, API server, controller manager, scheduler, each in a cgroup of its own.
# Runs in the control plane's network namespace until it is killed.
# Environment: LAB, ADVERTISE and BIND (addresses), SERVICE_CIDRS, CGROUP_DIRS.
set -u
D=$LAB/cp
PKI=$LAB/pki
ETCD=http://127.0.0.1:2379

# Keeps NAME running, as systemd would; not while $D/hold/NAME exists.
run() {
	local name=$1
	shift
	while :; do
		until [ ! -e "$D/hold/$name" ]; do sleep 0.1; done
		(
			for dir in $CGROUP_DIRS; do echo "$BASHPID" >"$dir/$name/cgroup.procs"; done
			exec "$LAB/bin/$name" "$@"
		) >>"$D/log/$name.log" 2>&1 || true
		sleep 1
	done &
}

run etcd --name lab --data-dir "$D/etcd" --listen-client-urls $ETCD --advertise-client-urls $ETCD \
	--listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn --quota-backend-bytes 8589934592
run kube-apiserver --etcd-servers $ETCD --advertise-address "$ADVERTISE" --bind-address "$BIND" --secure-port 6443 \
	--service-cluster-ip-range "$SERVICE_CIDRS" --service-node-port-range 10000-32767 \
	--authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
	--client-ca-file "$PKI/ca.crt" --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
	--kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
	--kubelet-client-certificate "$PKI/apiserver-kubelet.crt" --kubelet-client-key "$PKI/apiserver-kubelet.key" \
	--requestheader-client-ca-file "$PKI/ca.crt" --requestheader-allowed-names front-proxy-client \
	--proxy-client-cert-file "$PKI/front-proxy.crt" --proxy-client-key-file "$PKI/front-proxy.key" \
	--requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
	--requestheader-extra-headers-prefix X-Remote-Extra- \
	--service-account-issuer https://kubernetes.default.svc.cluster.local \
	--service-account-key-file "$PKI/sa.pub" --service-account-signing-key-file "$PKI/sa.key" \
	--audit-policy-file "$LAB/etc/audit-policy.yaml" --audit-log-path "$D/audit.log" --audit-log-maxsize 8192 \
	--enable-aggregator-routing --profiling=false \
	--default-not-ready-toleration-seconds 15 --default-unreachable-toleration-seconds 15
run kube-controller-manager --kubeconfig "$PKI/kcm.conf" --use-service-account-credentials --leader-elect=false \
	--root-ca-file "$PKI/ca.crt" --service-account-private-key-file "$PKI/sa.key" \
	--cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
	--flex-volume-plugin-dir "$D/flex" --allocate-node-cidrs=false --service-cluster-ip-range "$SERVICE_CIDRS" \
	--node-monitor-grace-period 16s --node-monitor-period 2s \
	--kube-api-qps 200 --kube-api-burst 400 --profiling=false
run kube-scheduler --kubeconfig "$PKI/scheduler.conf" --leader-elect=false \
	--kube-api-qps 200 --kube-api-burst 400 --profiling=false
wait
