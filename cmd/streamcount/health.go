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

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A probe is one look at whether a node is well.
type probe struct {
	live          bool // ask whether the process runs, not whether it should be sent requests
	ca, cert, key string
}

const (
	// A node answers within its own 5 s even when etcd does not.
	healthTimeout = 6 * time.Second
	// maxReason bounds what is read of an answer, which is one line.
	maxReason = 4 << 10
)

func (a *app) healthCommand() *cobra.Command {
	var p probe
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a node whether it is well: exit code 0 if so, 1 if not",
		Long: `Ask a node's /readyz, or with --live its /healthz, and say in one line what it
answered. The exit code is 0 if the node is well, and 1 if it is not.

Without --server the node is the one that "streamcount serve" would be with the
same environment: its ` + envPrefix + `LISTEN, ` + envPrefix + `TLS_CERT and ` + envPrefix + `CONFIG
count. So a container's health check needs no flags.`,
		Example: `  streamcount health
  streamcount health --live --json --server http://127.0.0.1:3000`,
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.health(cmd, p) },
	}
	fs := cmd.Flags()
	fs.StringVar(&a.server, "server", "",
		"`address` of a running node (or "+envName("server")+" in the environment; default where serve would listen)")
	fs.BoolVar(&p.live, "live", false, "ask only whether the process runs, whatever etcd does")
	fs.StringVar(&p.ca, "ca", "", "`file` with the certificate that the node's is signed by (default those that "+
		"this machine trusts; without --server none is checked)")
	fs.StringVar(&p.cert, "cert", "", "`file` with a client certificate, for a node that asks for one")
	fs.StringVar(&p.key, "key", "", "`file` with the key of that certificate")
	a.addJSONFlag(cmd)
	return cmd
}

func (a *app) health(cmd *cobra.Command, p probe) error {
	flags := pflag.NewFlagSet("health", pflag.ContinueOnError)
	flags.AddFlag(cmd.Flags().Lookup("server"))
	if _, err := resolve(flags, a.environ); err != nil {
		return err
	}
	secure, err := p.tls()
	if err != nil {
		return err
	}
	host := ""
	if a.server == "" {
		if a.server, host, err = a.ownAddress(); err != nil {
			return err
		}
		// The certificate is for the name that others know the node by, and a probe
		// has no secret to give away to whoever else may have taken the port.
		secure.InsecureSkipVerify = p.ca == ""
	}
	said, err := p.ask(cmd.Context(), a.server, host, secure)
	if a.json && !isUsage(err) {
		if err != nil {
			said = err.Error()
		}
		return errors.Join(err, a.printJSON(struct {
			Server string `json:"server"`
			Well   bool   `json:"well"`
			Said   string `json:"said"`
		}{redacted(a.server), err == nil, said}))
	}
	if err != nil {
		return err
	}
	return a.printf("%s\n", printable(said))
}

// ownAddress is where serve would listen in this environment, and a name that
// it would answer to if not to that of the address.
func (a *app) ownAddress() (server, host string, err error) {
	var c Config
	from, err := resolve(c.flags(), a.environ)
	if err != nil {
		return "", "", err
	}
	c.from = from
	if err := c.checkListen(); err != nil {
		return "", "", err
	}
	if len(c.Hosts) > 0 {
		host = c.Hosts[0]
	}
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	listens, port, _ := net.SplitHostPort(c.Listen) // checked above
	if listens == "" {
		return scheme + "://" + net.JoinHostPort("localhost", port), host, nil
	}
	return scheme + "://" + dialable(c.Listen), host, nil
}

// tls is what the probe's files say.
func (p probe) tls() (*tls.Config, error) {
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

// ask returns the node's own word when it is well, and an error when it is not.
func (p probe) ask(ctx context.Context, server, host string, secure *tls.Config) (string, error) {
	path := "/readyz"
	if p.live {
		path = "/healthz"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(server, "/")+path, nil)
	if err != nil || req.URL.Host == "" || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return "", usageError{fmt.Errorf("server %q: want http://HOST:PORT or https://HOST:PORT", redacted(server))}
	}
	req.Host = host // "" for that of the address
	one := http.Client{
		// No proxy: the node itself is asked.
		Transport:     &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := one.Do(req)
	if err != nil {
		return "", p.notWell(err, req.URL.Scheme == "https")
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReason))
	if err != nil {
		return "", fmt.Errorf("%s%s: %w", redacted(server), path, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s%s answered %d: %s", redacted(server), path, resp.StatusCode, line)
	}
	return line, nil
}

// notWell adds what to do about an error that is about certificates.
func (p probe) notWell(err error, secure bool) error {
	if unknown, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w: name the authority's certificate with --ca", unknown)
	}
	// A server that misses a client's certificate says so only after the handshake,
	// and may have closed the connection before that is read.
	op, ok := errors.AsType[*net.OpError](err)
	if ok && secure && p.cert == "" && op.Op != "dial" && !op.Timeout() {
		return fmt.Errorf("%w: a node with --tls-client-ca wants --cert and --key", op)
	}
	return err
}
