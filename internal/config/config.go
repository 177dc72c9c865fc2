// Package config reads the configuration of a node from flags, environment variables and
// a YAML file, and validates it.
package config

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"streamcount/lease"
	"streamcount/lease/policy"
)

// The values of --audit-file that are not the path of a file.
const (
	AuditOff    = "off"
	AuditStderr = "stderr"
	AuditStdout = "stdout"
)

// Config is the configuration of a node. Each exported field is a flag of "streamcount serve".
type Config struct {
	Listen           string
	DataDir          string
	EtcdEndpoints    []string
	EtcdNear         []string
	Shards           ShardList
	EtcdPrefix       string
	EtcdCert         string
	EtcdKey          string
	EtcdCA           string
	EtcdUser         string
	EtcdPasswordFile string
	// EtcdInsecurePassword allows sending the password without TLS.
	EtcdInsecurePassword bool
	Limit                int
	TTL                  time.Duration
	Cooldown             time.Duration
	MaxStreamAge         time.Duration
	OnOutage             string
	Region               string
	Node                 string
	LogLevel             string
	LogFormat            string
	AuditFile            string
	MaxStreams           int
	Demo                 bool
	Memory               string
	Drain                time.Duration
	ShutdownDelay        time.Duration
	authConfig
	edgeConfig
	loadConfig
	traceConfig
	edgeListenConfig
	tokenConfig

	file string // --config
	from sources
}

// Flags returns the flags of "streamcount serve", which set c. It defines all names and
// defaults.
func (c *Config) Flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	fs.StringVar(&c.Listen, "listen", "127.0.0.1:3000", "`address` (HOST:PORT) to serve HTTP on; port 0 selects a free port")
	fs.StringVar(&c.DataDir, "data-dir", "./streamcount-data", "data `directory` of the embedded etcd")
	listVar(fs, &c.EtcdEndpoints, "etcd-endpoints",
		"`addresses` of the members of an etcd cluster to use instead of the embedded etcd")
	listVar(fs, &c.EtcdNear, "etcd-near",
		"`addresses` from etcd-endpoints or shard that are in this node's region; preferred while healthy")
	fs.Var(&c.Shards, "shard",
		"`NAME=ADDRESSES` of one shard, if users are distributed over several etcd clusters; repeat for each shard")
	fs.StringVar(&c.EtcdPrefix, "etcd-prefix", "/streamcount", "`prefix` of all etcd keys")
	fs.StringVar(&c.EtcdCert, "etcd-cert", "", "`file` with the client certificate for etcd (PEM)")
	fs.StringVar(&c.EtcdKey, "etcd-key", "", "`file` with the private key of etcd-cert (PEM)")
	fs.StringVar(&c.EtcdCA, "etcd-ca", "", "`file` with the certificate of the authority that signed the certificates of etcd (PEM)")
	fs.StringVar(&c.EtcdUser, "etcd-user", "", "`name` of the etcd user; requires etcd-password-file")
	fs.StringVar(&c.EtcdPasswordFile, "etcd-password-file", "", "`file` with the password of the etcd user; it may change while the node runs")
	fs.BoolVar(&c.EtcdInsecurePassword, "etcd-insecure-password", false,
		"send the password to other machines without TLS, where it can be read on the network")
	fs.IntVar(&c.Limit, "limit", 3, "maximum `number` of concurrent streams of a user without a plan, 0 to 60; 0 blocks")
	fs.IntVar(&c.MaxStreams, "max-streams-per-user", policy.MaxLimit,
		"maximum `number` of concurrent streams of any user, even if a plan does not count all of them, 1 to 60")
	fs.DurationVar(&c.TTL, "ttl", lease.DefaultTTL, "how long a stream remains active after its last heartbeat, 5s to 24h in whole seconds")
	fs.DurationVar(&c.Cooldown, "cooldown", time.Minute,
		"after being evicted, how long a device or session may not evict others, 0s to 24h; 0s disables")
	fs.DurationVar(&c.MaxStreamAge, "max-stream-age", 0,
		"how long after its start a stream ends even if heartbeats continue, 1h or more; 0s disables")
	fs.StringVar(&c.OnOutage, "on-outage", "deny",
		"`policy` for starts while etcd is unavailable: deny, or admit by the local replica and write them later")
	fs.StringVar(&c.Region, "region", "local", "`name` of the region in which this node runs")
	fs.StringVar(&c.Node, "node", "", "unique `name` of this node (default host name and a random suffix)")
	fs.StringVar(&c.LogLevel, "log-level", "info", "minimum `level` of log lines: debug, info, warn or error")
	fs.StringVar(&c.LogFormat, "log-format", "text", "`format` of the log: text or json")
	fs.StringVar(&c.AuditFile, "audit-file", AuditStderr,
		"`file` of the audit log (JSON); or stderr or stdout (in log-format); or off")
	fs.StringVar(&c.Memory, "memory", "",
		"`size` of the memory that the node may use, such as 2GiB; more memory means fewer garbage collections "+
			"(default GOMEMLIMIT, or else the limit of the cgroup)")
	fs.BoolVar(&c.Demo, "demo", false, "simulate viewers; user 1 always has one stream")
	fs.DurationVar(&c.Drain, "drain", 10*time.Second, "how long the node waits at shutdown for requests in progress, 0s or more")
	fs.DurationVar(&c.ShutdownDelay, "shutdown-delay", 0,
		"how long the node keeps serving after SIGTERM while /readyz returns 503, so that load balancers stop sending requests")
	c.authConfig.register(fs)
	c.edgeConfig.register(fs)
	c.loadConfig.register(fs)
	c.traceConfig.register(fs)
	c.edgeListenConfig.register(fs)
	c.tokenConfig.register(fs)
	fs.StringVar(&c.file, "config", "", "YAML `file` with values of these flags; its keys are the names of the flags")
	return fs
}

