package config

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"streamcount/shard"
)

// ShardList is the value of a flag that may be repeated. In an environment variable the
// shards are separated by spaces.
type ShardList []shard.Shard

var _ pflag.SliceValue = (*ShardList)(nil)

// Set adds shards. Elements are separated by commas and white space, and an element of the
// form NAME=ADDRESS begins a shard.
func (l *ShardList) Set(text string) error {
	var shards []string
	for _, part := range strings.FieldsFunc(text, isSeparator) {
		if strings.Contains(part, "=") || len(shards) == 0 {
			shards = append(shards, part)
			continue
		}
		shards[len(shards)-1] = strings.TrimSuffix(shards[len(shards)-1], ",") + "," + part
	}
	for _, one := range shards {
		if err := l.Append(one); err != nil {
			return err
		}
	}
	return nil
}

// Append adds one shard.
func (l *ShardList) Append(text string) error {
	s, err := shard.Parse(text)
	if err == nil {
		*l = append(*l, s)
	}
	return err
}

// Replace sets the list to the shards in texts.
func (l *ShardList) Replace(texts []string) error {
	*l = nil
	for _, text := range texts {
		if err := l.Set(text); err != nil {
			return err
		}
	}
	return nil
}

// GetSlice returns the shards in the form that Set parses.
func (l *ShardList) GetSlice() []string {
	out := make([]string, 0, len(*l))
	for _, s := range *l {
		out = append(out, s.String())
	}
	return out
}

func (l *ShardList) String() string { return strings.Join(l.GetSlice(), " ") }

// Type returns the name of the type for help texts.
func (l *ShardList) Type() string { return "shards" }

// checkShards validates the shards.
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
		"cannot be combined with etcd-endpoints: name the first etcd cluster with --shard default=ADDRESSES")
}

// EtcdClusters returns the etcd clusters that are configured. The embedded etcd has no
// addresses.
func (c *Config) EtcdClusters() []shard.Shard {
	if len(c.Shards) > 0 {
		return c.Shards
	}
	return []shard.Shard{{Name: shard.Default, Endpoints: c.EtcdEndpoints}}
}

// NearEndpoints returns the endpoints that are in the region of this node.
func (c *Config) NearEndpoints(endpoints []string) []string {
	var out []string
	for _, e := range endpoints {
		if slices.Contains(c.EtcdNear, e) {
			out = append(out, e)
		}
	}
	return out
}

// checkNear checks that the near addresses are addresses of an etcd cluster of the node.
func (c *Config) checkNear() error {
	for _, e := range c.EtcdNear {
		known := slices.ContainsFunc(c.EtcdClusters(), func(s shard.Shard) bool { return slices.Contains(s.Endpoints, e) })
		if err := c.check(known, "etcd-near", e, "want addresses that are also in etcd-endpoints or shard"); err != nil {
			return err
		}
	}
	return nil
}

// Embedded reports whether the node runs an embedded etcd.
func (c *Config) Embedded() bool { return len(c.EtcdEndpoints) == 0 && len(c.Shards) == 0 }
