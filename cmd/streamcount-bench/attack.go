package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"streamcount/internal/bench/attack"
)

func (a *app) attackCommand() *cobra.Command {
	var cfg attack.Config
	cmd := &cobra.Command{
		Use:       "attack " + strings.Join(attack.Names(), "|"),
		Short:     "Attack a node on this machine and measure its other clients",
		Args:      exactArgs(1),
		ValidArgs: attack.Names(),
		Long: `Open connections to a node on this machine, misuse them in one of several ways, and
measure the starts, heartbeats and stops of other clients during the attack. The
attacker connects from 127.0.0.1, the measured clients from 127.0.0.1 and 127.0.0.2.

  batch    sends heartbeat batches of 170,000 empty members
  bodies   announces a body of one byte and does not send it, for a call that needs no body
  headers  sends one header byte every 100 ms
  idle     sends nothing
  large    sends half of a large body
  starts   announces a body and does not complete it, for a call that reads its body`,
		Example: "  streamcount-bench attack bodies --server http://127.0.0.1:3000 --connections 4300",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.Attack = args[0]
			if err := cfg.Check(); err != nil {
				return usageError{err}
			}
			return attack.Run(cmd.Context(), cfg, a.out)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&cfg.Server, "server", "http://127.0.0.1:3000", "`URL` of the node, on a loopback address")
	f.IntVar(&cfg.Connections, "connections", 4300, "number of connections of the attacker")
	f.DurationVar(&cfg.Duration, "duration", 15*time.Second, "how long the attack lasts")
	f.StringVar(&cfg.ProxiedFrom, "proxied-from", "", "`address` of the attacker in a PROXY protocol header; default no header")
	return cmd
}
