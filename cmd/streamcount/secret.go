package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"streamcount/cluster"
	"streamcount/internal/config"
	"streamcount/internal/node"
	"streamcount/lease/streamid"
	"streamcount/shard"
)

func (a *app) secretCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Change the secret that signs stream ids",
		Long: `Change the secret that signs stream ids. These commands connect to etcd, so they have
the flags of "streamcount serve" that configure the connection: --etcd-endpoints,
--shard or --data-dir, and --config FILE. Running nodes use the change within
seconds.`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.secretStatusCommand(), a.secretRotateCommand(), a.secretRetireCommand())
	return cmd
}

// secretSubcommand completes cmd. run is called with a router.
func (a *app) secretSubcommand(cmd *cobra.Command, run func(context.Context, *shard.Router) error) *cobra.Command {
	var cfg config.Config
	flags := cfg.Flags()
	cmd.Args = argRange(0, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := cfg.Load(flags, a.environ); err != nil {
			return err
		}
		if cfg.Embedded() {
			cfg.EtcdEndpoints = []string{cluster.SocketURL(cfg.DataDir)}
		}
		return node.WithRouter(cmd.Context(), &cfg, commandActor(), a.errOut, run)
	}
	cmd.Flags().AddFlagSet(flags)
	a.addJSONFlag(cmd)
	return cmd
}

func (a *app) secretStatusCommand() *cobra.Command {
	return a.secretSubcommand(&cobra.Command{
		Use:   "status",
		Short: "Show how many secrets are accepted, and when the newest was created",
		Example: `  streamcount secret status --etcd-endpoints http://etcd-1:2379
  streamcount secret status --data-dir ./streamcount-data`,
	}, func(ctx context.Context, r *shard.Router) error {
		s, err := r.ChangeSecrets(ctx, func(s streamid.Secrets) (streamid.Secrets, error) { return s, nil })
		if err != nil {
			return err
		}
		return a.printSecrets(s)
	})
}

func (a *app) secretRotateCommand() *cobra.Command {
	return a.secretSubcommand(&cobra.Command{
		Use:   "rotate",
		Short: "Add a secret, which signs new stream ids",
		Long: `Add a secret, which signs new stream ids. Existing ids remain valid until "streamcount
secret retire". All nodes must have a version with this command, because earlier
versions do not accept the new ids.`,
		Example: "  streamcount secret rotate --etcd-endpoints http://etcd-1:2379",
	}, func(ctx context.Context, r *shard.Router) error {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails (crypto/rand)
		s, err := r.ChangeSecrets(ctx, func(s streamid.Secrets) (streamid.Secrets, error) { return s.Rotate(secret, time.Now()) })
		if err != nil {
			return err
		}
		return a.printSecrets(s)
	})
}

func (a *app) secretRetireCommand() *cobra.Command {
	var force bool
	cmd := a.secretSubcommand(&cobra.Command{
		Use:   "retire",
		Short: "Accept only stream ids of the newest secret",
		Long: `Accept only stream ids of the newest secret. The command fails while streams exist that
may have ids of an older secret, because their heartbeats would be rejected and they
would end. With --force it ends them.`,
		Example: "  streamcount secret retire --etcd-endpoints http://etcd-1:2379",
	}, func(ctx context.Context, r *shard.Router) error {
		s, err := r.ChangeSecrets(ctx, func(s streamid.Secrets) (streamid.Secrets, error) {
			n, err := 0, error(nil)
			if !force {
				n, err = r.StartedBefore(ctx, s.Created().Add(secretOverlap))
			}
			if err != nil || n > 0 && s.Len() > 1 {
				return s, orElse(err, fmt.Errorf("%d of the active streams may have ids of an older secret: wait until they have ended, "+
					"or end them with --force", n))
			}
			return s.RetireOld(), nil
		})
		if err != nil {
			return err
		}
		return a.printSecrets(s)
	})
	cmd.Flags().BoolVar(&force, "force", false, "retire the older secrets even if that ends streams")
	return cmd
}

// secretOverlap is how long nodes may issue ids with an older secret after a rotation,
// including the maximum difference of their clocks.
const secretOverlap = 2 * time.Minute

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func (a *app) printSecrets(s streamid.Secrets) error {
	if a.json {
		return a.printJSON(struct {
			Accepted int       `json:"accepted"`
			Created  time.Time `json:"created,omitzero"` // when the newest was created; omitted for the initial secret
		}{s.Len(), s.Created()})
	}
	created := "at the first start"
	if at := s.Created(); !at.IsZero() {
		created = at.UTC().Format(time.RFC3339)
	}
	return a.printf("%d accepted, the newest created %s\n", s.Len(), created)
}
