package main

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"streamcount/api/apitype"
	"streamcount/internal/testing/etcdtest"
)

// The secret is rotated while nodes run and streams are active: on one etcd, on several, and on
// an embedded etcd.
func TestSecret_RotateAndRetire(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string]func(t *testing.T) []string{
		"etcd": func(t *testing.T) []string {
			t.Helper()
			return []string{"--etcd-endpoints=" + etcdtest.Start(t, etcdtest.Config{}).Endpoint()}
		},
		"shards": func(t *testing.T) []string {
			t.Helper()
			a, b := etcdtest.Start(t, etcdtest.Config{}), etcdtest.Start(t, etcdtest.Config{})
			return []string{"--shard=a=" + a.Endpoint(), "--shard=b=" + b.Endpoint()}
		},
		"embedded": func(t *testing.T) []string {
			t.Helper()
			return []string{"--data-dir=" + t.TempDir()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			where := flags(t)
			_, node := serve(t, where...)
			var st apitype.User
			node.json(exitOK, &st, "start", "maya")
			admin := cli{t: t}
			secret := func(code int, args ...string) (string, string) {
				return admin.run(code, append(append([]string{"secret"}, args...), where...)...)
			}
			out, _ := secret(exitOK, "status")
			assert.Equal(t, "1 accepted, the newest created at the first start\n", out)
			out, _ = secret(exitOK, "rotate")
			assert.Regexp(t, `^2 accepted, the newest created 20`, out)
			node.run(exitOK, "heartbeat", "maya", st.Stream.ID)
			_, text := secret(exitError, "retire")
			assert.Contains(t, text, "1 of the active streams may have ids of an older secret")
			node.run(exitOK, "heartbeat", "maya", st.Stream.ID)
			out, _ = secret(exitOK, "retire", "--force")
			assert.Regexp(t, `^1 accepted, the newest created 20`, out)
		})
	}
}