// Load sets c, whose flags are fs, from the environment and the config file, and validates
// it.
func (c *Config) Load(fs *pflag.FlagSet, environ []string) error {
	if err := checkEnvironment(environ, FlagNames(fs)); err != nil {
		return err
	}
	from, err := Resolve(fs, environ)
	if err != nil {
		return err
	}
	c.from = from
	c.readOTelVariables(environ)
	c.normalizeEndpoints()
	return c.validate()
}

var (
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9._~@:|+=-]+$`)
	prefixPattern = regexp.MustCompile(`^(/[A-Za-z0-9._~@:|+=-]+)+$`)
)

const nameChars = "letters, digits and . _ ~ @ : | + = -"

// validate checks each value, then the combinations of values.
func (c *Config) validate() error {
	return cmp.Or(
		c.checkAddress(),
		c.check(c.EtcdPrefix != "" && prefixPattern.MatchString(c.EtcdPrefix), "etcd-prefix", c.EtcdPrefix,
			"want a path such as /streamcount, of "+nameChars+", not ending in /"),
		c.check(c.Limit >= 0 && c.Limit <= policy.MaxLimit, "limit", strconv.Itoa(c.Limit),
			fmt.Sprintf("want 0 to %d", policy.MaxLimit)),
		c.check(c.MaxStreams >= 1 && c.MaxStreams <= policy.MaxLimit, "max-streams-per-user", strconv.Itoa(c.MaxStreams),
			fmt.Sprintf("want 1 to %d", policy.MaxLimit)),
		c.check(c.TTL >= lease.MinTTL && c.TTL <= lease.MaxTTL && c.TTL%time.Second == 0, "ttl", c.TTL.String(),
			"want whole seconds, from 5s to 24h"),
		c.check(c.Cooldown >= 0 && c.Cooldown <= 24*time.Hour, "cooldown", c.Cooldown.String(), "want 0s to 24h"),
		c.check(c.MaxStreamAge == 0 || c.MaxStreamAge >= lease.MinStreamAge, "max-stream-age", c.MaxStreamAge.String(),
			"want 1h or more, or 0s for never"),
		c.check(c.OnOutage == "deny" || c.OnOutage == "admit", "on-outage", c.OnOutage, "want deny or admit"),
		c.check(len(c.Region) <= 64 && namePattern.MatchString(c.Region), "region", c.Region,
			"want 1 to 64 "+nameChars),
		c.check(c.Node == "" || len(c.Node) <= 128 && namePattern.MatchString(c.Node), "node", c.Node,
			"want 1 to 128 "+nameChars),
		c.check(logLevel(c.LogLevel) != nil, "log-level", c.LogLevel, "want debug, info, warn or error"),
		c.check(c.LogFormat == "text" || c.LogFormat == "json", "log-format", c.LogFormat, "want text or json"),
		c.check(c.AuditFile != "", "audit-file", "", "want a file, stderr, stdout or off"),
		c.check(c.Memory == "" || c.MemoryBytes() >= 64<<20 && c.MemoryBytes() <= math.MaxInt64, "memory", c.Memory,
			"want a size such as 2GiB, 64MiB or more"),
		c.check(c.Drain >= 0, "drain", c.Drain.String(), "want 0s or more"),
		c.check(c.ShutdownDelay >= 0, "shutdown-delay", c.ShutdownDelay.String(), "want 0s or more"),
		c.check(!c.Demo || c.Limit > 0, "demo", "true", "requires a limit of 1 or more"),
		c.checkAuth(),
		c.checkEdge(),
		c.checkLoad(),
		c.checkTrace(),
		c.checkEdgeListen(),
		c.checkTokens(),
		c.checkShards(),
		c.checkNear(),
		c.checkEtcd(),
	)
}

// check returns nil if ok, and an error about the value of key otherwise.
func (c *Config) check(ok bool, key, value, want string) error {
	if ok {
		return nil
	}
	return Errorf("%s %q (from %s): %s", key, RedactURLs(value), c.Source(key), want)
}

// Source returns the source of the value of a setting.
func (c *Config) Source(key string) string { return cmp.Or(c.from[key], FromDefault) }

func (c *Config) checkAddress() error {
	host, _, _ := net.SplitHostPort(c.Listen) // checkListen reports the error
	return cmp.Or(
		c.checkListen(),
		c.check(c.AuthNone || isLoopback(host) || c.Access(nil).Configured(), "listen", c.Listen,
			"other machines can connect to this address and would need no credential to act for any user: listen on "+
				"127.0.0.1, set auth-keys-file or a source of viewers' tokens, or set auth-none if a proxy "+
				"authenticates all callers"),
	)
}

// MemoryBytes returns the configured size of the memory in bytes, or 0 if there is none.
func (c *Config) MemoryBytes() uint64 {
	size, err := humanize.ParseBytes(c.Memory)
	if err != nil {
		return 0 // validate rejects it
	}
	return size
}

// checkListen validates the address to listen on.
func (c *Config) checkListen() error {
	_, port, err := net.SplitHostPort(c.Listen)
	_, portErr := strconv.ParseUint(port, 10, 16)
	return c.check(err == nil && portErr == nil, "listen", c.Listen, "want HOST:PORT, such as 127.0.0.1:3000 or :3000")
}

// isLoopback reports whether host is reachable only from this machine.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkEtcd checks that either the embedded etcd or another etcd is configured completely.
func (c *Config) checkEtcd() error {
	if c.Embedded() {
		for _, f := range []struct{ key, value string }{
			{"etcd-cert", c.EtcdCert}, {"etcd-key", c.EtcdKey}, {"etcd-ca", c.EtcdCA},
			{"etcd-user", c.EtcdUser}, {"etcd-password-file", c.EtcdPasswordFile},
		} {
			if err := c.check(f.value == "", f.key, f.value,
				"does not apply to the embedded etcd: remove it, or set etcd-endpoints"); err != nil {
				return err
			}
		}
		return c.check(c.DataDir != "", "data-dir", "", "want the data directory of the embedded etcd")
	}
	other, named := "etcd-endpoints", strings.Join(c.EtcdEndpoints, ",")
	if len(c.Shards) > 0 {
		other, named = "shard", c.Shards.String()
	}
	embedded := c.Source("data-dir") != FromDefault
	return cmp.Or(
		c.checkAddresses("etcd-endpoints", c.EtcdEndpoints),
		c.check(!embedded, "data-dir", c.DataDir, fmt.Sprintf("applies to the embedded etcd and cannot be combined with %s %q "+
			"(from %s): remove one of them", other, named, c.Source(other))),
		c.check(c.EtcdCert == "" || c.EtcdKey != "", "etcd-cert", c.EtcdCert, "requires etcd-key"),
		c.check(c.EtcdKey == "" || c.EtcdCert != "", "etcd-key", c.EtcdKey,
			"requires etcd-cert"),
		c.check(c.EtcdUser == "" || c.EtcdPasswordFile != "", "etcd-user", c.EtcdUser,
			"requires etcd-password-file"),
		c.check(c.EtcdPasswordFile == "" || c.EtcdUser != "", "etcd-password-file", c.EtcdPasswordFile,
			"requires etcd-user"),
	)
}

// logLevel returns the level of that name, or nil.
func logLevel(name string) *slog.Level {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	if l, ok := levels[name]; ok {
		return &l
	}
	return nil
}

// HostName returns the name of the host, with characters that are not allowed in node names
// replaced.
func HostName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "node"
	}
	clean := regexp.MustCompile(`[^A-Za-z0-9._-]+`).ReplaceAllString(name, "-")
	return cmp.Or(clean[:min(len(clean), 100)], "node")
}

// NewNodeName returns the configured name of the node, or a new unique name.
func (c *Config) NewNodeName() string {
	if c.Node != "" {
		return c.Node
	}
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	suffix := make([]byte, 6)
	for i := range suffix {
		suffix[i] = alphabet[rand.N(len(alphabet))]
	}
	return HostName() + "-" + string(suffix)
}
