//go:build linux

package torture

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// memberVariable is the environment variable with the configuration of a member, as JSON. If
// it is set, the test binary runs that member.
const memberVariable = "STREAMCOUNT_TORTURE_MEMBER"

// memberConfig is the configuration of a member's process.
type memberConfig struct {
	Name       string
	Dir        string
	Client     string // address for clients
	Peer       string // address for other members
	Advertised string // address of the relay through which other members connect
	Cluster    string // name=advertised,... of all members
	Joins      bool   // it joins an existing cluster
	Quota      int64
	Fast       bool // no fsync
}

// An election takes about a second, so that there are many in a minute. The minimum TTL that
// etcd derives from the election timeout is far below the TTLs of these tests.
const (
	tickMs     = 50
	electionMs = 500
)

// command returns the command that runs this test binary as the member.
func (c memberConfig) command() *exec.Cmd {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), memberVariable+"="+string(text))
	return cmd
}

// runMember runs a member until SIGTERM.
func runMember(text string) error {
	var c memberConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	wal.SegmentSizeBytes = 4 << 20
	e, err := embed.StartEtcd(c.embed())
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	select {
	case <-terminated:
		e.Close()
		return nil
	case err := <-e.Err():
		return fmt.Errorf("etcd ended: %w", err)
	case <-e.Server.StopNotify():
		return fmt.Errorf("etcd stopped by itself")
	}
}

func (c memberConfig) embed() *embed.Config {
	at := func(address string) []url.URL { return []url.URL{{Scheme: "http", Host: address}} }
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = c.Name, filepath.Join(c.Dir, "data")
	cfg.TickMs, cfg.ElectionMs = tickMs, electionMs
	cfg.QuotaBackendBytes = c.Quota
	cfg.UnsafeNoFsync = c.Fast
	cfg.SnapshotCount = 2000 // so that a member that was cut off needs a snapshot
	cfg.SnapshotCatchUpEntries = 500
	cfg.ListenClientUrls, cfg.ListenPeerUrls = at(c.Client), at(c.Peer)
	cfg.AdvertisePeerUrls = at(c.Advertised)
	// No process listens there, so nodes use their configured addresses, which are their
	// own links.
	cfg.AdvertiseClientUrls = at("127.0.0.1:1")
	cfg.InitialCluster = c.Cluster
	if c.Joins {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	cfg.LogLevel, cfg.LogOutputs = "warn", []string{"stderr"}
	return cfg
}
