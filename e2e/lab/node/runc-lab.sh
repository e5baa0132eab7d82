#!/bin/bash
# The OCI runtime of the lab: runc, and before a container is made a refusal while `kill --hold` keeps
# its process down.
hold={{node_dir}}/hold
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

process=$(jq -r '.process.args[0] // ""' "$bundle/config.json")
if [ -n "$process" ] && [ -e "$hold/${process##*/}" ]; then
	echo "${process##*/} is held down by herald-lab" >&2
	exit 1
fi
exec runc "$@"
