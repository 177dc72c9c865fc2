package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"streamcount/internal/config"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A healthCheck is one health check of a node.
type healthCheck struct {
	live          bool // check /healthz instead of /readyz
	ca, cert, key string
}

const (
	// A node responds within 5 s even if etcd is unavailable.
	healthTimeout = 6 * time.Second
	// maxAnswer is the maximum number of bytes read from a response, which is one line.
	maxAnswer = 4 << 10
)

func (a *app) healthCommand() *cobra.Command {
	var p healthCheck
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Check the health of a node: exit code 0 if healthy, 1 if not",
		Long: `Call /readyz of a node, or /healthz with --live, and print the response in one line.
The exit code is 0 if the node is healthy and 1 otherwise.

Without --server the command calls the address on which "streamcount serve" would
listen in the same environment: it reads ` + config.EnvPrefix + `LISTEN, ` + config.EnvPrefix + `TLS_CERT
and ` + config.EnvPrefix + `CONFIG. The health check of a container therefore needs no flags.`,
		Example: `  streamcount health
  streamcount health --live --json --server http://127.0.0.1:3000`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.health(cmd, p) },
	}
	fs := cmd.Flags()
	fs.StringVar(&a.server, "server", "",
		"`address` of a running node (or "+config.EnvName("server")+" in the environment; default the address of serve)")
	fs.BoolVar(&p.live, "live", false, "check only that the process runs, even if etcd is unavailable")
	fs.StringVar(&p.ca, "ca", "", "`file` with the authority that signed the certificate of the node (PEM) (default the "+
		"authorities that this machine trusts; without --server the certificate is not verified)")
	fs.StringVar(&p.cert, "cert", "", "`file` with a client certificate (PEM), if the node requires one")
	fs.StringVar(&p.key, "key", "", "`file` with the private key of --cert (PEM)")
	a.addJSONFlag(cmd)
	return cmd
}

func (a *app) health(cmd *cobra.Command, p healthCheck) error {
	flags := pflag.NewFlagSet("health", pflag.ContinueOnError)
	flags.AddFlag(cmd.Flags().Lookup("server"))
	if _, err := config.Resolve(flags, a.environ); err != nil {
		return err
	}
	secure, err := p.tlsConfig()
	if err != nil {
		return err
	}
	host := ""
	if a.server == "" {
		if a.server, host, err = config.LocalAddress(a.environ); err != nil {
			return err
		}
		// The certificate contains the public name of the node, which is not the name used
		// here. Verification is unnecessary, because a health check sends no secret.
		secure.InsecureSkipVerify = p.ca == ""
	}
	message, err := p.get(cmd.Context(), a.server, host, secure)
	if a.json && !isUsage(err) {
		if err != nil {
			message = err.Error()
		}
		return errors.Join(err, a.printJSON(struct {
			Server  string `json:"server"`
			Healthy bool   `json:"healthy"`
			Message string `json:"message"`
		}{config.RedactServer(a.server), err == nil, message}))
	}
	if err != nil {
		return err
	}
	return a.printf("%s\n", printable(message))
}

// tlsConfig returns the configuration for the files of the flags.
func (p healthCheck) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{}
	if p.ca != "" {
		b, err := os.ReadFile(p.ca)
		if err != nil {
			return nil, usageError{fmt.Errorf("ca: %w", err)}
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, usageError{fmt.Errorf("ca %q: want a PEM file with certificates", p.ca)}
		}
	}
	if p.cert != "" || p.key != "" {
		pair, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, usageError{fmt.Errorf("cert %q and key %q: %w", p.cert, p.key, err)}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// get returns the response of the node if it is healthy, and an error otherwise.
func (p healthCheck) get(ctx context.Context, server, host string, secure *tls.Config) (string, error) {
	path := "/readyz"
	if p.live {
		path = "/healthz"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(server, "/")+path, nil)
	if err != nil || req.URL.Host == "" || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return "", usageError{fmt.Errorf("server %q: want http://HOST:PORT or https://HOST:PORT", config.RedactServer(server))}
	}
	req.Host = host // "" for the host of the URL
	c := http.Client{
		// No proxy: the check is for the node itself.
		Transport:     &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", p.explainTLS(err, req.URL.Scheme == "https")
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("%s%s: %w", config.RedactServer(server), path, err)
	}
	line := strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", "; ")
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s%s returned %d: %s", config.RedactServer(server), path, resp.StatusCode, line)
	}
	return line, nil
}

// explainTLS adds a hint to an error about certificates.
func (p healthCheck) explainTLS(err error, secure bool) error {
	if unknown, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w: pass the certificate of the authority with --ca", unknown)
	}
	// A server that requires a client certificate reports the missing certificate only after
	// the handshake, and may close the connection before the report is read.
	op, ok := errors.AsType[*net.OpError](err)
	if ok && secure && p.cert == "" && op.Op != "dial" && !op.Timeout() {
		return fmt.Errorf("%w: a node with --tls-client-ca requires --cert and --key", op)
	}
	return err
}
