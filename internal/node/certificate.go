package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"streamcount/internal/config"
	"streamcount/internal/filewatch"
)

// certificate is the TLS certificate of the service and the authorities of client
// certificates, reloaded when their files change.
type certificate struct {
	files   *filewatch.Files
	current atomic.Pointer[tls.Config]
	// optionalClients accepts clients without a certificate. Those that send one must have one of
	// the authorities.
	optionalClients bool
}

// newCertificate reads the files: a certificate, its key, and the authorities that must have
// signed client certificates. If clientCA is "", clients need no certificate.
func newCertificate(cert, key, clientCA string) (*certificate, error) {
	c := &certificate{}
	paths := []string{cert, key}
	if clientCA != "" {
		paths = append(paths, clientCA)
	}
	files, err := filewatch.New(c.load, paths...)
	if err != nil {
		return nil, config.Errorf("tls: %w", err)
	}
	c.files = files
	return c, nil
}

func (c *certificate) load(contents [][]byte) error {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return fmt.Errorf("tls-cert and tls-key do not match: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if len(contents) == 3 {
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(contents[2]) {
			return errors.New("tls-client-ca contains no PEM certificate")
		}
	}
	c.current.Store(config)
	return nil
}

// expires returns when the current certificate expires.
func (c *certificate) expires() time.Time { return c.current.Load().Certificates[0].Leaf.NotAfter }

// config returns the configuration of a listener. Each connection uses the certificate that
// is current when it is opened.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			current := c.current.Load().Clone()
			current.NextProtos = []string{"h2", "http/1.1"}
			if c.optionalClients && current.ClientAuth == tls.RequireAndVerifyClientCert {
				current.ClientAuth = tls.VerifyClientCertIfGiven
			}
			return current, nil
		},
	}
}
