package lease

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/policy"
)

func TestNew_RejectsInvalidConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"limit":     {Limit: 61, Secret: testSecret},
		"negative":  {Limit: -1, Secret: testSecret},
		"shortTTL":  {TTL: time.Second, Secret: testSecret},
		"longTTL":   {TTL: 25 * time.Hour, Secret: testSecret},
		"brokenTTL": {TTL: 5500 * time.Millisecond, Secret: testSecret},
		"noSecret":  {},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Etcd{}, cfg)
			assert.Error(t, err)
		})
	}
	l, err := New(Etcd{}, Config{Secret: testSecret})
	require.NoError(t, err)
	assert.Equal(t, DefaultTTL, l.cfg.TTL)
}

func TestErrors_MatchTheirSentinels(t *testing.T) {
	assert.ErrorIs(t, fmt.Errorf("x: %w", &LimitError{Limit: 3}), ErrLimit)
	assert.ErrorIs(t, fmt.Errorf("x: %w", &EndedError{Reason: policy.ReasonStopped}), ErrEnded)
	assert.Contains(t, (&LimitError{Limit: 3, Active: make([]Stream, 3)}).Error(), "3 of 3")
}
