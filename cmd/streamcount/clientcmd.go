package main

import (
	"cmp"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"streamcount/client"
)

// addClientFlags makes cmd a client of a running node.
func (a *app) addClientFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.server, "server", client.DefaultServer,
		"`address` of a running node (or "+envName("server")+" in the environment)")
	a.addJSONFlag(cmd)
}

// client makes the client that cmd's flags ask for.
func (a *app) client(cmd *cobra.Command, every time.Duration) (*client.Client, error) {
	server := pflag.NewFlagSet("client", pflag.ContinueOnError)
	server.AddFlag(cmd.Flags().Lookup("server"))
	if _, err := resolve(server, a.environ); err != nil {
		return nil, err
	}
	return client.New(client.Config{Server: a.server, Every: every})
}

// call runs one call of a client and shows its answer.
func call[T any](
	a *app, cmd *cobra.Command, do func(*client.Client) (T, error), show func(T) error,
) (err error) {
	c, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, c.Close(cmd.Context())) }()
	answer, err := do(c)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(answer)
	}
	return show(answer)
}
