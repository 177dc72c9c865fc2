package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"streamcount/internal/retry"
)

const (
	// maxRenewals is the maximum number of new tokens for one call. etcd rejects a JWT
	// whenever an administrator changes any user.
	maxRenewals = 3
	// hedgeAfter is the time that a call waits for a sign-in on another connection, whose
	// member may hang, before it signs in itself.
	hedgeAfter = 500 * time.Millisecond
	// readEvery is the minimum time between two reads of the password file while etcd rejects
	// the password.
	readEvery = 200 * time.Millisecond
)

// A session has a user's token, shared by all clients of one etcd. etcd's own client signs in
// for each stream that it opens, which costs etcd a bcrypt comparison and a write, and it does
// not read the password again.
//
// A session signs in when it has no token or etcd rejects its token. All waiting calls share
// one sign-in. While etcd rejects the password, calls fail at once, and the session retries
// after a backoff or when the password file has changed.
type session struct {
	user, file string
	timeout    time.Duration // of signing in
	log        *zap.Logger

	mu       sync.Mutex
	token    *token // nil if etcd accepts none
	attempt  *attempt
	refusal  error // of the password; nil if it was accepted or not used
	refused  string
	readAt   time.Time // last read of the file because of the refusal
	retryAt  time.Time
	backoff  retry.Backoff
	password string // as last read
}

// A token is the result of one sign-in; "" if etcd has no authentication.
type token struct{ value string }

// attach returns a context that adds the token to calls.
func (t *token) attach(ctx context.Context) context.Context {
	if t.value == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, t.value)
}

// An attempt is one sign-in.
type attempt struct {
	cc    *grpc.ClientConn
	began time.Time
	done  chan struct{} // closed when err is set
	err   error
}

func newSession(cfg ClientConfig) (*session, error) {
	password, err := readPassword(cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	return &session{
		user: cfg.User, file: cfg.PasswordFile, timeout: cfg.CallTimeout, log: cfg.Log, password: password, backoff: newBackoff(),
	}, nil
}

func readPassword(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("etcd password file: %w", err)
	}
	password := strings.TrimRight(string(content), "\r\n")
	if password == "" {
		return "", fmt.Errorf("etcd password file %s is empty", file)
	}
	return password, nil
}

// current returns the token, after a sign-in on cc or another connection if
// there is none.
func (s *session) current(ctx context.Context, cc *grpc.ClientConn) (*token, error) {
	for try := 1; ; try++ {
		t, a, err := s.tokenOrAttempt(cc)
		if t != nil || err != nil {
			return t, err
		}
		if err := a.wait(ctx, cc); err != nil && (isWrongPassword(err) || ctx.Err() != nil || try == maxRenewals) {
			return nil, err
		}
	}
}

// tokenOrAttempt returns the token, the error of a rejected password, or the sign-in to wait
// for.
func (s *session) tokenOrAttempt(cc *grpc.ClientConn) (*token, *attempt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch a := s.attempt; {
	case s.token != nil:
		return s.token, nil, nil
	case a != nil && (a.cc == cc || time.Since(a.began) < hedgeAfter):
		return nil, a, nil
	case s.refusal != nil && time.Now().Before(s.retryAt) && !s.passwordChanged():
		return nil, nil, s.refusal
	}
	s.reloadPassword()
	a := &attempt{cc: cc, began: time.Now(), done: make(chan struct{})}
	s.attempt = a
	go s.signIn(a, s.password)
	return nil, a, nil
}

// passwordChanged reports whether the file has another password than the rejected one.
func (s *session) passwordChanged() bool {
	if time.Since(s.readAt) < readEvery {
		return false
	}
	s.readAt = time.Now()
	s.reloadPassword()
	return s.password != s.refused
}

// reloadPassword reads the password again. If the file cannot be read, it keeps the password.
func (s *session) reloadPassword() {
	if password, err := readPassword(s.file); err == nil {
		s.password = password
	}
}

