package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"streamcount/cluster/internal/etcdlog"
)

const (
	defaultCallTimeout = 3 * time.Second
	defaultPrefix      = "/streamcount"
	// Pings detect a member that stopped answering without closing its connections. etcd closes
	// connections with more than one ping per 5 s.
	pingEvery   = 10 * time.Second
	pingTimeout = 3 * time.Second
	// redialMax is the maximum wait between two attempts to reach a member. With gRPC's default of
	// two minutes a member would stay unused long after its return.
	redialMax = 3 * time.Second
)

// ClientConfig configures a client of an etcd cluster. Only Endpoints is required.
type ClientConfig struct {
	// Endpoints are addresses of members: "https://host:2379", all with the
	// same scheme. "host:2379" means https if a certificate file is given,
	// else http. "unix:///path" is a Unix socket.
	Endpoints []string
	// CertFile and KeyFile identify this client. They are read again for
	// every connection, so they may be renewed in place.
	CertFile, KeyFile string
	// CAFile has the authorities that may sign etcd's certificates. "" means those of the
	// system. It is read again for every connection.
	CAFile string
	// User and the password in PasswordFile are for an etcd with
	// authentication. Both or neither. The file is read again when etcd rejects
	// the password.
	User, PasswordFile string
	// InsecurePassword allows sending the password over plain http to other machines.
	InsecurePassword bool
	// Prefix is the prefix of this service's keys; Connect reads below it. "" means
	// /streamcount.
	Prefix string
	// CallTimeout is the timeout of each attempt of a call without a deadline. 0 means 3 s.
	CallTimeout time.Duration
	// Log receives errors of etcd's client and messages of Connect. nil discards them.
	Log *zap.Logger
	// DialOptions are added to those of the connection. Interceptors must be chained, because
	// grpc.WithUnaryInterceptor would replace etcd's own.
	DialOptions []grpc.DialOption

	session *session     // nil without a user, and before WithSession
	conns   *connections // tracks the client's connections; nil disables that
}

// WithSession returns a configuration with which several clients share one sign-in. Without a
// user it returns cfg unchanged.
func (cfg ClientConfig) WithSession() (ClientConfig, error) {
	if cfg.session != nil || cfg.User == "" {
		return cfg, nil
	}
	if err := cfg.checkUser(); err != nil {
		return cfg, err
	}
	session, err := newSession(cfg.withDefaults())
	if err != nil {
		return cfg, err
	}
	cfg.session = session
	return cfg, nil
}

// Dial returns a client. Without a user it does not wait for etcd, and only an invalid
// configuration is an error. With a user it signs in, and a wrong password is an error too.
// ctx bounds Dial, not the lifetime of the client.
func Dial(ctx context.Context, cfg ClientConfig) (*clientv3.Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.checkUser(); err != nil {
		return nil, &permanentError{err}
	}
	cfg, err := cfg.WithSession()
	if err != nil {
		return nil, &permanentError{err}
	}
	cc, err := cfg.clientv3()
	if err != nil {
		return nil, &permanentError{err}
	}
	cc.Context = context.WithoutCancel(ctx)
	c, err := clientv3.New(*cc)
	if err != nil {
		return nil, err
	}
	if err := cfg.signIn(ctx, c); err != nil {
		_ = c.Close() // the other error is more specific
		return nil, err
	}
	return c, nil
}

// signIn signs in if there is a user.
func (cfg ClientConfig) signIn(ctx context.Context, c *clientv3.Client) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if cfg.session == nil {
		return nil
	}
	attempt, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	_, err := cfg.session.current(attempt, c.ActiveConnection())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return cfg.signInError(err)
}

func (cfg ClientConfig) withDefaults() ClientConfig {
	cfg.CallTimeout = cmp.Or(cfg.CallTimeout, defaultCallTimeout)
	cfg.Prefix = cmp.Or(cfg.Prefix, defaultPrefix)
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return cfg
}

