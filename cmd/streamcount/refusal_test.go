package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// Under a plan with several limits, every output names the limits that refuse a start, and
// says which streams to end.
func TestRefusal_SeveralLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	audit := filepath.Join(dir, "audit.log")
	_, c := serve(t, "--data-dir="+filepath.Join(dir, "data"), "--audit-file="+audit, "--log-format=json")
	plan := filepath.Join(dir, "plan.yaml")
	require.NoError(t, os.WriteFile(plan, []byte(`
plans:
  default:
    limit: 4
    limits:
    - {name: tv, where: {device.type: [tv, ""]}, limit: 1, message: Only one TV at a time}
    - {name: profile, per: profile, limit: 1}
    - {name: uhd, where: {labels.quality: uhd}, limit: 0}
    - {name: phones, where: {device.type: phone}, limit: 0, observe: true}
`), 0o600))
	c.run(exitOK, "plans", "set", "--file="+plan, "--yes")
	events := c.watch(t)
	c.run(exitOK, "stop", "probe", "--all")

	var tv, phone apitype.User
	c.json(exitOK, &tv, "start", "maya", "--device-type=tv", "--profile=ann", "--label=kids=no", "--label=tier=gold", "--priority=7")
	c.json(exitOK, &phone, "start", "maya", "--device-type=phone", "--profile=ben", "--content-title=News", "--content-type=live", "--content-label=orange")
	out, _ := c.run(exitOK, "ls", "maya")
	assert.Regexp(t, `(?m)^STREAM .* PROFILE +LABELS +PRIORITY$`, out)
	assert.Regexp(t, `(?m)^\S+ .* ann +kids=no tier=gold +7$`, out)
	assert.Regexp(t, `(?m)^\S+ .* phone +News \(live, orange\) .* ben +- +-$`, out)

	out, errOut := c.run(exitLimit, "start", "maya", "--device-type=tv", "--profile=cem")
	assert.Equal(t, "streamcount: limit reached: Only one TV at a time (tv, 1 of 1); to start in place of the stream that "+
		"blocks it, add --replaces "+tv.Stream.ID+"\n", errOut)
	assert.Regexp(t, `(?m)^STREAM .* BLOCKS +ENOUGH$`, out)
	assert.Regexp(t, `(?m)^`+tv.Stream.ID+` .* tv +yes$`, out)
	assert.Regexp(t, `(?m)^`+phone.Stream.ID+` .* - +no$`, out)
	var p apitype.Problem
	c.json(exitLimit, &p, "start", "maya", "--device-type=tv", "--profile=ben")
	assert.Equal(t, []string{"tv", "profile"}, []string{p.Limits[0].Name, p.Limits[1].Name})
	assert.Equal(t, "Only one TV at a time", p.Detail)
	_, errOut = c.run(exitLimit, "start", "maya", "--device-type=tv", "--profile=ben")
	assert.Contains(t, errOut, "(tv, 1 of 1; profile, 1 of 1); to start in place of others, repeat --replaces ID, with a stream of each limit")
	_, errOut = c.run(exitLimit, "start", "maya", "--device-type=tablet", "--profile=dan", "--label=quality=uhd")
	assert.Contains(t, errOut, "limit reached (uhd, 0 of 0); the plan does not allow such a stream")
	out, _ = c.run(exitOK, "start", "maya", "--device-type=tv", "--profile=ben", "--replaces="+tv.Stream.ID, "--replaces="+phone.Stream.ID)
	assert.Contains(t, out, "maya now has 1 of 4 streams")

	events.awaitOut(t, "limit uhd")
	assert.Regexp(t, `(?m) refusal +2/1 +maya +- +limit tv, profile$`, events.out.String())
	_, metrics := status(t, c.server+"/metrics")
	for _, line := range []string{
		`streamcount_refusals_total{limit="tv",shard="default"} 3`, `streamcount_refusals_total{limit="profile",shard="default"} 2`,
		`streamcount_refusals_total{limit="uhd",shard="default"} 1`, `streamcount_refusals_total{limit="total",shard="default"} 0`,
		`streamcount_would_refuse_total{limit="phones",shard="default"} 1`,
	} {
		assert.Contains(t, metrics, line+"\n")
	}
	_, refused := status(t, c.server+"/api/v1/stats/concurrency")
	assert.Contains(t, refused, `{"name":"tv","limit":1,"users":1,"starts":3}`)
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(audit)
		return err == nil && strings.Contains(string(text), `"limits":["uhd"]`)
	}, time.Minute, 10*time.Millisecond)
	text, err := os.ReadFile(audit)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"what":"refuse","user":"maya","caller":"anyone","client":"127.0.0.1","limit":1,"streams":2,"limits":["tv","profile"]}`)
	assert.NotRegexp(t, `"what":"refuse".*phones`, string(text), "an observing limit refuses nothing")
}