// signIn makes an attempt. It does not end with the call that began it, because other calls
// wait for it too.
func (s *session) signIn(a *attempt, password string) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	resp, err := pb.NewAuthClient(a.cc).Authenticate(ctx, &pb.AuthenticateRequest{Name: s.user, Password: password})
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(a.done)
	a.err = err
	if s.attempt == a {
		s.attempt = nil
	}
	switch {
	case err == nil:
		s.token = &token{resp.GetToken()}
	case errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled):
		s.token, a.err = &token{}, nil
	case isWrongPassword(err):
		if s.refusal == nil {
			s.log.Warn("etcd does not accept this node's user or password, reading the password file again until it does",
				zap.String("user", s.user), zap.String("file", s.file))
		}
		s.refusal, s.refused, s.retryAt = err, password, time.Now().Add(s.backoff.Next())
		return
	default:
		return
	}
	if s.refusal != nil {
		s.log.Info("etcd accepts this node's user and password again", zap.String("user", s.user))
	}
	s.refusal = nil
	s.backoff.Reset()
}

// wait waits for the end of the attempt; for an attempt on another connection at most
// hedgeAfter.
func (a *attempt) wait(ctx context.Context, cc *grpc.ClientConn) error {
	var hedge <-chan time.Time
	if a.cc != cc {
		timer := time.NewTimer(hedgeAfter)
		defer timer.Stop()
		hedge = timer.C
	}
	select {
	case <-a.done:
		return a.err
	case <-hedge:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// drop removes a token that etcd rejects.
func (s *session) drop(t *token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == t {
		s.token = nil
	}
}

// unary adds the token to calls.
func (s *session) unary(ctx context.Context, method string, req, reply any,
	cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method == pb.Auth_Authenticate_FullMethodName {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	for try := 1; ; try++ {
		t, err := s.current(ctx, cc)
		if err != nil {
			return err
		}
		err = invoke(t.attach(ctx), method, req, reply, cc, opts...)
		if !isTokenError(err) {
			return err
		}
		s.drop(t)
		if try == maxRenewals { // a different text, because etcd's client repeats a call a hundred times after etcd's own error
			return status.Errorf(codes.Unauthenticated, "etcd rejects new tokens too: %v", err)
		}
	}
}

// stream adds the token to streams.
func (s *session) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn,
	method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	t, err := s.current(ctx, cc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(t.attach(ctx))
	stream, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		cancel()
		return nil, err
	}
	return &sessionStream{ClientStream: stream, session: s, token: t, cancel: cancel}, nil
}

// A sessionStream drops the token when etcd rejects it, so that the next stream gets another.
type sessionStream struct {
	grpc.ClientStream
	session *session
	token   *token
	cancel  context.CancelFunc
}

// RecvMsg implements grpc.ClientStream. It ends a watch stream when etcd rejects a new watch
// because of its token, although earlier watches continue: etcd's client then moves all
// watches to a new stream. Otherwise it would open new watches on this stream indefinitely.
func (s *sessionStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if w, ok := m.(*pb.WatchResponse); ok && err == nil && w.GetCanceled() && isTokenText(w.GetCancelReason()) {
		err = status.Error(codes.Unavailable, w.GetCancelReason())
		s.session.drop(s.token)
	}
	if err == nil {
		return nil
	}
	if isTokenError(err) {
		s.session.drop(s.token)
	}
	s.cancel()
	return err
}

// isWrongPassword reports whether etcd rejected the password.
func isWrongPassword(err error) bool { return errors.Is(rpctypes.Error(err), rpctypes.ErrAuthFailed) }

// tokenErrors are the errors that a new token may resolve.
var tokenErrors = []error{rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrUserEmpty}

func isTokenError(err error) bool {
	known := rpctypes.Error(err)
	for _, e := range tokenErrors {
		if errors.Is(known, e) {
			return true
		}
	}
	return false
}

// isTokenText reports whether a token is the reason for the end of a watch.
func isTokenText(reason string) bool {
	return strings.Contains(reason, rpctypes.ErrInvalidAuthToken.Error()) ||
		strings.Contains(reason, rpctypes.ErrAuthOldRevision.Error())
}