func (cfg ClientConfig) clientv3() (*clientv3.Config, error) {
	secure, err := cfg.secure()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.tlsConfig(secure)
	if err != nil {
		return nil, err
	}
	redial := backoff.DefaultConfig
	redial.MaxDelay = redialMax
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: redialMax}),
		grpc.WithChainUnaryInterceptor(boundCalls(cfg.CallTimeout)),
	}
	if cfg.session != nil {
		options = append(options, grpc.WithChainUnaryInterceptor(cfg.session.unary),
			grpc.WithChainStreamInterceptor(cfg.session.stream))
	}
	// The user and password fields are not set: see session.
	out := &clientv3.Config{
		Endpoints:            cfg.Endpoints,
		DialKeepAliveTime:    pingEvery,
		DialKeepAliveTimeout: pingTimeout,
		TLS:                  tlsConfig,
		Logger:               etcdlog.Client(cfg.Log),
	}
	if secure || cfg.conns != nil {
		options = append(options, grpc.WithTransportCredentials(newHandshakes(cfg, secure)))
	}
	cfg.warnIfReadable(cfg.KeyFile)
	cfg.warnIfReadable(cfg.PasswordFile)
	out.DialOptions = append(options, cfg.DialOptions...)
	return out, nil
}

const unixScheme = "unix"

// secure reports whether the endpoints use TLS. etcd's client uses the scheme of the first for
// all of them.
func (cfg ClientConfig) secure() (bool, error) {
	if len(cfg.Endpoints) == 0 {
		return false, errors.New("no etcd endpoints given: name at least one, such as https://etcd-1:2379")
	}
	files := cfg.CertFile != "" || cfg.KeyFile != "" || cfg.CAFile != ""
	secure := false
	for i, ep := range cfg.Endpoints {
		scheme, rest, found := strings.Cut(ep, "://")
		if !found {
			scheme, rest = "http", ep
			if files {
				scheme = "https"
			}
		}
		if rest == "" || (scheme != "http" && scheme != "https" && scheme != unixScheme) {
			return false, fmt.Errorf("etcd endpoint %q: want host:port, http://host:port or https://host:port", ep)
		}
		if i > 0 && secure != (scheme == "https") {
			return false, fmt.Errorf("etcd endpoints %s: use either http or https for all of them",
				strings.Join(cfg.Endpoints, ","))
		}
		secure = scheme == "https"
	}
	if files && !secure {
		return false, fmt.Errorf("etcd endpoint %s is not https, but certificate files are given: "+
			"use https:// or drop the files", cfg.Endpoints[0])
	}
	return secure, nil
}

func (cfg ClientConfig) tlsConfig(secure bool) (*tls.Config, error) {
	if !secure {
		return nil, nil
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, errors.New("an etcd client certificate needs both a certificate file and a key file: " +
			"one of them is missing")
	}
	info := transport.TLSInfo{
		CertFile:      cfg.CertFile,
		KeyFile:       cfg.KeyFile,
		TrustedCAFile: cfg.CAFile,
		Logger:        etcdlog.Client(cfg.Log),
	}
	tc, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("etcd certificate files (certificate %q, key %q, CA %q): %w",
			cfg.CertFile, cfg.KeyFile, cfg.CAFile, err)
	}
	if cfg.CAFile != "" && tc.RootCAs.Equal(x509.NewCertPool()) {
		return nil, fmt.Errorf("etcd CA file %s holds no PEM certificate", cfg.CAFile)
	}
	return tc, nil
}

// checkUser returns an error for a user without a password file or the reverse, and for a
// password that could be read on the network.
func (cfg ClientConfig) checkUser() error {
	if (cfg.User == "") != (cfg.PasswordFile == "") {
		return errors.New("signing in to etcd needs both a user and a password file: one of them is missing")
	}
	secure, err := cfg.secure()
	if err != nil || secure || cfg.User == "" || cfg.InsecurePassword {
		return err
	}
	for _, ep := range cfg.Endpoints {
		if !isLocal(ep) {
			return fmt.Errorf("etcd endpoint %s: the password of user %q would go over plain http, readable by everyone "+
				"on the way: use https://, or allow it with etcd-insecure-password", ep, cfg.User)
		}
	}
	return nil
}

// isLocal reports whether an endpoint is on this machine.
func isLocal(endpoint string) bool {
	if strings.HasPrefix(endpoint, unixScheme+"://") {
		return true
	}
	host := hostPort(endpoint)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

func (cfg ClientConfig) warnIfReadable(path string) {
	if path == "" {
		return
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o004 != 0 {
		cfg.Log.Warn("secret file is readable by every user of this machine: remove that permission",
			zap.String("file", path), zap.Stringer("mode", info.Mode()))
	}
}
