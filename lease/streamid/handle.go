package streamid

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// A handle identifies a stream in logs, and for callers that may read but not act.
// It is a hash of the nonce in the stream's id, so the id cannot be derived from it,
// and it stays the same when the secrets change.
const (
	handlePrefix = "h_"
	handleBytes  = 15 // of the hash: 20 characters
	handleLen    = len(handlePrefix) + handleBytes*4/3
)

// Handle returns the handle of the stream with that id. It does not verify the id;
// the handle of any other text identifies no stream.
func Handle(id string) string {
	seed := []byte(id)
	if b := make([]byte, idSize); DecodeBase64(b, seed) == nil {
		seed = b[1:payloadSize] // slot, lease and nonce
		if n := Nonce(b[11:payloadSize]); n != (Nonce{}) {
			seed = n[:]
		}
	}
	sum := sha256.Sum256(append([]byte("streamcount handle\x00"), seed...))
	return handlePrefix + base64.RawURLEncoding.EncodeToString(sum[:handleBytes])
}

// IsHandle reports whether text has the form of a handle. No stream id has it.
func IsHandle(text string) bool {
	return len(text) == handleLen && strings.HasPrefix(text, handlePrefix)
}
