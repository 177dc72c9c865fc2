// Package token issues playback tokens: JWTs by which an edge checks, without a call to the
// service, that a viewer has a stream. A token is valid for about as long as the lease of its
// stream.
package token

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Grace is how long after the end of its stream's lease a token may be valid.
const Grace = 10 * time.Second

// ErrNoKey means that there is no key to sign with yet.
var ErrNoKey = errors.New("token: no key to sign with")

// Config configures an Issuer.
type Config struct {
	Issuer   string        // the claim iss
	Audience string        // the claim aud; "" for none
	Life     time.Duration // of a token
}

// An Issuer issues tokens. It is safe for concurrent use.
type Issuer struct {
	cfg  Config
	keys *Ring
}

// New returns an issuer that signs with the keys of a ring.
func New(cfg Config, keys *Ring) *Issuer { return &Issuer{cfg, keys} }

// Keys returns the keys of the issuer.
func (i *Issuer) Keys() *Ring { return i.keys }

// A Playback is what a token is issued for.
type Playback struct {
	User    string
	Stream  string // an opaque name of the stream, from which its id cannot be derived
	Content string // the id of the content, or ""
	Start   bool   // whether the stream starts now
	// LeaseEnd is when the stream expires. While etcd is unavailable, it is one TTL from now on.
	LeaseEnd time.Time
}

// Expiry returns when the tokens of a playback expire: Config.Life from now on, and at most
// [Grace] after the end of the lease. It is a whole second.
func (i *Issuer) Expiry(p Playback, now time.Time) time.Time {
	end := now.Add(i.cfg.Life)
	if last := p.LeaseEnd.Add(Grace); last.Before(end) {
		end = last
	}
	return end.Truncate(time.Second)
}

// claims are the claims of a token.
type claims struct {
	jwt.RegisteredClaims
	Stream  string `json:"sid"`
	Content string `json:"cid,omitempty"`
}

// JWT returns a signed token that expires at [Issuer.Expiry]. Returns [ErrNoKey].
func (i *Issuer) JWT(p Playback, now time.Time) (string, error) {
	key, ok := i.keys.Signing(now)
	if !ok {
		return "", ErrNoKey
	}
	c := claims{Stream: p.Stream, Content: p.Content, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: i.cfg.Issuer, Subject: p.User, IssuedAt: jwt.NewNumericDate(now.Truncate(time.Second)), ExpiresAt: jwt.NewNumericDate(i.Expiry(p, now)),
	}}
	if i.cfg.Audience != "" {
		c.Audience = jwt.ClaimStrings{i.cfg.Audience}
	}
	if p.Start {
		c.ID = rand.Text()
	}
	text, err := key.sign(c)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return text, nil
}
