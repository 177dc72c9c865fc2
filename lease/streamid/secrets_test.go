package streamid

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func newValue(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

func TestSecrets_AreStoredAndRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := ParseSecrets(firstSecret)
		require.NoError(t, err)
		require.Equal(t, firstSecret, s.Value(), "until the first rotation as earlier versions read it")
		for i := range rapid.IntRange(0, 600).Draw(t, "rotations") {
			next, err := s.Rotate(newValue(byte(i)), time.UnixMilli(int64(i+1)))
			if s.Len() == maxSecrets {
				require.Error(t, err)
				next = s.RetireOld()
			} else {
				require.NoError(t, err)
				require.True(t, next.Overlaps(s))
				require.Equal(t, next, s.Newer(next))
				require.Equal(t, next, next.Newer(s))
			}
			s = next
			again, err := ParseSecrets(s.Value())
			require.NoError(t, err)
			require.Equal(t, s, again)
		}
	})
	for _, bad := range []string{"", "short", `{"secrets":[]}`, `{"secrets":[{"k":0,"s":"AAAAAAAAAAAAAAAAAAAAAAAA"}]}`, `{"secrets":[{"k":1}]}`, `{"secrets":[`} {
		_, err := ParseSecrets([]byte(bad))
		assert.Error(t, err, bad)
	}
}

// Ids are issued with a secret when all nodes have it, and with no older one after the
// time for which a retirement counts streams.
func TestSigner_IssuesWithASecretThatAllNodesHave(t *testing.T) {
	now := time.Now()
	issued := func(s Signer) int { return int(s.keyring.Load().signingNumber()) }
	made := func(ages ...time.Duration) Secrets {
		s, err := ParseSecrets(firstSecret)
		require.NoError(t, err)
		for i, age := range ages {
			s, err = s.Rotate(newValue(byte(i+2)), now.Add(-age))
			require.NoError(t, err)
		}
		return s
	}
	assert.Equal(t, 1, issued(NewSigner("/x", made())))
	assert.Equal(t, 1, issued(NewSigner("/x", made(time.Second))), "a node starts just after a rotation")
	assert.Equal(t, 2, issued(NewSigner("/x", made(2*secretTrustedAge))), "a node starts long after a rotation")
	assert.Equal(t, 2, issued(NewSigner("/x", made(2*secretTrustedAge, time.Second))))

	s := NewSigner("/x", made())
	for i := range 3 { // rotations in quick succession
		ages := make([]time.Duration, i+1)
		s.SetSecrets(made(ages...), now)
		assert.Equal(t, 1, issued(s), "after %d rotations", i+1)
	}
	s.SetSecrets(made(0, 0), now)
	require.False(t, s.SetSecrets(s.Secrets(), now.Add(-2*secretActivationDelay)))
	s.SetSecrets(made(0, 0, 0), now)
	assert.Equal(t, 3, issued(s))
}

func TestSecrets_SucceedKeepsSecretsThatABackupLacks(t *testing.T) {
	old, err := ParseSecrets(firstSecret)
	require.NoError(t, err)
	rotated, err := old.Rotate(newValue(2), time.Now())
	require.NoError(t, err)
	assert.Equal(t, rotated, rotated.Succeed(old), "a rotation")
	assert.Equal(t, rotated.RetireOld(), rotated.RetireOld().Succeed(rotated), "a retirement")
	restored := old.Succeed(rotated)
	assert.Equal(t, 2, restored.Len())
	assert.True(t, restored.has(rotated.newest()))
	assert.Equal(t, old.newest(), restored.newest())
}
