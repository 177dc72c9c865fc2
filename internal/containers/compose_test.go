// Package containers starts docker-compose.yml and breaks it: nodes and etcd
// members are killed, paused, cut off and restarted while viewers start streams.
package containers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	root    = "../.."
	project = "streamcount-test"
	network = project + "_default"
	subnet  = "172.30.98.0/24"
	ttl     = 20 * time.Second
	limit   = 3
)

var (
	etcds = []string{"etcd-1", "etcd-2", "etcd-3"}
	nodes = []string{"node-eu", "node-us", "node-ap"}
)

// need skips where something is missing, and fails where nothing may be.
func need(t *testing.T) {
	t.Helper()
	if os.Getenv("STREAMCOUNT_CONTAINERS") == "" {
		t.Skip("without STREAMCOUNT_CONTAINERS=1: it takes three minutes, and the machine to itself")
	}
	missing := ""
	for _, program := range []string{"docker", "haproxy", "prometheus", "ldd"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = err.Error()
		}
	}
	if out, err := exec.Command("docker", "info").CombinedOutput(); missing == "" && err != nil {
		missing = "docker info: " + string(out)
	}
	if missing == "" && composeCommand() == nil {
		missing = "neither docker-compose nor docker compose is there"
	}
	switch {
	case missing != "" && os.Getenv("STREAMCOUNT_REQUIRE_ALL") != "":
		require.Fail(t, missing)
	case missing != "":
		t.Skip("without containers:", missing)
	}
}

func composeCommand() []string {
	for _, c := range [][]string{{"docker-compose"}, {"docker", "compose"}} {
		if exec.Command(c[0], append(c[1:], "version")...).Run() == nil {
			return c
		}
	}
	return nil
}

// A deployment is docker-compose.yml at work. What it publishes, and what only
// the test publishes, is at free ports of the loopback address.
type deployment struct {
	t    *testing.T
	args []string          // of compose
	id   map[string]string // of each service's container
	at   map[string]string // host:port by which this machine reaches a service
}

// up starts the file with everything in it but Grafana, for which there is no
// program to be had.
func up(t *testing.T) *deployment {
	t.Helper()
	d := &deployment{t: t, id: map[string]string{}, at: map[string]string{}}
	override := "services:\n"
	for service, image := range images(t) {
		port := map[string]string{"lb": "", "prometheus": ""}
		inside, published := "3000", true
		if strings.HasPrefix(service, "etcd") {
			inside = "2379"
		}
		if _, theirs := port[service]; theirs {
			published = false
		}
		d.at[service] = freeAddress(t)
		override += fmt.Sprintf("  %s:\n    image: %s\n", service, image)
		if published {
			override += fmt.Sprintf("    ports: [\"%s:%s\"]\n", d.at[service], inside)
		}
	}
	file := filepath.Join(t.TempDir(), "override.yml")
	require.NoError(t, os.WriteFile(file, []byte(override), 0o600))
	d.args = append(composeCommand(), "-p", project, "-f", filepath.Join(root, "docker-compose.yml"), "-f", file)
	d.compose("down", "--volumes", "--remove-orphans") // of a run that was cut off
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.compose("ps"), d.compose("logs", "--tail=60"))
		}
		d.compose("down", "--volumes", "--remove-orphans")
	})
	d.compose(append(append([]string{"up", "--detach", "--no-build"}, etcds...), append(nodes, "lb", "prometheus")...)...)
	for service := range d.at {
		d.id[service] = strings.TrimSpace(d.compose("ps", "-q", service))
		require.NotEmpty(t, d.id[service], service)
	}
	return d
}

// compose runs one command of it, with --project-directory as it is by itself.
func (d *deployment) compose(args ...string) string {
	d.t.Helper()
	_, lbPort, _ := net.SplitHostPort(d.at["lb"])
	_, prometheusPort, _ := net.SplitHostPort(d.at["prometheus"])
	cmd := exec.Command(d.args[0], append(d.args[1:], args...)...)
	cmd.Env = append(os.Environ(), "STREAMCOUNT_SUBNET="+subnet, "STREAMCOUNT_TTL="+ttl.String(),
		"STREAMCOUNT_LIMIT="+strconv.Itoa(limit), "STREAMCOUNT_PORT="+lbPort, "PROMETHEUS_PORT="+prometheusPort)
	return command(d.t, cmd)
}

