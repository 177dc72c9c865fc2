package etcdlog

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Repeated lines are dropped after the tenth. A fatal error always panics.
func TestServer_DropsRepeatedLines(t *testing.T) {
	core, lines := observer.New(zap.DebugLevel)
	log := Server(zap.New(core), nil)
	for range 50 {
		log.Warn("failed to revoke lease")
	}
	log.Warn("something else")
	log.Info("less than a warning")
	assert.Equal(t, 10, lines.FilterMessage("failed to revoke lease").Len())
	assert.Equal(t, 1, lines.FilterMessage("something else").Len())
	assert.Equal(t, 11, lines.Len())
	for range 20 {
		assert.Panics(t, func() { log.Fatal("fatal") })
	}
}

// A new member may look for the version of its storage before its first term is stored.
func TestServer_DropsMissingFirstTerm(t *testing.T) {
	core, lines := observer.New(zap.DebugLevel)
	log := Server(zap.New(core), nil)
	missing := errors.New("missing term information")
	log.Warn("Failed to detect schema version", zap.Error(missing))
	log.Error("failed to update storage version", zap.Error(fmt.Errorf("cannot detect storage schema version: %w", missing)))
	log.Debug("failed to update storage version", zap.Error(errors.New("disk")))
	assert.Zero(t, lines.Len())
	log.Error("failed to update storage version", zap.Error(errors.New("disk")))
	log.Error("something else", zap.Error(missing))
	assert.Equal(t, 2, lines.Len())
}
