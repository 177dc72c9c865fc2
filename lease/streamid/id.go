package streamid

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrForeign means that the stream id is well formed, but was not issued for
	// this user, or not by this service.
	ErrForeign = errors.New("not a stream of this user")

	// ErrMalformed means that the text is not a stream id.
	ErrMalformed = errors.New("malformed stream id")

	// ErrHandle means that the text is a stream's handle, which cannot be used in
	// place of its id. It is an [ErrBadID].
	ErrHandle = fmt.Errorf("%w: it is a handle", ErrMalformed)

	// ErrUnknownSecret means that this node does not have the secret with the id's
	// number. It is an [ErrForeignID].
	ErrUnknownSecret = fmt.Errorf("%w: it was signed with a secret that is not in use", ErrForeign)
)

// A Nonce distinguishes streams that had the same slot or lease.
type Nonce [12]byte

// String returns the nonce as base64url.
func (n Nonce) String() string { return base64.RawURLEncoding.EncodeToString(n[:]) }

// MarshalText encodes the nonce for records and keys.
func (n Nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText decodes the result of MarshalText, and refuses any other text.
func (n *Nonce) UnmarshalText(text []byte) error { return DecodeBase64(n[:], text) }

// DecodeBase64 decodes base64url into dst. It refuses a text that is not the encoding of
// len(dst) bytes. Package base64 ignores line breaks, so a text of the right length that
// contains line breaks yields fewer bytes.
func DecodeBase64(dst, text []byte) error {
	if len(text) != encoding.EncodedLen(len(dst)) {
		return fmt.Errorf("want %d characters of base64url instead of %d", encoding.EncodedLen(len(dst)), len(text))
	}
	n, err := encoding.Decode(dst, text)
	if err == nil && n != len(dst) {
		err = errors.New("base64url with a line break")
	}
	return err
}

// ID is the content of a stream id.
type ID struct {
	Slot  uint16
	Lease int64
	Nonce Nonce
}

// A stream id is base64url(secret number | slot | lease | nonce | MAC). The MAC binds
// the id to its user and to the etcd prefix, so a forged id, or the id of another
// user, is rejected without a request to etcd. 39 bytes are 52 characters without
// spare bits, so each id has exactly one spelling.
const (
	payloadSize = 1 + 2 + 8 + len(Nonce{})
	macSize     = 16
	idSize      = payloadSize + macSize
	idLength    = idSize / 3 * 4 // characters
)

// encoding accepts no other spelling of an id, except one with line breaks.
var encoding = base64.RawURLEncoding.Strict()

// A Signer issues and verifies stream ids. It is safe for concurrent use.
type Signer struct {
	prefix  string
	keyring *atomic.Pointer[keyring]
}

// keyring holds the secrets of a signer.
type keyring struct {
	secrets Secrets
	macs    [256]*sync.Pool // of [macState], by the number of the secret: keying a hash costs more than using it
	// since is when the node received each secret. It is zero for a secret that all
	// nodes have had for long.
	since [256]time.Time
}

// NewSigner returns a signer for the ids of the streams below an etcd prefix.
func NewSigner(prefix string, secrets Secrets) Signer {
	s := Signer{prefix, new(atomic.Pointer[keyring])}
	s.keyring.Store(&keyring{})
	s.SetSecrets(secrets, time.Now())
	return s
}

// Secrets returns the secrets that the signer uses.
func (s Signer) Secrets() Secrets { return s.keyring.Load().secrets }

// SetSecrets replaces the secrets of s with those that the node received at that time,
// and reports whether that changed them. A secret that s already has keeps the earlier
// time. Of the secrets that NewSigner sets, all nodes already have those that are older
// than secretTrustedAge.
func (s Signer) SetSecrets(secrets Secrets, received time.Time) (changed bool) {
	old := s.keyring.Load()
	first := len(old.secrets.all) == 0
	r := &keyring{secrets: secrets}
	for _, k := range secrets.all {
		if !first || received.Sub(time.UnixMilli(k.Created)) < secretTrustedAge {
			r.since[k.Number] = received
		}
		if old.secrets.has(k) {
			r.macs[k.Number] = old.macs[k.Number]
			if old.since[k.Number].Before(received) {
				r.since[k.Number] = old.since[k.Number]
			}
			continue
		}
		changed = true
		r.macs[k.Number] = &sync.Pool{New: func() any { return &macState{hash: hmac.New(sha256.New, k.Bytes)} }}
	}
	changed = changed || len(old.secrets.all) != len(secrets.all)
	s.keyring.Store(r)
	return changed
}

// signingNumber returns the number of the secret that signs new ids: the newest
// secret that this node has had for secretActivationDelay, or else the oldest.
func (r *keyring) signingNumber() byte {
	all := r.secrets.all
	for i := len(all) - 1; i > 0; i-- {
		if n := all[i].Number; time.Since(r.since[n]) >= secretActivationDelay {
			return n
		}
	}
	return all[0].Number
}

// Sign returns the id of user's stream as text.
func (s Signer) Sign(user string, id ID) string {
	b := make([]byte, payloadSize, idSize)
	r := s.keyring.Load()
	b[0] = r.signingNumber()
	binary.BigEndian.PutUint16(b[1:], id.Slot)
	binary.BigEndian.PutUint64(b[3:], uint64(id.Lease))
	copy(b[11:], id.Nonce[:])
	return encoding.EncodeToString(s.appendMAC(b, r, user, b))
}

// Parse verifies an id that was issued for user, and returns its content. It returns
// [ErrBadID] if text is not a stream id, and [ErrForeignID] if the id was not issued
// for this user here. It does not allocate for a valid id.
func (s Signer) Parse(user, text string) (ID, error) {
	if IsHandle(text) {
		return ID{}, ErrHandle
	}
	if len(text) != idLength {
		return ID{}, fmt.Errorf("%w: want %d characters", ErrMalformed, idLength)
	}
	var chars [idLength]byte
	var b [idSize]byte
	copy(chars[:], text)
	if DecodeBase64(b[:], chars[:]) != nil {
		return ID{}, fmt.Errorf("%w: not base64url", ErrMalformed)
	}
	r := s.keyring.Load()
	if r.macs[b[0]] == nil {
		return ID{}, ErrUnknownSecret
	}
	var mac [macSize]byte
	if !hmac.Equal(b[payloadSize:], s.appendMAC(mac[:0], r, user, b[:payloadSize])) {
		return ID{}, ErrForeign
	}
	id := ID{
		Slot:  binary.BigEndian.Uint16(b[1:]),
		Lease: int64(binary.BigEndian.Uint64(b[3:])),
	}
	copy(id.Nonce[:], b[11:])
	return id, nil
}

// macState is a keyed hash with its buffers.
type macState struct {
	hash     hash.Hash
	message  []byte
	checksum []byte
}

// appendMAC appends the MAC of payload for user to b.
func (s Signer) appendMAC(b []byte, r *keyring, user string, payload []byte) []byte {
	pool := r.macs[payload[0]]
	m := pool.Get().(*macState)
	defer pool.Put(m)
	// NUL cannot occur in a prefix or in a user id, so the boundaries are unambiguous.
	m.message = append(append(append(m.message[:0], s.prefix...), 0), user...)
	m.message = append(append(m.message, 0), payload...)
	m.hash.Reset()
	_, _ = m.hash.Write(m.message) // a hash never returns an error
	m.checksum = m.hash.Sum(m.checksum[:0])
	return append(b, m.checksum[:macSize]...)
}
