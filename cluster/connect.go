package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"streamcount/internal/retry"
)

// Connect dials and retries until etcd answers a linearizable read. An unreachable etcd is an
// error only when ctx ends. Permanent errors are returned at once: an invalid configuration, a
// wrong password, missing rights, certificates that one side does not accept, an etcd version
// that is not safe.
func Connect(ctx context.Context, cfg ClientConfig) (*clientv3.Client, error) {
	cfg = cfg.withDefaults()
	where := zap.Strings("endpoints", cfg.Endpoints)
	wait := newBackoff()
	var last error // of an attempt that ctx did not cancel
	for {
		c, err := cfg.connect(ctx)
		if err == nil {
			if last != nil {
				cfg.Log.Info("connected to etcd", where)
			}
			return c, nil
		}
		if stop := (*permanentError)(nil); errors.As(err, &stop) {
			return nil, stop.err
		}
		if last == nil && ctx.Err() == nil {
			cfg.Log.Warn("cannot connect to etcd, retrying", where, zap.Error(err))
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if retry.Sleep(ctx, wait.Next()) != nil {
			return nil, fmt.Errorf("connect to etcd at %s: %w; the last attempt: %w",
				strings.Join(cfg.Endpoints, ","), context.Cause(ctx), last)
		}
	}
}

// A permanentError is an error that a retry cannot resolve.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// connect makes one attempt.
func (cfg ClientConfig) connect(ctx context.Context) (*clientv3.Client, error) {
	c, err := Dial(ctx, cfg)
	if err != nil {
		return nil, cfg.diagnose(ctx, err)
	}
	if err := cfg.check(ctx, c); err != nil {
		_ = c.Close() // the other error is more specific
		return nil, cfg.diagnose(ctx, err)
	}
	return c, nil
}

// check makes a linearizable read and checks the versions of the endpoints.
func (cfg ClientConfig) check(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	if _, err := c.Get(ctx, cfg.Prefix+"/", clientv3.WithKeysOnly()); err != nil {
		return cfg.signInError(err)
	}
	return checkVersions(ctx, c)
}

// signInError explains permanent errors of authentication and authorization.
func (cfg ClientConfig) signInError(err error) error {
	known := rpctypes.Error(err)
	why := ""
	switch {
	case errors.Is(known, rpctypes.ErrAuthFailed):
		why = fmt.Sprintf("etcd does not accept user %q with the password in %s: correct one of them",
			cfg.User, cfg.PasswordFile)
	case errors.Is(known, rpctypes.ErrUserEmpty):
		why = "etcd has authentication enabled: configure a user and a password file"
	case errors.Is(known, rpctypes.ErrPermissionDenied):
		why = fmt.Sprintf("user %q has no access to the keys below %s: grant its role read and write access there",
			cfg.User, cfg.Prefix)
	default:
		return err
	}
	return &permanentError{fmt.Errorf("%s: %w", why, known)}
}

// diagnose adds the reason why etcd could not be reached. gRPC often reports only a timeout,
// and reports certificate errors as Unavailable with a text.
func (cfg ClientConfig) diagnose(ctx context.Context, err error) error {
	if stop := (*permanentError)(nil); errors.As(err, &stop) || ctx.Err() != nil {
		return err
	}
	secure, cerr := cfg.secure()
	if cerr != nil {
		return &permanentError{cerr}
	}
	tc, cerr := cfg.tlsConfig(secure)
	if cerr != nil { // the files have become invalid
		return &permanentError{cerr}
	}
	var reasons []string
	untrusted := 0
	for _, ep := range cfg.Endpoints {
		reason := dialTLS(ctx, ep, tc)
		if reason == nil {
			continue
		}
		reasons = append(reasons, reason.Error())
		if isCertificateError(reason) {
			untrusted++
		}
	}
	switch {
	case untrusted == len(cfg.Endpoints):
		return &permanentError{fmt.Errorf("etcd and this node do not accept each other's certificates: "+
			"check the CA file, the client certificate and the host names in etcd's certificate: %s",
			strings.Join(reasons, "; "))}
	case len(reasons) > 0:
		return fmt.Errorf("%w (%s)", err, strings.Join(reasons, "; "))
	}
	return err
}

// dialTLS makes a separate connection to one endpoint. A nil tc means plain TCP or a Unix
// socket.
func dialTLS(ctx context.Context, endpoint string, tc *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if tc != nil {
		if err := handshake(ctx, hostPort(endpoint), tc.Clone()); err != nil {
			return fmt.Errorf("TLS to %s: %w", endpoint, err)
		}
		return nil
	}
	network, address := "tcp", hostPort(endpoint)
	if u, err := url.Parse(endpoint); err == nil && u.Scheme == unixScheme {
		network, address = unixScheme, u.Path
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func hostPort(endpoint string) string {
	if _, rest, found := strings.Cut(endpoint, "://"); found {
		return strings.TrimSuffix(rest, "/")
	}
	return endpoint
}

// handshake makes a TLS connection and waits for the server's first bytes: in TLS 1.3 a
// server rejects a client's certificate there.
func handshake(ctx context.Context, address string, tc *tls.Config) error {
	tc.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: tc}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // no data was written
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // the server did not reject the certificate
	}
	return err
}

func isCertificateError(err error) bool {
	var (
		verify *tls.CertificateVerificationError
		op     *net.OpError
	)
	if errors.As(err, &verify) {
		return true
	}
	// crypto/tls reports an alert of the other side with its own error type
	// inside an OpError of this name.
	return errors.As(err, &op) && op.Op == "remote error"
}

// newBackoff returns the backoff of attempts to reach etcd.
func newBackoff() retry.Backoff {
	return retry.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
}
