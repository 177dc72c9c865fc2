package main

import (
	"github.com/spf13/cobra"

	"streamcount/internal/config"
	"streamcount/internal/node"
)

func (a *app) serveCommand() *cobra.Command {
	var cfg config.Config
	flags := cfg.Flags()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run one node of the service",
		Long: `Run one node of the service. Without flags it serves on 127.0.0.1:3000 and stores
its data in ./streamcount-data, in an embedded etcd. With --etcd-endpoints it uses
another etcd.

Each flag can also be set in the environment, for example ` + config.EnvPrefix + `LIMIT for --limit,
or in a YAML file named by --config, for example "limit: 3". The command line
overrides the environment, and the environment overrides the file. "streamcount
config print" prints the resulting values.`,
		Example: `  streamcount serve
  streamcount serve --demo --limit 5
  streamcount serve --etcd-endpoints http://etcd-1:2379,http://etcd-2:2379 --region eu --listen :3000 --auth-keys-file keys.yaml`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Load(flags, a.environ); err != nil {
				return err
			}
			return node.Run(cmd.Context(), &cfg, version, a.out, a.errOut)
		},
	}
	cmd.Flags().AddFlagSet(flags)
	return cmd
}
