package node

import (
	"cmp"
	"context"
	"io"

	"streamcount/internal/config"
	"streamcount/shard"
)

// WithRouter calls f with a router over the shards of the service that cfg names, without
// running a node. actor identifies the caller in audit logs. Warnings are logged to errOut.
func WithRouter(
	ctx context.Context, cfg *config.Config, actor string, errOut io.Writer, f func(context.Context, *shard.Router) error,
) error {
	if cfg.Embedded() {
		return config.Errorf("no etcd is named: name one shard of the service with --shard NAME=ADDRESSES, or the " +
			"only etcd of a service without shards with --etcd-endpoints; an embedded etcd has no other shards")
	}
	if len(cfg.Shards) > 1 {
		cfg.Shards = cfg.Shards[:1]
	}
	sink := newLogWriter(errOut)
	go sink.run()
	defer sink.close()
	b := &backend{cfg: cfg, logs: newLogger(sink, "warn", cfg.LogFormat), actor: actor}
	router, err := b.newRouter(false)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	select {
	case <-router.Ready():
		err = f(ctx, router)
	case err = <-done:
		stop()
		return cmp.Or(err, context.Cause(ctx))
	}
	stop()
	return cmp.Or(err, <-done)
}
