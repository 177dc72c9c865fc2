package etcdop

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestClassify(t *testing.T) {
	tests := []struct {
		err  error
		want error // nil: the outcome is unknown
	}{
		{rpctypes.ErrGRPCLeaseNotFound, ErrLeaseGone},
		{rpctypes.ErrLeaseNotFound, ErrLeaseGone},
		{rpctypes.ErrGRPCTooManyOps, ErrNotApplied},
		{rpctypes.ErrGRPCRequestTooManyRequests, ErrNotApplied},
		{status.Error(codes.Unknown, "etcdserver: too many requests"), ErrNotApplied}, // as it travels
		{rpctypes.ErrGRPCPermissionDenied, ErrNotApplied},
		{rpctypes.ErrGRPCNoSpace, nil}, // it may have been applied (etcd issue 16659)
		{rpctypes.ErrGRPCTimeout, nil},
		{rpctypes.ErrGRPCLeaderChanged, nil},
		{status.Error(codes.Unavailable, "connection reset"), nil},
		{context.DeadlineExceeded, nil},
	}
	for _, tt := range tests {
		got := Classify(tt.err)
		for _, known := range []error{ErrLeaseGone, ErrNotApplied} {
			assert.Equal(t, errors.Is(tt.want, known), errors.Is(got, known), "%v as %v", tt.err, known)
		}
	}
}

func TestUnavailable_WrapsOnce(t *testing.T) {
	err := Unavailable("read a user", context.DeadlineExceeded)
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.EqualError(t, err, "lease: etcd is unavailable: read a user: context deadline exceeded")
	assert.Equal(t, err, Unavailable("start", err))
}

func TestIsFull_FindsWrappedErrors(t *testing.T) {
	assert.True(t, IsFull(rpctypes.ErrGRPCNoSpace))
	assert.True(t, IsFull(fmt.Errorf("start: %w", rpctypes.ErrGRPCNoSpace)))
	assert.False(t, IsFull(rpctypes.ErrGRPCTooManyOps))
}
