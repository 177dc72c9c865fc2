#!/bin/sh
# Creates the etcd role and user that streamcount needs, with the least that it
# needs: to read and write the keys below its prefix. Leases, watches and the
# status of members take no right of their own.
#
#   ETCDCTL_ENDPOINTS=https://etcd-1:2379 ETCDCTL_USER=root:... \
#       deploy/etcd/create-user.sh streamcount password-file [/streamcount]
#
# It may be repeated: the role is set again, and so is the password. Authentication
# itself is switched on once for the whole etcd, with a root user: see
# docs/operations.md.
set -eu
[ $# -ge 2 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
user=$1 password=$(cat "$2") prefix=${3:-/streamcount}
role=$user

etcdctl role get "$role" >/dev/null 2>&1 || etcdctl role add "$role"
etcdctl role grant-permission "$role" readwrite --prefix=true "$prefix/"
if etcdctl user get "$user" >/dev/null 2>&1; then
	printf '%s\n' "$password" | etcdctl user passwd "$user" --interactive=false
else
	printf '%s\n' "$password" | etcdctl user add "$user" --interactive=false
fi
etcdctl user grant-role "$user" "$role"
