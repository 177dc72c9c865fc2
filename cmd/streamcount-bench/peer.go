package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"streamcount/internal/bench/peer"
)

// peerCommand serves a peer. Benchmarks start each peer as a process of this command.
func (a *app) peerCommand() *cobra.Command {
	var cfg peer.Config
	var listen string
	cmd := &cobra.Command{
		Use: "peer NAME", Hidden: true, Args: exactArgs(1),
		Short: "Serve a peer for a benchmark",
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
	f.IntVar(&cfg.Limit, "limit", 3, "maximum number of concurrent streams per user")
	f.DurationVar(&cfg.TTL, "ttl", 0, "how long a stream keeps its slot after its last heartbeat")
	f.StringSliceVar(&cfg.EtcdEndpoints, "etcd-endpoints", nil, "`addresses` of an etcd to use")
	f.StringVar(&cfg.EtcdPrefix, "etcd-prefix", "/streamcount", "prefix of all etcd keys")
	return cmd
}

func (a *app) servePeer(cmd *cobra.Command, cfg peer.Config, listen string) error {
	if cfg.Dir == "" {
		return usageError{errors.New("--data-dir: want a directory")}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("create the data directory: %w", err)
	}
	ctx := cmd.Context()
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(a.errOut)), zap.WarnLevel)
	cfg.Log, cfg.EtcdLog = slog.New(zapslog.NewHandler(core)), zap.New(core)
	return peer.Run(ctx, cfg, ln, func() {
		// A failed write needs no error here: the benchmark waits for this line.
		_, _ = fmt.Fprintf(a.out, "peer %s serving http://%s\n", cfg.Name, ln.Addr())
	})
}
