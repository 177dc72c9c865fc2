// Package attack attacks a node on this machine in one of several ways, and measures
// the starts, heartbeats and stops of other clients during the attack. The attacker
// connects from 127.0.0.1, the measured clients from 127.0.0.1 and 127.0.0.2.
package attack

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"streamcount/internal/retry"
)

// Config describes one attack.
type Config struct {
	Attack      string // one of Names
	Server      string // URL of the node, on a loopback address
	Connections int    // of the attacker
	Duration    time.Duration
	ProxiedFrom string // address of the attacker in a PROXY protocol header; "" for no header
}

// warmup is how long an attack runs before the clients are measured.
const warmup = 2 * time.Second

// Names returns the names of all attacks.
func Names() []string { return slices.Sorted(maps.Keys(attacks)) }

// Check returns an error that names the first invalid field.
func (cfg Config) Check() error {
	if attacks[cfg.Attack] == nil {
		return fmt.Errorf("there is no attack %q: the attacks are %s", cfg.Attack, strings.Join(Names(), ", "))
	}
	u, err := url.Parse(cfg.Server)
	if err == nil && u.Scheme == "http" {
		if addr, err := netip.ParseAddrPort(u.Host); err == nil && addr.Addr().IsLoopback() {
			if cfg.Duration <= warmup {
				return fmt.Errorf("duration: want more than %v", warmup)
			}
			return nil
		}
	}
	return fmt.Errorf("server %q: want a loopback address such as http://127.0.0.1:3000", cfg.Server)
}

// Run attacks a node and writes a report about its other clients to w. The result of
// cfg.Check must be nil.
func Run(ctx context.Context, cfg Config, w io.Writer) error {
	u, err := url.Parse(cfg.Server)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Duration)
	defer cancel()
	var attackers sync.WaitGroup
	for range cfg.Connections {
		attackers.Go(func() { cfg.repeat(ctx, u.Host) })
	}
	if err := retry.Sleep(ctx, warmup); err != nil {
		return err
	}
	same, other := startClients(ctx, u.Host, "127.0.0.1"), startClients(ctx, u.Host, "127.0.0.2")
	same.wait()
	other.wait()
	cancel()
	attackers.Wait()
	_, err = fmt.Fprintf(w, "%s over %d connections for %v\n%s%s", cfg.Attack, cfg.Connections, cfg.Duration, same, other)
	return err
}

// repeat runs the attack on one connection after another until ctx ends.
func (cfg Config) repeat(ctx context.Context, addr string) {
	for ctx.Err() == nil {
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
		if err != nil {
			_ = retry.Sleep(ctx, 100*time.Millisecond)
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		if cfg.ProxiedFrom != "" {
			_, err = fmt.Fprintf(c, "PROXY TCP4 %s 127.0.0.1 40000 3000\r\n", cfg.ProxiedFrom)
		}
		if err == nil {
			attacks[cfg.Attack](ctx, c)
		}
		stop()
		_ = c.Close()
		_ = retry.Sleep(ctx, 10*time.Millisecond)
	}
}
