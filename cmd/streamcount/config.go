package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"streamcount/lease"
)

// Config is what "streamcount serve" runs on. Each field is a flag.
type Config struct {
	Listen           string
	DataDir          string
	EtcdEndpoints    []string
	EtcdNear         []string
	Shards           shardList
	EtcdPrefix       string
	EtcdCert         string
	EtcdKey          string
	EtcdCA           string
	EtcdUser         string
	EtcdPasswordFile string
	Limit            int
	TTL              time.Duration
	Cooldown         time.Duration
	OnOutage         string
	Region           string
	Node             string
	LogLevel         string
	LogFormat        string
	Demo             bool
	Drain            time.Duration
	Notice           time.Duration
	authConfig
	edgeConfig
	traceConfig

	file string // --config
	from sources
}

// flags is the only place where names and defaults are.
func (c *Config) flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	fs.StringVar(&c.Listen, "listen", "127.0.0.1:3000", "`address` to serve HTTP on; port 0 picks a free one")
	fs.StringVar(&c.DataDir, "data-dir", "./streamcount-data", "`directory` of the embedded etcd")
	fs.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", nil,
		"`addresses` of an etcd to use instead of the embedded one")
	fs.StringSliceVar(&c.EtcdNear, "etcd-near", nil,
		"those of etcd's `addresses` that are in this node's region: calls go there while they answer")
	fs.Var(&c.Shards, "shard",
		"`NAME=ADDRESSES` of one of several etcds to spread users over; repeat it for each (in the environment: spaces between)")
	fs.StringVar(&c.EtcdPrefix, "etcd-prefix", "/streamcount", "what all etcd keys begin with")
	fs.StringVar(&c.EtcdCert, "etcd-cert", "", "`file` with the client certificate for etcd")
	fs.StringVar(&c.EtcdKey, "etcd-key", "", "`file` with the key of that certificate")
	fs.StringVar(&c.EtcdCA, "etcd-ca", "", "`file` with the certificate that etcd's is signed by")
	fs.StringVar(&c.EtcdUser, "etcd-user", "", "`name` of the etcd user")
	fs.StringVar(&c.EtcdPasswordFile, "etcd-password-file", "", "`file` with the etcd user's password")
	fs.IntVar(&c.Limit, "limit", 3, "how many streams a user may have at once, 0 to 60")
	fs.DurationVar(&c.TTL, "ttl", lease.DefaultTTL, "how long a silent stream keeps its slot, 5s to 24h")
	fs.DurationVar(&c.Cooldown, "cooldown", time.Minute,
		"how long a device or session that was evicted may not evict in turn; 0s to 24h, 0s for not at all")
	fs.StringVar(&c.OnOutage, "on-outage", "deny",
		"`deny` starts while etcd does not answer, or admit them on what this node knows, to be written later")
	fs.StringVar(&c.Region, "region", "local", "`name` of the region this node runs in")
	fs.StringVar(&c.Node, "node", "", "`name` of this node (default the host's name and a random suffix)")
	fs.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	fs.BoolVar(&c.Demo, "demo", false, "simulate viewers, among them user 1, who always has one stream")
	fs.DurationVar(&c.Drain, "drain", 10*time.Second, "how long requests may take to finish at shutdown")
	fs.DurationVar(&c.Notice, "notice", 0,
		"how long a node that is told to stop says so at /readyz and still serves, so that load balancers see it")
	c.authConfig.register(fs)
	c.edgeConfig.register(fs)
	c.traceConfig.register(fs)
	fs.StringVar(&c.file, "config", "", "YAML `file` whose keys are these flags")
	return fs
}

// load fills c, of which fs are the flags, and checks it.
func (c *Config) load(fs *pflag.FlagSet, environ []string) error {
	if err := checkEnvironment(environ, flagNames(fs)); err != nil {
		return err
	}
	from, err := resolve(fs, environ)
	if err != nil {
		return err
	}
	c.from = from
	c.fromOtel(environ)
	return c.validate()
}

