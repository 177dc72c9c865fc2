package lease

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"sync"
)

// A stream id is base64url(version | slot | lease | nonce | MAC). The MAC binds
// it to its user and to the etcd prefix, so that a forged id, or another
// user's, is refused by arithmetic before etcd is asked. 39 bytes make 52
// characters without spare bits, so each id has one spelling.
const (
	idVersion = 1
	idPayload = 1 + 2 + 8 + len(nonce{})
	idMAC     = 16
	idLen     = idPayload + idMAC
)

// ident is what a stream id says.
type ident struct {
	slot  uint16
	lease int64
	nonce nonce
}

// signer makes and checks stream ids. Make one with newSigner.
type signer struct {
	prefix string
	macs   *sync.Pool // of keyed hashes: to key one costs more than to use it
}

func newSigner(prefix string, secret []byte) signer {
	return signer{prefix, &sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}
}

// sign returns the id of user's stream.
func (s signer) sign(user string, id ident) string {
	b := make([]byte, idPayload, idLen)
	b[0] = idVersion
	binary.BigEndian.PutUint16(b[1:], id.slot)
	binary.BigEndian.PutUint64(b[3:], uint64(id.lease))
	copy(b[11:], id.nonce[:])
	return base64.RawURLEncoding.EncodeToString(append(b, s.mac(user, b)...))
}

// open reads an id that must be user's. It returns [ErrBadID] for what is no id
// at all and [ErrForeignID] for one that was not made for this user here.
func (s signer) open(user, text string) (ident, error) {
	if len(text) != base64.RawURLEncoding.EncodedLen(idLen) {
		return ident{}, fmt.Errorf("%w: want %d characters", ErrBadID, base64.RawURLEncoding.EncodedLen(idLen))
	}
	b := make([]byte, idLen)
	if n, err := base64.RawURLEncoding.Strict().Decode(b, []byte(text)); err != nil || n != idLen {
		return ident{}, fmt.Errorf("%w: not base64url", ErrBadID)
	}
	if !hmac.Equal(b[idPayload:], s.mac(user, b[:idPayload])) || b[0] != idVersion {
		return ident{}, ErrForeignID
	}
	id := ident{
		slot:  binary.BigEndian.Uint16(b[1:]),
		lease: int64(binary.BigEndian.Uint64(b[3:])),
	}
	copy(id.nonce[:], b[11:])
	return id, nil
}

func (s signer) mac(user string, payload []byte) []byte {
	h := s.macs.Get().(hash.Hash)
	defer s.macs.Put(h)
	h.Reset()
	// A NUL can be in neither prefix nor user, so no two triples run together.
	_, _ = io.WriteString(h, s.prefix) // a hash takes all
	_, _ = h.Write([]byte{0})
	_, _ = io.WriteString(h, user)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(payload)
	return h.Sum(nil)[:idMAC]
}
