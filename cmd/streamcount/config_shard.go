package main

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"streamcount/shard"
)

// shardList is the value of a flag that may be repeated. In the environment the
// shards are separated by spaces.
type shardList []shard.Shard

var _ pflag.SliceValue = (*shardList)(nil)

// Set adds shards.
func (l *shardList) Set(text string) error {
	for _, part := range strings.Fields(text) {
		if err := l.Append(part); err != nil {
			return err
		}
	}
	return nil
}

// Append adds one shard.
func (l *shardList) Append(text string) error {
	s, err := shard.Parse(text)
	if err == nil {
		*l = append(*l, s)
	}
	return err
}

// Replace makes texts the shards.
func (l *shardList) Replace(texts []string) error {
	*l = nil
	for _, text := range texts {
		if err := l.Append(text); err != nil {
			return err
		}
	}
	return nil
}

// GetSlice returns the shards as they are set.
func (l *shardList) GetSlice() []string {
	out := make([]string, 0, len(*l))
	for _, s := range *l {
		out = append(out, s.String())
	}
	return out
}

func (l *shardList) String() string { return strings.Join(l.GetSlice(), " ") }

// Type names the value's kind for help and errors.
func (l *shardList) Type() string { return "shards" }

// checkShards wants shards, or one etcd.
func (c *Config) checkShards() error {
	if len(c.Shards) == 0 {
		return nil
	}
	text := c.Shards.String()
	if err := shard.Check(c.Shards); err != nil {
		return c.check(false, "shard", text, err.Error())
	}
	for _, s := range c.Shards {
		if err := c.checkAddresses("shard", s.Endpoints); err != nil {
			return err
		}
	}
	return c.check(len(c.EtcdEndpoints) == 0, "shard", text,
		"etcd-endpoints names an etcd, too: for several use shard alone, with the first as default=ADDRESSES")
}

// shards are the etcd clusters that the node is told of. The embedded one has no
// addresses.
func (c *Config) shards() []shard.Shard {
	if len(c.Shards) > 0 {
		return c.Shards
	}
	return []shard.Shard{{Name: shard.Default, Endpoints: c.EtcdEndpoints}}
}

// near are those of an etcd's addresses that are in this node's region.
func (c *Config) near(endpoints []string) []string {
	var out []string
	for _, e := range endpoints {
		if slices.Contains(c.EtcdNear, e) {
			out = append(out, e)
		}
	}
	return out
}

// checkNear wants addresses of some etcd of the node's.
func (c *Config) checkNear() error {
	for _, e := range c.EtcdNear {
		known := slices.ContainsFunc(c.shards(), func(s shard.Shard) bool { return slices.Contains(s.Endpoints, e) })
		if err := c.check(known, "etcd-near", e, "want addresses as they stand in etcd-endpoints or shard"); err != nil {
			return err
		}
	}
	return nil
}

// embedded reports whether the node runs an etcd of its own.
func (c *Config) embedded() bool { return len(c.EtcdEndpoints) == 0 && len(c.Shards) == 0 }