var (
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9._~@:|+=-]+$`)
	prefixPattern = regexp.MustCompile(`^(/[A-Za-z0-9._~@:|+=-]+)+$`)
)

const nameChars = "letters, digits and . _ ~ @ : | + = -"

// validate checks each value, and then which of them contradict each other.
func (c *Config) validate() error {
	return cmp.Or(
		c.checkAddress(),
		c.check(c.EtcdPrefix != "" && prefixPattern.MatchString(c.EtcdPrefix), "etcd-prefix", c.EtcdPrefix,
			"want a path such as /streamcount, of "+nameChars+", not ending in /"),
		c.check(c.Limit >= 0 && c.Limit <= lease.MaxLimit, "limit", strconv.Itoa(c.Limit),
			fmt.Sprintf("want 0 to %d", lease.MaxLimit)),
		c.check(c.TTL >= lease.MinTTL && c.TTL <= lease.MaxTTL && c.TTL%time.Second == 0, "ttl", c.TTL.String(),
			"want whole seconds, from 5s to 24h"),
		c.check(c.Cooldown >= 0 && c.Cooldown <= 24*time.Hour, "cooldown", c.Cooldown.String(), "want 0s to 24h"),
		c.check(c.OnOutage == "deny" || c.OnOutage == "admit", "on-outage", c.OnOutage, "want deny or admit"),
		c.check(len(c.Region) <= 64 && namePattern.MatchString(c.Region), "region", c.Region,
			"want 1 to 64 "+nameChars),
		c.check(c.Node == "" || len(c.Node) <= 128 && namePattern.MatchString(c.Node), "node", c.Node,
			"want 1 to 128 "+nameChars),
		c.check(level(c.LogLevel) != nil, "log-level", c.LogLevel, "want debug, info, warn or error"),
		c.check(c.LogFormat == "text" || c.LogFormat == "json", "log-format", c.LogFormat, "want text or json"),
		c.check(c.Drain >= 0, "drain", c.Drain.String(), "want 0s or more"),
		c.check(c.Notice >= 0, "notice", c.Notice.String(), "want 0s or more"),
		c.check(!c.Demo || c.Limit > 0, "demo", "true", "with limit 0 nobody can watch: raise limit"),
		c.checkAuth(),
		c.checkEdge(),
		c.checkTrace(),
		c.checkShards(),
		c.checkNear(),
		c.checkEtcd(),
	)
}

// check is an error about key unless ok.
func (c *Config) check(ok bool, key, value, want string) error {
	if ok {
		return nil
	}
	return usageError{fmt.Errorf("%s %q (from %s): %s", key, value, c.source(key), want)}
}

func (c *Config) source(key string) string { return cmp.Or(c.from[key], fromDefault) }

func (c *Config) checkAddress() error {
	host, _, _ := net.SplitHostPort(c.Listen) // an error of which checkListen reports
	return cmp.Or(
		c.checkListen(),
		c.check(c.AuthNone || isLoopback(host) || c.access(nil).Configured(), "listen", c.Listen,
			"other machines can reach this address, and whoever does may act for any user: listen on 127.0.0.1, "+
				"set auth-keys-file or a source of viewers' tokens, or set auth-none if something in front of the "+
				"service decides who may call"),
	)
}

// checkListen wants an address, whoever may reach it.
func (c *Config) checkListen() error {
	_, port, err := net.SplitHostPort(c.Listen)
	_, portErr := strconv.ParseUint(port, 10, 16)
	return c.check(err == nil && portErr == nil, "listen", c.Listen, "want HOST:PORT, such as 127.0.0.1:3000 or :3000")
}

// isLoopback reports whether only this machine reaches host.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkEtcd wants either the embedded etcd or another, and what belongs to it.
func (c *Config) checkEtcd() error {
	if c.embedded() {
		for _, f := range []struct{ key, value string }{
			{"etcd-cert", c.EtcdCert}, {"etcd-key", c.EtcdKey}, {"etcd-ca", c.EtcdCA},
			{"etcd-user", c.EtcdUser}, {"etcd-password-file", c.EtcdPasswordFile},
		} {
			if err := c.check(f.value == "", f.key, f.value,
				"the embedded etcd needs none: remove it, or name another etcd with etcd-endpoints"); err != nil {
				return err
			}
		}
		return c.check(c.DataDir != "", "data-dir", "", "want a directory for the embedded etcd")
	}
	other, named := "etcd-endpoints", strings.Join(c.EtcdEndpoints, ",")
	if len(c.Shards) > 0 {
		other, named = "shard", c.Shards.String()
	}
	embedded := c.source("data-dir") != fromDefault
	return cmp.Or(
		c.checkAddresses("etcd-endpoints", c.EtcdEndpoints),
		c.check(!embedded, "data-dir", c.DataDir, fmt.Sprintf("is for the embedded etcd, but %s %q "+
			"(from %s) names another: remove one of the two", other, named, c.source(other))),
		c.check(c.EtcdCert == "" || c.EtcdKey != "", "etcd-cert", c.EtcdCert, "needs its key: set etcd-key too"),
		c.check(c.EtcdKey == "" || c.EtcdCert != "", "etcd-key", c.EtcdKey,
			"needs its certificate: set etcd-cert too"),
		c.check(c.EtcdUser == "" || c.EtcdPasswordFile != "", "etcd-user", c.EtcdUser,
			"needs a password: set etcd-password-file too"),
		c.check(c.EtcdPasswordFile == "" || c.EtcdUser != "", "etcd-password-file", c.EtcdPasswordFile,
			"is nobody's password: set etcd-user too"),
	)
}

// checkAddresses does not repeat an address that may hold a password.
func (c *Config) checkAddresses(key string, addresses []string) error {
	for _, e := range addresses {
		if strings.Contains(e, "@") {
			return c.check(false, key, "***@***",
				"want no user in an address: use etcd-user and etcd-password-file")
		}
		host := strings.TrimPrefix(strings.TrimPrefix(e, "https://"), "http://")
		if _, _, err := net.SplitHostPort(host); err != nil {
			return c.check(false, key, e, "want addresses such as 10.0.0.1:2379 or https://etcd1:2379")
		}
	}
	return nil
}

// level is nil for a name that is none.
func level(name string) *slog.Level {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	if l, ok := levels[name]; ok {
		return &l
	}
	return nil
}

// hostName is the host's name with only the characters of a node's.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "node"
	}
	clean := regexp.MustCompile(`[^A-Za-z0-9._-]+`).ReplaceAllString(name, "-")
	return cmp.Or(clean[:min(len(clean), 100)], "node")
}

// nodeName is the configured one, or one that no other process has.
func (c *Config) nodeName() string {
	if c.Node != "" {
		return c.Node
	}
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	suffix := make([]byte, 6)
	for i := range suffix {
		suffix[i] = alphabet[rand.N(len(alphabet))]
	}
	return hostName() + "-" + string(suffix)
}
