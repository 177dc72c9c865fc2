package main

import (
	"testing"

	"streamcount/internal/config"

	"github.com/stretchr/testify/assert"
)

func TestConfigPrint(t *testing.T) {
	c := cli{t: t, environ: []string{"STREAMCOUNT_TTL=30s"}}
	out, _ := c.run(exitOK, "config", "print", "--limit=5")
	assert.Regexp(t, `(?m)^limit +5 +the command line$`, out)
	assert.Regexp(t, `(?m)^ttl +30s +STREAMCOUNT_TTL$`, out)
	assert.Regexp(t, `(?m)^region +local +default$`, out)
	assert.Regexp(t, `(?m)^etcd-user +- +default$`, out)

	var all []config.Value
	c.json(exitOK, &all, "config", "print", "--limit=5")
	byKey := make(map[string]string)
	for _, s := range all {
		byKey[s.Key] = string(s.JSON)
	}
	assert.Equal(t, "5", byKey["limit"])
	assert.Equal(t, "false", byKey["demo"])
	assert.Equal(t, `"30s"`, byKey["ttl"])

	out, stderr := c.run(exitUsage, "config", "print", "--limit=61", "--etcd-endpoints=http://u:hunter2@e:1")
	assert.Regexp(t, `(?m)^limit +61 +the command line$`, out)
	assert.NotContains(t, out+stderr, "hunter2")
	assert.Contains(t, stderr, "want 0 to 60")
	_, stderr = c.run(exitUsage, "config", "print", "--config=/does/not/exist")
	assert.Contains(t, stderr, "/does/not/exist")
}

// Neither config print nor an error prints a secret of a URL.
func TestConfigPrint_RedactsURLs(t *testing.T) {
	t.Parallel()
	fs := (&config.Config{}).Flags()
	for _, name := range config.FlagNames(fs) {
		for _, secret := range []string{"https://u:hunter2@h.example/p", "https://hunter2@h.example", "https://h.example/p?key=hunter2",
			"http://h:1?hunter2", "https://h.example/#hunter2"} {
			for _, args := range [][]string{{"--" + name + "=" + secret}, {"--json", "--" + name + "=" + secret}} {
				p := launch(t, nil, append([]string{"config", "print"}, args...)...)
				p.end(t)
				assert.NotContains(t, p.out.String()+p.errOut.String(), "hunter2", args)
			}
		}
	}
}
