package access

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// A keyset is the public keys of one version of a JWKS, a map of certificates, or a PEM file.
type keyset struct {
	keys   []publicKey
	kids   map[string]bool // of keys
	unused []rejectedKey
	warned []rejectedKey     // keys that are used, with a warning
	sum    [sha256.Size]byte // of the source text
}

const (
	maxSetKeys = 64
	// maxCandidates is the maximum number of keys that one token is tried with.
	maxCandidates = 10
)

// readKeyset reads a set of keys. Unusable keys are skipped. A set without a
// usable key is an error; the keyset then has the reasons.
func readKeyset(content []byte) (*keyset, error) {
	s := &keyset{kids: map[string]bool{}, sum: sha256.Sum256(content)}
	content = bytes.TrimSpace(bytes.TrimPrefix(content, []byte("\ufeff")))
	var err error
	switch {
	case bytes.HasPrefix(content, []byte("-----BEGIN ")):
		s.readPEM(content, "", true)
	case bytes.HasPrefix(content, []byte("{")):
		err = s.readJSON(content)
	case bytes.HasPrefix(content, []byte("<")):
		err = errors.New("not a JWKS: it is a web page")
	default:
		err = errors.New("not a JWKS: want a JSON object with keys")
	}
	switch {
	case err != nil:
		return s, err
	case len(s.keys) > maxCandidates && s.keys[0].anyKid:
		return s, fmt.Errorf("a PEM file of %d keys: want at most %d, because each token is tried with all of them", len(s.keys), maxCandidates)
	case len(s.keys) > maxSetKeys:
		return s, fmt.Errorf("a JWKS of %d keys: want at most %d", len(s.keys), maxSetKeys)
	case len(s.keys) == 0:
		return s, s.noKeys()
	}
	for _, k := range s.keys {
		s.kids[k.kid] = true
	}
	return s, nil
}

// noKeys returns the error of a set without a usable key.
func (s *keyset) noKeys() error {
	if len(s.unused) == 0 {
		return errors.New("the JWKS has no keys: if the provider signs with HS256, its secret belongs into a secret file")
	}
	var why []string
	for _, k := range s.unused[:min(len(s.unused), 3)] {
		why = append(why, k.String())
	}
	return fmt.Errorf("the JWKS has no key that can check tokens: %s", strings.Join(why, "; "))
}

func (k rejectedKey) String() string {
	return fmt.Sprintf("key %q (%s): %s", short(k.kid), short(k.kind), k.reason)
}

func (s *keyset) readJSON(content []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil {
		return fmt.Errorf("not a JWKS: %w", err)
	}
	list, ok := members["keys"]
	if !ok {
		return s.readCertificates(members)
	}
	var keys []json.RawMessage
	if err := json.Unmarshal(list, &keys); err != nil || keys == nil {
		return errors.New("not a JWKS: its keys are not a list")
	}
	for _, raw := range keys {
		key, unused, warning := readJWK(raw)
		switch {
		case unused.reason != "":
			s.unused = append(s.unused, unused)
			continue
		case warning != "":
			s.warned = append(s.warned, rejectedKey{key.kid, key.kind, warning})
		}
		s.keys = append(s.keys, key)
	}
	return nil
}

// readCertificates reads a map from kid to certificate, as Google publishes.
func (s *keyset) readCertificates(members map[string]json.RawMessage) error {
	for _, kid := range slices.Sorted(maps.Keys(members)) {
		var text string
		if err := json.Unmarshal(members[kid], &text); err != nil || !strings.HasPrefix(text, "-----BEGIN ") {
			return errors.New("not a JWKS: want a JSON object with keys, or one of PEM certificates")
		}
		s.readPEM([]byte(text), kid, false)
	}
	return nil
}

// readPEM reads public keys and certificates. Blocks that cannot be decoded are skipped.
func (s *keyset) readPEM(content []byte, kid string, anyKid bool) {
	for found := false; ; found = true {
		block, rest := pem.Decode(content)
		if block == nil {
			if !found {
				s.unused = append(s.unused, rejectedKey{kid, "PEM", "it is not complete PEM"})
			}
			return
		}
		content = rest
		key, err := readBlock(block)
		if err != nil {
			s.unused = append(s.unused, rejectedKey{kid, "PEM " + block.Type, err.Error()})
			continue
		}
		key.kid, key.anyKid = kid, anyKid
		s.keys = append(s.keys, key)
	}
}

func readBlock(block *pem.Block) (publicKey, error) {
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = c.PublicKey
		}
	default:
		return publicKey{}, errors.New("want a public key or a certificate")
	}
	if err != nil {
		return publicKey{}, errors.New("it cannot be read")
	}
	return checkKey(key)
}

// log reports the skipped keys of a new set, and the warnings about others.
func (s *keyset) log(log *slog.Logger) {
	for i, k := range s.unused {
		if i == maxSetKeys {
			log.Warn("more keys for viewers' tokens are not used", "keys", len(s.unused)-i)
			break
		}
		log.Warn("a key for viewers' tokens is not used", "kid", short(k.kid), "kind", short(k.kind), "reason", k.reason)
	}
	for _, k := range s.warned[:min(len(s.warned), maxSetKeys)] {
		log.Warn("a key for viewers' tokens needs attention", "kid", short(k.kid), "kind", short(k.kind), "reason", k.reason)
	}
}

// A choice is the keys that a token may be checked with.
type choice struct {
	keys     []publicKey
	knownKid bool // the set has keys of the token's kid, or checks tokens of every kid
}

// choose returns the keys for a token with that kid and x5t, "" for none, and
// algorithm. allowed are the algorithms of its issuer's configuration.
func (s *keyset) choose(kid, x5t, alg string, allowed []string) (c choice) {
	if kid == "" && x5t != "" && s.kids[x5t] {
		kid = x5t // AD FS identifies its keys by x5t
	}
	for _, k := range s.keys {
		if !k.anyKid && kid != "" && k.kid != kid {
			continue
		}
		c.knownKid = true
		if k.can(alg, allowed) && len(c.keys) < maxCandidates {
			c.keys = append(c.keys, k)
		}
	}
	return c
}

// has reports whether the set has keys for a token with that kid.
func (s *keyset) has(kid string) bool {
	return kid == "" || s.kids[kid] || slices.ContainsFunc(s.keys, func(k publicKey) bool { return k.anyKid })
}
