package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Connect dials and keeps trying until etcd answers a read that needs a
// quorum. An etcd that cannot be reached is no error until ctx ends. It is an
// error at once if trying again cannot help: bad configuration, a wrong
// password, missing rights, certificates that one side does not accept, an
// etcd too old to be safe.
func Connect(ctx context.Context, cfg ClientConfig) (*clientv3.Client, error) {
	cfg = cfg.withDefaults()
	where := zap.Strings("endpoints", cfg.Endpoints)
	var wait backoffWait
	var last error // of an attempt that ctx did not cut short
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
			cfg.Log.Warn("cannot connect to etcd, will keep trying", where, zap.Error(err))
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if !sleep(ctx, wait.take()) {
			return nil, fmt.Errorf("connect to etcd at %s: %w; the last attempt: %w",
				strings.Join(cfg.Endpoints, ","), context.Cause(ctx), last)
		}
	}
}

// A permanentError will come back however often the attempt is repeated.
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
		_ = c.Close() // its error would say less
		return nil, cfg.diagnose(ctx, err)
	}
	return c, nil
}

// check reads through a quorum and asks the endpoints for their versions.
func (cfg ClientConfig) check(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	if _, err := c.Get(ctx, cfg.Prefix+"/", clientv3.WithKeysOnly()); err != nil {
		return cfg.signInError(err)
	}
	return checkVersions(ctx, c)
}

// signInError explains the refusals that repeating does not change.
func (cfg ClientConfig) signInError(err error) error {
	known := rpctypes.Error(err)
	why := ""
	switch {
	case errors.Is(known, rpctypes.ErrAuthFailed):
		why = fmt.Sprintf("etcd does not accept user %q with the password in %s: correct one of them",
			cfg.User, cfg.PasswordFile)
	case errors.Is(known, rpctypes.ErrUserEmpty):
		why = "etcd has authentication enabled: give a user and a password file"
	case errors.Is(known, rpctypes.ErrPermissionDenied):
		why = fmt.Sprintf("etcd does not let user %q use the keys below %s: grant its role read and write there",
			cfg.User, cfg.Prefix)
	default:
		return err
	}
	return &permanentError{fmt.Errorf("%s: %w", why, known)}
}

// diagnose adds why etcd could not be reached. gRPC often says no more than
// that time ran out, tells a certificate that is not accepted only in words,
// and calls it Unavailable.
func (cfg ClientConfig) diagnose(ctx context.Context, err error) error {
	if stop := (*permanentError)(nil); errors.As(err, &stop) || ctx.Err() != nil {
		return err
	}
	secure, cerr := cfg.secure()
	if cerr != nil {
		return &permanentError{cerr}
	}
	tc, cerr := cfg.tlsConfig(secure)
	if cerr != nil { // the files have changed for the worse
		return &permanentError{cerr}
	}
	var reasons []string
	untrusted := 0
	for _, ep := range cfg.Endpoints {
		reason := reach(ctx, ep, tc)
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

// reach makes a connection of its own to one endpoint. A nil tc means plain
// TCP.
func reach(ctx context.Context, endpoint string, tc *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if tc != nil {
		if err := handshake(ctx, hostPort(endpoint), tc.Clone()); err != nil {
			return fmt.Errorf("TLS to %s: %w", endpoint, err)
		}
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostPort(endpoint))
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

// handshake makes a TLS connection and waits for the server's first word: in
// TLS 1.3 that is where a server refuses a client's certificate.
func handshake(ctx context.Context, address string, tc *tls.Config) error {
	tc.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: tc}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was written
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // no complaint is consent
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
