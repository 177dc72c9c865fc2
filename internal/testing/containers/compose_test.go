// Package containers tests the deployment of docker-compose.yml under faults: nodes and members
// of etcd are killed, paused, cut off and restarted while clients start streams.
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

	"streamcount/internal/testing/freeport"
	"streamcount/internal/testing/longtest"
)

const (
	root    = "../../.."
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

// need skips the test unless long tests are on, and Docker and the programs are installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	longtest.Require(t, append(programs, "docker", "ldd")...)
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		longtest.Missing(t, "a Docker daemon: docker info: "+string(out))
	}
	if composeCommand() == nil {
		longtest.Missing(t, "docker-compose or docker compose")
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

// A deployment is a docker-compose.yml with images that the test has built. All ports that it or
// the test publishes are free ports of the loopback address.
type deployment struct {
	t    *testing.T
	file []string          // absolute paths of the files of Docker Compose
	id   map[string]string // container id of each running service
	at   map[string]string // published host:port of each service
}

// prepare returns a deployment of the services with an image. No command starts the others. The
// containers are removed when the test ends.
func prepare(t *testing.T, images map[string]string) *deployment {
	t.Helper()
	var compose struct{ Services map[string]any }
	read(t, "docker-compose.yml", false, &compose)
	d := &deployment{t: t, id: map[string]string{}, at: map[string]string{}}
	override := "services:\n"
	for service := range compose.Services {
		image, ok := images[service]
		if !ok {
			override += fmt.Sprintf("  %s:\n    profiles: [without-image]\n", service)
			continue
		}
		d.at[service] = freeAddress(t)
		override += fmt.Sprintf("  %s:\n    image: %s\n", service, image)
		if kind, _, ok := strings.Cut(service, "-"); ok { // docker-compose.yml does not publish it
			inside := map[string]string{"etcd": "2379", "node": "3000"}[kind]
			override += fmt.Sprintf("    ports: [\"%s:%s\"]\n", d.at[service], inside)
		}
	}
	file, err := filepath.Abs(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	d.file = []string{file, filepath.Join(t.TempDir(), "override.yml")}
	require.NoError(t, os.WriteFile(d.file[1], []byte(override), 0o600))
	d.compose("down", "--volumes", "--remove-orphans") // of an earlier run that was interrupted
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.compose("ps"), d.compose("logs", "--tail=60"))
		}
		d.compose("down", "--volumes", "--remove-orphans")
	})
	return d
}

// up starts all services except Grafana, whose program is not installed, and those of the edge.
func up(t *testing.T) *deployment {
	t.Helper()
	d := prepare(t, images(t))
	d.compose(append(append([]string{"up", "--detach", "--no-build"}, etcds...), append(nodes, "lb", "prometheus")...)...)
	for service := range d.at {
		d.id[service] = strings.TrimSpace(d.compose("ps", "-q", service))
		require.NotEmpty(t, d.id[service], service)
	}
	return d
}

// compose runs a command of Docker Compose for the deployment.
func (d *deployment) compose(args ...string) string {
	d.t.Helper()
	program := composeCommand()
	cmd := exec.Command(program[0], append(program[1:], args...)...)
	cmd.Env = append(d.environ(), "COMPOSE_PROFILES=edge")
	return command(d.t, cmd)
}

// environ returns an environment in which Docker Compose uses the deployment without options.
func (d *deployment) environ() []string {
	env := append(os.Environ(), "COMPOSE_PROJECT_NAME="+project, "COMPOSE_FILE="+strings.Join(d.file, ":"),
		"STREAMCOUNT_SUBNET="+subnet, "STREAMCOUNT_TTL="+ttl.String(), "STREAMCOUNT_LIMIT="+strconv.Itoa(limit))
	for variable, service := range map[string]string{
		"STREAMCOUNT_PORT": "lb", "PROMETHEUS_PORT": "prometheus", "EDGE_PORT": "edge",
	} {
		if _, port, err := net.SplitHostPort(d.at[service]); err == nil {
			env = append(env, variable+"="+port)
		}
	}
	return env
}

// do runs a docker command on the container of a service.
func (d *deployment) do(service string, args ...string) {
	d.t.Helper()
	d.t.Log(time.Now().Format("05.000"), args, service)
	output(d.t, "docker", append(args, d.id[service])...)
}

func (d *deployment) url(service string) string { return "http://" + d.at[service] }

// cut disconnects a service from the network, and join connects it again.
func (d *deployment) cut(service string) {
	d.t.Helper()
	output(d.t, "docker", "network", "disconnect", network, d.id[service])
}

func (d *deployment) join(service string) {
	d.t.Helper()
	output(d.t, "docker", "network", "connect", "--alias", service, network, d.id[service])
}

// awaitReady waits until a service is ready.
func (d *deployment) awaitReady(service string) {
	d.t.Helper()
	path := "/readyz"
	if strings.HasPrefix(service, "prometheus") {
		path = "/-/ready"
	} else if strings.HasPrefix(service, "etcd") {
		path = "/health" // which needs a quorum
	}
	quick := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	require.Eventually(d.t, func() bool {
		resp, err := quick.Get(d.url(service) + path)
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, 3*time.Minute, 50*time.Millisecond, "%s is not ready", service)
}

// awaitTargets waits until Prometheus scrapes each of the services, and no others.
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
	}, 3*time.Minute, 100*time.Millisecond, "Prometheus scrapes %v", services)
}

// query returns the answer of Prometheus to a query.
func (d *deployment) query(expression string) string {
	d.t.Helper()
	resp, err := http.Get(d.url("prometheus") + "/api/v1/query?query=" + expression) //nolint:noctx // a test's own server
	require.NoError(d.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	return string(text)
}

// roles returns the leader of etcd and one follower.
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
	}, 3*time.Minute, 50*time.Millisecond, "etcd has a leader and followers")
	return leader, follower
}

// freeAddress returns an address that no process listens on. Docker would choose a new port at
// each restart.
func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := freeport.Find()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	return command(t, exec.Command(name, args...))
}

// command runs cmd and returns its standard output.
func command(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	require.NoError(t, err, "%v\n%s%s", cmd.Args, &out, &errOut)
	return out.String()
}
