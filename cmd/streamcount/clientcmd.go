package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"streamcount/client"
	"streamcount/internal/config"
	"streamcount/internal/filewatch"
)

// addClientFlags adds the flags of a client of a running node.
func (a *app) addClientFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.server, "server", client.DefaultServer,
		"`address` of a running node (or "+config.EnvName("server")+" in the environment)")
	cmd.Flags().StringVar(&a.keyFile, "key-file", "",
		"`file` with the API key or token (or "+config.EnvName("key-file")+" in the environment)")
	cmd.Flags().BoolVar(&a.plaintext, "plaintext-key", false,
		"send the key to other machines over http://, where it can be read on the network")
	a.addJSONFlag(cmd)
}

// client returns the client that the flags of cmd configure.
func (a *app) client(cmd *cobra.Command, every time.Duration) (*client.Client, error) {
	if err := a.resolve(cmd, "server", "key-file", "plaintext-key"); err != nil {
		return nil, err
	}
	credential, err := a.credential()
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{
		Server: a.server, Every: every, Credential: credential, PlaintextCredential: a.plaintext,
	})
	if errors.Is(err, client.ErrPlaintext) {
		return nil, usageError{fmt.Errorf("%w, or add --plaintext-key", err)}
	}
	return c, err
}

// resolve gives the named flags of cmd the values in the environment, unless they are set.
func (a *app) resolve(cmd *cobra.Command, names ...string) error {
	flags := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
	for _, name := range names {
		flags.AddFlag(cmd.Flags().Lookup(name))
	}
	_, err := config.Resolve(flags, a.environ)
	return err
}

// arguments formats user and more as arguments for a shell. An argument that begins with a
// hyphen is preceded by "--", so flags must come before all arguments.
func arguments(user string, more ...string) string {
	words := []string{shellWord(user)}
	if strings.HasPrefix(user, "-") || looksLikeDuration(user) { // --every would take it as its value
		words = []string{"--", shellWord(user)}
	}
	return printable(strings.Join(append(words, more...), " "))
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9._@:+=/-]+$`)

func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// credential returns the content of the key file; "" if there is none.
func (a *app) credential() (string, error) {
	if a.keyFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(a.keyFile)
	if err != nil {
		return "", usageError{fmt.Errorf("key-file: %w", err)}
	}
	if mode, exposed := filewatch.WorldReadable(a.keyFile); exposed {
		_, _ = fmt.Fprintf(a.errOut, "streamcount: warning: key-file %s is readable by every user of this machine (%v): "+
			"restrict its permissions\n", printable(a.keyFile), mode) // the warning is optional
	}
	credential := strings.TrimSpace(string(b))
	if credential == "" || strings.ContainsFunc(credential, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", usageError{fmt.Errorf("key-file %q: want exactly one key or token", a.keyFile)}
	}
	return credential, nil
}

// call runs one call of a client and prints its result.
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
