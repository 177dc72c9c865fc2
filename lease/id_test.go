package lease

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var testSecret = []byte("0123456789abcdef0123456789abcdef")

func TestSigner_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSigner("/p", testSecret)
		id := ident{slot: rapid.Uint16().Draw(t, "slot"), lease: rapid.Int64().Draw(t, "lease")}
		copy(id.nonce[:], rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "nonce"))
		user := rapid.StringMatching(`[A-Za-z0-9._~@:|+=-]{1,128}`).Draw(t, "user")
		text := s.sign(user, id)
		got, err := s.open(user, text)
		if err != nil || got != id {
			t.Fatalf("open(sign(%+v)) = %+v, %v", id, got, err)
		}
		if len(text) > 64 || strings.ContainsAny(text, "+/=") {
			t.Fatalf("%q is not short and URL-safe", text)
		}
	})
}

func TestSigner_BoundTo(t *testing.T) {
	s := newSigner("/p", testSecret)
	text := s.sign("maya", ident{slot: 1, lease: 2})
	for name, other := range map[string]struct {
		s    signer
		user string
	}{
		"user":        {s, "ben"},
		"userPrefix":  {s, "may"},
		"secret":      {newSigner("/p", []byte("another secret of 32 bytes......")), "maya"},
		"etcdPrefix":  {newSigner("/q", testSecret), "maya"},
		"shiftedNull": {newSigner("/p", testSecret), "p\x00maya"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := other.s.open(other.user, text)
			assert.ErrorIs(t, err, ErrForeignID)
		})
	}
}

func TestSigner_EveryBitCounts(t *testing.T) {
	s := newSigner("/p", testSecret)
	text := s.sign("maya", ident{slot: 1, lease: 2, nonce: nonce{3}})
	raw, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	for bit := range len(raw) * 8 {
		flipped := append([]byte(nil), raw...)
		flipped[bit/8] ^= 1 << (bit % 8)
		_, err := s.open("maya", base64.RawURLEncoding.EncodeToString(flipped))
		assert.ErrorIs(t, err, ErrForeignID, "bit %d", bit)
	}
}

func TestSigner_NoID(t *testing.T) {
	s := newSigner("/p", testSecret)
	text := s.sign("maya", ident{})
	for _, bad := range []string{
		"", "zzz", text[1:], text + "A", text + "=", strings.Repeat("A", 5000),
		"+" + text[1:], "/" + text[1:], "\n" + text[1:], text[:51] + "\x00", strings.Repeat("é", 26),
	} {
		_, err := s.open("maya", bad)
		assert.ErrorIs(t, err, ErrBadID, "%q", bad)
	}
}

func FuzzSigner_Open(f *testing.F) {
	s := newSigner("/p", testSecret)
	f.Add("maya", s.sign("maya", ident{slot: 2, lease: 7}))
	f.Add("maya", "zzz")
	f.Fuzz(func(t *testing.T, user, text string) {
		id, err := s.open(user, text)
		if err == nil && s.sign(user, id) != text {
			t.Fatalf("%q opens as %+v, which has another spelling", text, id)
		}
	})
}
