#!/bin/bash
# The OCI runtime of the lab: runc, and before a container is made
# - a refusal while `kill --hold` keeps its process down;
# - a share of real-time CPU for one that holds CAP_SYS_NICE. Needed only where cgroup v1 meets
#   CONFIG_RT_GROUP_SCHED: there every new cgroup starts with none, and SCHED_FIFO gives EPERM.
hold={{node_dir}}/hold
cgroup={{cgroup}}
create=
bundle=.
argv=("$@")
for ((i = 0; i < $#; i++)); do
	case ${argv[i]} in
	create) create=1 ;;
	--bundle | -b) bundle=${argv[i + 1]} ;;
	esac
done
[ -n "$create" ] || exec runc "$@"

config=$bundle/config.json
IFS=$'\t' read -r process nice path < <(
	jq -r '[.process.args[0], (.process.capabilities.bounding // [] | index("CAP_SYS_NICE") != null), .linux.cgroupsPath] | @tsv' "$config"
)
if [ -n "$process" ] && [ -e "$hold/${process##*/}" ]; then
	echo "${process##*/} is held down by herald-lab" >&2
	exit 1
fi

# GROUP PERCENT: real-time microseconds a second for GROUP, as a share of what its parent has.
share() {
	local dir=/sys/fs/cgroup/cpu$1 parent
	[ "$(<"$dir/cpu.rt_runtime_us")" = 0 ] || return 0
	parent=$(<"${dir%/*}/cpu.rt_runtime_us")
	echo $((parent * $2 / 100)) >"$dir/cpu.rt_runtime_us"
}
real_time() {
	local group=$cgroup part rest=${path#"$cgroup"/}
	[ "$rest" != "$path" ] || return 1
	rest=${rest%/*}
	while [ -n "$rest" ]; do
		part=${rest%%/*}
		group=$group/$part
		case $part in
		kubepods) share "$group" 100 ;;
		burstable) share "$group" 80 ;;
		besteffort) share "$group" 10 ;;
		*) share "$group" 45 ;;
		esac || return 1
		[ "$rest" = "$part" ] && break
		rest=${rest#*/}
	done
	# A short period: a container that has used its share waits a tenth of a second, not a whole one.
	local runtime
	runtime=$(($(<"/sys/fs/cgroup/cpu$group/cpu.rt_runtime_us") / 20))
	[ "$runtime" -gt 0 ] || return 1
	jq --argjson runtime "$runtime" '.linux.resources.cpu.realtimeRuntime = $runtime
		| .linux.resources.cpu.realtimePeriod = 100000' "$config" >"$config.rt" && mv "$config.rt" "$config"
}
if [ "$nice" = true ] && [ -e "/sys/fs/cgroup/cpu$cgroup/cpu.rt_runtime_us" ]; then
	# Without it the container starts all the same, and is told EPERM.
	real_time 2>/dev/null || true
fi
exec runc "$@"
