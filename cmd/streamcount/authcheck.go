package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"streamcount/access"
	"streamcount/internal/config"
)

func (a *app) authCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "auth",
		Short: "Check the configuration of viewers' tokens",
		Args:  argRange(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.authCheckCommand())
	return cmd
}

func (a *app) authCheckCommand() *cobra.Command {
	var cfg config.Config
	var tokenFile string
	flags := cfg.AuthFlags()
	cmd := &cobra.Command{
		Use:   "check",
		Short: "List the keys of each issuer of tokens, and verify a token",
		Long: `Load the files of API keys and issuers as serve does, fetch the keys of each issuer,
and list them with the reason if a key is not used. With --token-file, verify a
viewer's token and print the result of each check. The exit code is 1 if an issuer
has no usable key or if a check fails. The command does not call a streamcount
server.`,
		Example: `  streamcount auth check --auth-file auth.yaml
  streamcount auth check --auth-file auth.yaml --token-file token.txt`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.LoadAuth(flags, a.environ); err != nil {
				return err
			}
			return a.authCheck(cmd, &cfg, tokenFile)
		},
	}
	cmd.Flags().AddFlagSet(flags)
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "`file` with a viewer's token to verify")
	a.addJSONFlag(cmd)
	return cmd
}

func (a *app) authCheck(cmd *cobra.Command, cfg *config.Config, tokenFile string) error {
	config := cfg.Access(slog.New(slog.DiscardHandler))
	if !config.Configured() {
		return usageError{errors.New("no credentials are configured: set --auth-file, or the flags of a single issuer")}
	}
	credentials, err := access.New(config)
	if err != nil {
		return usageError{fmt.Errorf("credentials: %w", err)}
	}
	var token string
	if tokenFile != "" {
		if token, err = readToken(tokenFile); err != nil {
			return err
		}
	}
	issuers := credentials.CheckKeys(cmd.Context())
	checks := []access.TokenCheck{}
	if token != "" {
		checks = credentials.CheckToken(cmd.Context(), token)
	}
	if err := a.printAuthCheck(issuers, checks); err != nil {
		return err
	}
	for _, i := range issuers {
		if i.Error != "" {
			return fmt.Errorf("issuer %s: %s", i.Name, i.Error)
		}
	}
	for _, c := range checks {
		if !c.OK {
			return fmt.Errorf("the token is rejected: %s", c.Outcome)
		}
	}
	return nil
}

// readToken returns the token in a file, without a leading "Bearer".
func readToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", usageError{fmt.Errorf("token file: %w", err)}
	}
	defer func() { _ = file.Close() }() // it was only read
	const maxSize = 64 << 10
	content, err := io.ReadAll(io.LimitReader(file, maxSize))
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if scheme, rest, ok := strings.Cut(token, " "); ok && strings.EqualFold(scheme, "Bearer") {
		token = strings.TrimSpace(rest)
	}
	if token == "" {
		return "", usageError{fmt.Errorf("token file %s is empty", path)}
	}
	return token, nil
}

func (a *app) printAuthCheck(issuers []access.IssuerReport, checks []access.TokenCheck) error {
	if a.json {
		return a.printJSON(struct {
			Issuers []access.IssuerReport `json:"issuers"`
			Token   []access.TokenCheck   `json:"token"`
		}{issuers, checks})
	}
	rows := [][]string{{"ISSUER", "KID", "KIND", "ALGORITHMS", "USE"}}
	for _, i := range issuers {
		for _, k := range i.Keys {
			use := "used"
			if !k.Used {
				use = "not used: " + k.Reason
			}
			rows = append(rows, []string{i.Name, orDash(k.KID), orDash(k.Kind), orDash(strings.Join(k.Algorithms, ",")), use})
		}
		if i.Error != "" {
			rows = append(rows, []string{i.Name, "-", "-", "-", i.Error})
		}
	}
	if err := a.printTable(rows, "KID", "USE"); err != nil || len(checks) == 0 {
		return err
	}
	rows = [][]string{{"CHECK OF THE TOKEN", "OUTCOME"}}
	for _, c := range checks {
		outcome := c.Outcome
		if !c.OK {
			outcome = "rejected: " + outcome
		}
		rows = append(rows, []string{c.Name, outcome})
	}
	if err := a.printf("\n"); err != nil {
		return err
	}
	return a.printTable(rows, "OUTCOME")
}
