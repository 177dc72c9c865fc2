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

// memberVariable makes the test binary a member of etcd, which it describes.
const memberVariable = "STREAMCOUNT_TORTURE_MEMBER"

// memberConfig is what a member's process is told.
type memberConfig struct {
	Name    string
	Dir     string
	Client  string // where it serves clients
	Peer    string // where it serves the other members
	Reached string // where they reach it
	Cluster string // name=reached,... of all
	Joins   bool   // a cluster that exists already
	Quota   int64
	Fast    bool // no fsync
}

// Elections take about a second, so that a minute sees many of them. The shortest
// lease that such an etcd grants is far below the TTLs used here.
const (
	tickMs     = 50
	electionMs = 500
)

// command runs this test binary again, as the member.
func (c memberConfig) command() *exec.Cmd {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), memberVariable+"="+string(text))
	return cmd
}

// runMember is the member's process.
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
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	select {
	case <-told:
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
	cfg.SnapshotCount = 2000 // so that a member that was away needs a snapshot
	cfg.SnapshotCatchUpEntries = 500
	cfg.ListenClientUrls, cfg.ListenPeerUrls = at(c.Client), at(c.Peer)
	cfg.AdvertisePeerUrls = at(c.Reached)
	// Nobody is there: nodes fall back on the addresses that they were told, each
	// of which is a link of their own.
	cfg.AdvertiseClientUrls = at("127.0.0.1:1")
	cfg.InitialCluster = c.Cluster
	if c.Joins {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	cfg.LogLevel, cfg.LogOutputs = "warn", []string{"stderr"}
	return cfg
}
