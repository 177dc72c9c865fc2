package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"streamcount/internal/follow"
)

// certificate is what the service shows of itself over TLS, and whose clients it
// lets in, as the files say now.
type certificate struct {
	files   *follow.Files
	current atomic.Pointer[tls.Config]
}

// newCertificate reads the files: a certificate, its key, and, unless that is "",
// the certificates by which those of clients have to be signed.
func newCertificate(cert, key, clientCA string) (*certificate, error) {
	c := &certificate{}
	paths := []string{cert, key}
	if clientCA != "" {
		paths = append(paths, clientCA)
	}
	files, err := follow.New(c.load, paths...)
	if err != nil {
		return nil, usageError{fmt.Errorf("tls: %w", err)}
	}
	c.files = files
	return c, nil
}

func (c *certificate) load(contents [][]byte) error {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return fmt.Errorf("tls-cert and tls-key do not make a pair: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if len(contents) == 3 {
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(contents[2]) {
			return errors.New("tls-client-ca holds no certificate in PEM")
		}
	}
	c.current.Store(config)
	return nil
}

// expires is when the certificate does that is current.
func (c *certificate) expires() time.Time { return c.current.Load().Certificates[0].Leaf.NotAfter }

// config is for a listener: each connection agrees on what is current then.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := c.current.Load().Clone()
			now.NextProtos = []string{"h2", "http/1.1"}
			return now, nil
		},
	}
}
