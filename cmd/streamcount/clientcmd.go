package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"streamcount/client"
)

// addClientFlags makes cmd a client of a running node.
func (a *app) addClientFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.server, "server", client.DefaultServer,
		"`address` of a running node (or "+envName("server")+" in the environment)")
	cmd.Flags().StringVar(&a.keyFile, "key-file", "",
		"`file` with the API key or token to call with (or "+envName("key-file")+" in the environment)")
	a.addJSONFlag(cmd)
}

// client makes the client that cmd's flags ask for.
func (a *app) client(cmd *cobra.Command, every time.Duration) (*client.Client, error) {
	flags := pflag.NewFlagSet("client", pflag.ContinueOnError)
	flags.AddFlag(cmd.Flags().Lookup("server"))
	flags.AddFlag(cmd.Flags().Lookup("key-file"))
	if _, err := resolve(flags, a.environ); err != nil {
		return nil, err
	}
	credential, err := a.credential()
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{Server: a.server, Every: every, Credential: credential})
}

// credential is what the key file holds, if there is one.
func (a *app) credential() (string, error) {
	if a.keyFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(a.keyFile)
	if err != nil {
		return "", usageError{fmt.Errorf("key-file: %w", err)}
	}
	credential := strings.TrimSpace(string(b))
	if credential == "" || strings.ContainsFunc(credential, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usageError{fmt.Errorf("key-file %q: want one key or token and nothing else", a.keyFile)}
	}
	return credential, nil
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
