package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"streamcount/internal/bench/peer"
)

// peerCommand is how bench starts a peer: as a process of its own.
func (a *app) peerCommand() *cobra.Command {
	var cfg peer.Config
	var listen string
	cmd := &cobra.Command{
		Use: "peer NAME", Hidden: true, Args: between(1, 1),
		Short: "Serve a benchmark's peer",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.Name = args[0]
			if err := peer.Check(cfg.Name); err != nil {
				return usageError{err}
			}
			return a.servePeer(cmd, cfg, listen)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:0", "`address` to serve HTTP on")
	f.StringVar(&cfg.Dir, "data-dir", "", "`directory` for its data")
	f.IntVar(&cfg.Limit, "limit", 3, "how many streams a user may have at once")
	f.DurationVar(&cfg.TTL, "ttl", 0, "how long a silent stream keeps its slot")
	f.StringSliceVar(&cfg.EtcdEndpoints, "etcd-endpoints", nil, "`addresses` of an etcd to use")
	f.StringVar(&cfg.EtcdPrefix, "etcd-prefix", "/streamcount", "what all etcd keys begin with")
	return cmd
}

func (a *app) servePeer(cmd *cobra.Command, cfg peer.Config, listen string) error {
	if cfg.Dir == "" {
		return usageError{errors.New("--data-dir: want a directory")}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	ctx := cmd.Context()
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", listen, err)
	}
	sink := newLogWriter(a.errOut)
	go sink.run()
	defer sink.close()
	logs := newLogs(sink, "warn", "text")
	cfg.Log, cfg.EtcdLog = logs.slog, logs.zap
	return peer.Run(ctx, cfg, ln, func() {
		_ = a.printf("peer %s serving http://%s\n", cfg.Name, ln.Addr()) // bench notices if it is not read
	})
}
