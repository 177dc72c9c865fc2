package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const (
	defaultCallTimeout = 3 * time.Second
	defaultPrefix      = "/streamcount"
	// A member that stopped answering without closing its connections is
	// found out by pings. etcd ends connections that ping oftener than every
	// 5 s.
	pingEvery   = 10 * time.Second
	pingTimeout = 3 * time.Second
	// redialMax bounds the wait between two attempts to reach a member. gRPC's
	// own bound of two minutes would leave it unused long after its return.
	redialMax = 3 * time.Second
)

// ClientConfig says how to reach an etcd cluster. Only Endpoints is required.
type ClientConfig struct {
	// Endpoints are addresses of members: "https://host:2379", all with the
	// same scheme. "host:2379" means https if a certificate file is given,
	// else http.
	Endpoints []string
	// CertFile and KeyFile identify this client. They are read again for
	// every connection, so they may be renewed in place.
	CertFile, KeyFile string
	// CAFile holds the authorities that may sign etcd's certificates. "" means
	// those that this machine trusts. It is read once.
	CAFile string
	// User and the password in PasswordFile are for an etcd with
	// authentication. Both or neither.
	User, PasswordFile string
	// Prefix is where this service keeps its keys; Connect reads below it.
	// "" means /streamcount.
	Prefix string
	// CallTimeout bounds every attempt of a call that has no deadline. 0 means
	// 3 s.
	CallTimeout time.Duration
	// Log gets etcd's client errors and what Connect has to say. nil means
	// nothing.
	Log *zap.Logger
	// DialOptions are added to the connection's. An interceptor must be
	// chained: grpc.WithUnaryInterceptor would replace etcd's own.
	DialOptions []grpc.DialOption
}

// Dial returns a client. Without a user it does not wait for etcd: bad
// configuration is the only error. With one it signs in, and a wrong password
// is an error as well. ctx bounds Dial, not the client's life.
func Dial(ctx context.Context, cfg ClientConfig) (*clientv3.Client, error) {
	cfg = cfg.withDefaults()
	cc, err := cfg.clientv3()
	if err != nil {
		return nil, &permanentError{err}
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cc.Context = life
	detach := context.AfterFunc(ctx, cancel)
	c, err := clientv3.New(*cc)
	if err != nil {
		detach()
		cancel()
		return nil, cfg.signInError(err)
	}
	if !detach() { // ctx ended, and the client with it
		return nil, errors.Join(context.Cause(ctx), c.Close())
	}
	return c, nil
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
	password, err := cfg.password()
	if err != nil {
		return nil, err
	}
	redial := backoff.DefaultConfig
	redial.MaxDelay = redialMax
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: redialMax}),
		grpc.WithChainUnaryInterceptor(boundCalls(cfg.CallTimeout)),
	}
	return &clientv3.Config{
		Endpoints:            cfg.Endpoints,
		DialTimeout:          cfg.CallTimeout, // of signing in
		DialKeepAliveTime:    pingEvery,
		DialKeepAliveTimeout: pingTimeout,
		TLS:                  tlsConfig,
		Username:             cfg.User,
		Password:             password,
		Logger:               clientLog(cfg.Log),
		DialOptions:          append(options, cfg.DialOptions...),
	}, nil
}

// secure tells whether the endpoints are spoken to over TLS. etcd's client
// decides by the first of them for all.
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
		if rest == "" || (scheme != "http" && scheme != "https") {
			return false, fmt.Errorf("etcd endpoint %q: want host:port, http://host:port or https://host:port", ep)
		}
		if i > 0 && secure != (scheme == "https") {
			return false, fmt.Errorf("etcd endpoints %s: use either http or https for all of them",
				strings.Join(cfg.Endpoints, ","))
		}
		secure = scheme == "https"
	}
	if files && !secure {
		return false, fmt.Errorf("etcd endpoint %s is plain http, but certificate files are given: "+
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
		Logger:        clientLog(cfg.Log),
	}
	tc, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("etcd certificate files (certificate %q, key %q, CA %q): %w",
			cfg.CertFile, cfg.KeyFile, cfg.CAFile, err)
	}
	if cfg.CAFile != "" && tc.RootCAs.Equal(x509.NewCertPool()) {
		return nil, fmt.Errorf("etcd CA file %s holds no PEM certificate", cfg.CAFile)
	}
	cfg.warnIfReadable(cfg.KeyFile)
	return tc, nil
}

func (cfg ClientConfig) password() (string, error) {
	if (cfg.User == "") != (cfg.PasswordFile == "") {
		return "", errors.New("signing in to etcd needs both a user and a password file: one of them is missing")
	}
	if cfg.PasswordFile == "" {
		return "", nil
	}
	content, err := os.ReadFile(cfg.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("etcd password file: %w", err)
	}
	password := strings.TrimRight(string(content), "\r\n")
	if password == "" {
		return "", fmt.Errorf("etcd password file %s is empty", cfg.PasswordFile)
	}
	cfg.warnIfReadable(cfg.PasswordFile)
	return password, nil
}

func (cfg ClientConfig) warnIfReadable(path string) {
	if path == "" {
		return
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o004 != 0 {
		cfg.Log.Warn("secret file is readable by every user of this machine: take that right away",
			zap.String("file", path), zap.Stringer("mode", info.Mode()))
	}
}
