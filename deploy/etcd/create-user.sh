#!/bin/sh
# Creates an etcd role and user for streamcount with the minimum permissions: to read and
# write the keys below its prefix. Leases, watches and the status of members need no
# further permissions.
#
#   ETCDCTL_ENDPOINTS=https://etcd-1:2379 ETCDCTL_USER=root:... \
#       deploy/etcd/create-user.sh streamcount password-file [/streamcount]
#
# The script may be run again: it sets the role and the password. Nodes read their password
# file again when etcd rejects their password. Enable authentication once for the etcd
# cluster, with a root user: see docs/operations.md.
set -eu
[ $# -ge 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
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
