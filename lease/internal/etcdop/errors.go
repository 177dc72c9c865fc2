package etcdop

import (
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

var (
	// ErrLeaseGone means that a transaction or a renewal named a lease that does not
	// exist. etcd checks leases before it writes, so nothing of the transaction was
	// applied.
	ErrLeaseGone = errors.New("lease not found")

	// ErrNotApplied means that a write was rejected or cancelled before etcd proposed
	// it. The outcome of any other failed write is unknown.
	ErrNotApplied = errors.New("refused")

	// ErrUnavailable means that etcd did not answer in time, or rejected the call for
	// a reason that the caller cannot change. The outcome of a write is unknown.
	ErrUnavailable = errors.New("lease: etcd is unavailable")
)

// Unavailable returns err as an [ErrUnavailable] that names the failed operation. It
// returns an err that is an ErrUnavailable already unchanged.
func Unavailable(operation string, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, strings.TrimSpace(operation), err)
}

// Classify wraps the error of a transaction in [ErrLeaseGone] or [ErrNotApplied] if
// one of them applies. It compares etcd's error texts, because some rejections have
// the gRPC code Unknown. The outcome of a write with any other error is unknown: etcd
// may have applied it even if the error is "no space" (etcd issue 16659).
func Classify(err error) error {
	var etcdErr rpctypes.EtcdError
	if !errors.As(rpctypes.Error(err), &etcdErr) {
		return err
	}
	switch {
	case errors.Is(etcdErr, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%w: %w", ErrLeaseGone, err)
	case IsOversized(etcdErr),
		errors.Is(etcdErr, rpctypes.ErrTooManyRequests),
		errors.Is(etcdErr, rpctypes.ErrDuplicateKey),
		errors.Is(etcdErr, rpctypes.ErrPermissionDenied),
		errors.Is(etcdErr, rpctypes.ErrAuthFailed),
		errors.Is(etcdErr, rpctypes.ErrUserEmpty),
		errors.Is(etcdErr, rpctypes.ErrInvalidAuthToken),
		errors.Is(etcdErr, rpctypes.ErrAuthOldRevision):
		return fmt.Errorf("%w: %w", ErrNotApplied, err)
	}
	return err
}

// IsOversized reports whether etcd rejected a transaction because it is too large.
func IsOversized(err error) bool {
	etcdErr := rpctypes.Error(err)
	return errors.Is(etcdErr, rpctypes.ErrTooManyOps) || errors.Is(etcdErr, rpctypes.ErrRequestTooLarge)
}

// IsFull reports whether etcd rejected a write because its database has reached its
// quota. Deletions, revocations and renewals still succeed then. [rpctypes.Error]
// does not unwrap, so a wrapped gRPC error is compared separately.
func IsFull(err error) bool {
	return errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrGRPCNoSpace)
}

// IsAuthFailure reports whether etcd rejected the user name or password of this node.
func IsAuthFailure(err error) bool {
	return errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrGRPCAuthFailed)
}