// do is one docker command about a service's container.
func (d *deployment) do(service string, args ...string) {
	d.t.Helper()
	d.t.Log(time.Now().Format("05.000"), args, service)
	output(d.t, "docker", append(args, d.id[service])...)
}

func (d *deployment) url(service string) string { return "http://" + d.at[service] }

// cut takes a member off the network; join puts it back under its name.
func (d *deployment) cut(service string) {
	d.t.Helper()
	output(d.t, "docker", "network", "disconnect", network, d.id[service])
}

func (d *deployment) join(service string) {
	d.t.Helper()
	output(d.t, "docker", "network", "connect", "--alias", service, network, d.id[service])
}

// awaitReady waits until a service is fit for use, and returns how long it took.
func (d *deployment) awaitReady(service string) {
	d.t.Helper()
	path := "/readyz"
	if strings.HasPrefix(service, "prometheus") {
		path = "/-/ready"
	} else if strings.HasPrefix(service, "etcd") {
		path = "/health" // it reads with a quorum
	}
	quick := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	require.Eventually(d.t, func() bool {
		resp, err := quick.Get(d.url(service) + path)
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, time.Minute, 50*time.Millisecond, "%s is not ready", service)
}

// awaitTargets waits until Prometheus gets metrics from each of the services, and from
// no other.
func (d *deployment) awaitTargets(services ...string) {
	d.t.Helper()
	last := ""
	defer func() { d.t.Log("Prometheus scrapes", last) }()
	require.Eventually(d.t, func() bool {
		resp, err := http.Get(d.url("prometheus") + "/api/v1/targets?state=active") //nolint:noctx // a test's own server
		if err != nil {
			return false
		}
		var found struct {
			Data struct {
				ActiveTargets []struct{ ScrapeURL, Health, LastError string }
			}
		}
		err = json.NewDecoder(resp.Body).Decode(&found)
		last = fmt.Sprint(found)
		if resp.Body.Close() != nil || err != nil || len(found.Data.ActiveTargets) != len(services) {
			return false
		}
		for _, target := range found.Data.ActiveTargets {
			known := slices.ContainsFunc(services, func(s string) bool { return strings.HasPrefix(target.ScrapeURL, "http://"+s+":") })
			if !known || target.Health != "up" {
				return false
			}
		}
		return true
	}, time.Minute, 100*time.Millisecond, "Prometheus scrapes %v", services)
}

// query is Prometheus' answer.
func (d *deployment) query(expression string) string {
	d.t.Helper()
	resp, err := http.Get(d.url("prometheus") + "/api/v1/query?query=" + expression) //nolint:noctx // a test's own server
	require.NoError(d.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	return string(text)
}

// roles says which member of etcd leads, and names one that follows.
func (d *deployment) roles(c *clientv3.Client) (leader, follower string) {
	d.t.Helper()
	require.Eventually(d.t, func() bool {
		leader, follower = "", ""
		for _, service := range etcds {
			ctx, cancel := context.WithTimeout(d.t.Context(), time.Second)
			s, err := c.Status(ctx, d.url(service))
			cancel()
			switch {
			case err != nil || s.Leader == 0:
				return false
			case s.Leader == s.Header.MemberId:
				leader = service
			default:
				follower = service
			}
		}
		return leader != "" && follower != ""
	}, time.Minute, 50*time.Millisecond, "etcd has a leader and followers")
	return leader, follower
}

// freeAddress is one that nobody listens on. A port that Docker picks would be
// another after every restart.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	return command(t, exec.Command(name, args...))
}

// command runs cmd and returns what it printed to its standard output.
func command(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	require.NoError(t, err, "%v\n%s%s", cmd.Args, &out, &errOut)
	return out.String()
}
