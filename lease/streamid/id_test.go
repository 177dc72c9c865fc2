package streamid

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var firstSecret = []byte("0123456789abcdef0123456789abcdef")

func testSigner(t require.TestingT, prefix string, secret []byte) Signer {
	secrets, err := ParseSecrets(secret)
	require.NoError(t, err)
	return NewSigner(prefix, secrets)
}

func TestSigner_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := testSigner(t, "/p", firstSecret)
		id := ID{Slot: rapid.Uint16().Draw(t, "slot"), Lease: rapid.Int64().Draw(t, "lease")}
		copy(id.Nonce[:], rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "nonce"))
		user := rapid.StringMatching(`[A-Za-z0-9._~@:|+=-]{1,128}`).Draw(t, "user")
		text := s.Sign(user, id)
		got, err := s.Parse(user, text)
		if err != nil || got != id {
			t.Fatalf("open(sign(%+v)) = %+v, %v", id, got, err)
		}
		if len(text) > 64 || strings.ContainsAny(text, "+/=") {
			t.Fatalf("%q is not short and URL-safe", text)
		}
	})
}

func TestSigner_BoundTo(t *testing.T) {
	s := testSigner(t, "/p", firstSecret)
	text := s.Sign("maya", ID{Slot: 1, Lease: 2})
	for name, other := range map[string]struct {
		s    Signer
		user string
	}{
		"user":        {s, "ben"},
		"userPrefix":  {s, "may"},
		"secret":      {testSigner(t, "/p", []byte("another secret of 32 bytes......")), "maya"},
		"etcdPrefix":  {testSigner(t, "/q", firstSecret), "maya"},
		"shiftedNull": {testSigner(t, "/p", firstSecret), "p\x00maya"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := other.s.Parse(other.user, text)
			assert.ErrorIs(t, err, ErrForeign)
		})
	}
}

func TestSigner_EveryBitCounts(t *testing.T) {
	s := testSigner(t, "/p", firstSecret)
	text := s.Sign("maya", ID{Slot: 1, Lease: 2, Nonce: Nonce{3}})
	raw, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	for bit := range len(raw) * 8 {
		flipped := append([]byte(nil), raw...)
		flipped[bit/8] ^= 1 << (bit % 8)
		_, err := s.Parse("maya", base64.RawURLEncoding.EncodeToString(flipped))
		assert.ErrorIs(t, err, ErrForeign, "bit %d", bit)
	}
}

func TestSigner_NoID(t *testing.T) {
	s := testSigner(t, "/p", firstSecret)
	text := s.Sign("maya", ID{})
	for _, bad := range []string{
		"", "zzz", text[1:], text + "A", text + "=", strings.Repeat("A", 5000),
		"+" + text[1:], "/" + text[1:], "\n" + text[1:], text[:51] + "\x00", strings.Repeat("é", 26),
	} {
		_, err := s.Parse("maya", bad)
		assert.ErrorIs(t, err, ErrMalformed, "%q", bad)
	}
}

// Of the texts that package base64 decodes, only the encoding itself is accepted.
func TestDecodeBase64(t *testing.T) {
	want := Nonce{1, 2, 3}
	text := want.String()
	var got Nonce
	require.NoError(t, got.UnmarshalText([]byte(text)))
	assert.Equal(t, want, got)
	for _, bad := range []string{
		"", text[1:], text + "A", text + "\n", text[:15] + "\n", "\r\n" + text[2:], text[:4] + "\n\n\n\n" + text[8:], text[:15] + "=", "+" + text[1:],
	} {
		assert.Error(t, got.UnmarshalText([]byte(bad)), "%q", bad)
	}
	assert.Error(t, DecodeBase64(make([]byte, 1), []byte("AB")), "spare bits")
}

func FuzzSigner_Open(f *testing.F) {
	s := testSigner(f, "/p", firstSecret)
	f.Add("maya", s.Sign("maya", ID{Slot: 2, Lease: 7}))
	f.Add("maya", "zzz")
	f.Fuzz(func(t *testing.T, user, text string) {
		id, err := s.Parse(user, text)
		if err == nil && s.Sign(user, id) != text {
			t.Fatalf("%q opens as %+v, which has another spelling", text, id)
		}
	})
}

func BenchmarkSigner_Parse(b *testing.B) {
	s := testSigner(b, "/p", firstSecret)
	text := s.Sign("maya", ID{Slot: 2, Lease: 7})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Parse("maya", text); err != nil {
			b.Fatal(err)
		}
	}
}
