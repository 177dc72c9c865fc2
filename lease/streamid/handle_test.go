package streamid

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestHandle(t *testing.T) {
	form := regexp.MustCompile(`^h_[A-Za-z0-9_-]{20}$`)
	rapid.Check(t, func(t *rapid.T) {
		who := ID{
			Slot: rapid.Uint16().Draw(t, "slot"), Lease: rapid.Int64().Draw(t, "lease"),
			Nonce: Nonce(rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "nonce")),
		}
		id := testSigner(t, "/a", firstSecret).Sign("maya", who)
		h := Handle(id)
		require.Regexp(t, form, h)
		require.True(t, IsHandle(h))
		require.False(t, IsHandle(id))
		require.NotContains(t, id, h[2:])
		require.NotEqual(t, h, Handle(id+"\n"))
		require.Equal(t, h, Handle(id), "the same every time")
		require.Equal(t, h, Handle(testSigner(t, "/a", []byte("another secret of 32 bytes......")).Sign("maya", who)),
			"the same when the secret is changed")
		other := who
		other.Nonce[rapid.IntRange(0, 11).Draw(t, "byte")] ^= 1
		require.NotEqual(t, h, Handle(testSigner(t, "/a", firstSecret).Sign("maya", other)))
	})
}

// Keys that others wrote below a user's prefix have no nonce.
func TestHandle_OfStreamsWithoutANonce(t *testing.T) {
	s := testSigner(t, "/a", firstSecret)
	assert.NotEqual(t, Handle(s.Sign("maya", ID{Slot: 1})), Handle(s.Sign("maya", ID{Slot: 2})))
}

func TestHandle_IsNoID(t *testing.T) {
	s := testSigner(t, "/a", firstSecret)
	h := Handle(s.Sign("maya", ID{Slot: 1, Lease: 7, Nonce: Nonce{1}}))
	_, err := s.Parse("maya", h)
	require.ErrorIs(t, err, ErrMalformed)
	require.ErrorIs(t, err, ErrHandle)
	_, err = s.Parse("maya", "x")
	require.NotErrorIs(t, err, ErrHandle)
}
