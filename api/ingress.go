package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"streamcount/access"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/playback"
	"streamcount/api/internal/problem"
)

// IngressConfig configures what a Server accepts from outside.
type IngressConfig = ingress.Config

// CheckHost, CheckOrigin and CheckCORSHeader check values of an [IngressConfig].
var (
	CheckHost       = ingress.CheckHost
	CheckOrigin     = ingress.CheckOrigin
	CheckCORSHeader = ingress.CheckCORSHeader
)

// refusalProblem returns the problem for a request that ingress refused; nil if it did not.
func refusalProblem(refusal ingress.Refusal) *problem.Problem {
	switch refusal {
	case ingress.AmbiguousLength:
		return problem.Malformed.New("It is not clear where the body ends: send Content-Length or, with HTTP/1.1, "+
			"Transfer-Encoding, never both, and no folded header lines.").WithHeader("Connection", "close")
	case ingress.PlainHTTP2:
		return problem.Malformed.New("HTTP/2 requires TLS: use HTTP/1.1.").WithHeader("Connection", "close")
	case ingress.TooManyHeaders:
		return problem.HeadersTooLarge.New(fmt.Sprintf("Send at most %d headers.", ingress.MaxHeaders))
	case ingress.TargetTooLong:
		return problem.TargetTooLong.New(fmt.Sprintf("Keep the path and query within %d KiB.", ingress.MaxTarget>>10))
	case ingress.WrongHost:
		return problem.Misdirected.New("The service does not answer to the host name in the request. An operator allows " +
			"a name, such as that of a Kubernetes Service, by the setting hosts (--hosts, STREAMCOUNT_HOSTS).")
	case ingress.ThroughProxy:
		return problem.Misdirected.New("The request came through a proxy, but this node requires no credential " +
			"because only its own machine reaches it. An operator sets up credentials, or lets every client that " +
			"reaches the proxy act for any user by the setting auth-none (--auth-none).")
	case ingress.Accepted:
	}
	return nil
}

// checkHost rejects a request that is not for this service. Health and public keys are served for
// every host, because a kubelet and Prometheus use the address of a pod. So is /metrics where it needs a
// credential, or by an IP address: the DNS name of an attacker's page cannot be one.
func (s *Server) checkHost(r *http.Request) *problem.Problem {
	switch r.URL.Path {
	case "/healthz", "/readyz", playback.JWKSPath:
		return nil
	case metricsPath:
		if s.cfg.Access != nil || ingress.IsIPHost(r.Host) {
			return nil
		}
	}
	return refusalProblem(s.ingress.CheckHost(r))
}

// checkCrossSite rejects a request by which a page of another origin makes the browser of a
// visitor change something. Only unauthenticated calls need it: such a page has neither a
// credential nor the id of a stream.
func (s *Server) checkCrossSite(r *http.Request, c access.Caller, hasStreamID bool) *problem.Problem {
	if c.Kind != access.Unrestricted || hasStreamID || !s.ingress.CrossSite(r) {
		return nil
	}
	return problem.CrossOrigin.New("Pages of that origin may not call. An operator can allow it.")
}

// receive reads the body of r, up to limit bytes and one more.
func (s *Server) receive(rec *recorder, r *http.Request, limit int64) ([]byte, *problem.Problem) {
	body, data, err := s.ingress.Receive(rec, r, limit, rec.client, rec.caller.HasKey())
	rec.body = body
	var rejected *ingress.BodyError
	var slow net.Error
	switch {
	case err == nil:
		return data, nil
	case errors.As(err, &rejected):
		s.load.Count(rejected.Bound)
		return nil, rejection(rejected.Bound, 0).WithHeader("Connection", "close")
	case errors.As(err, &slow) && slow.Timeout():
		return nil, problem.RequestTimeout.New(fmt.Sprintf("The body did not arrive in time: send its first %d KiB within %v, and the "+
			"rest at %d KiB a second or faster.", ingress.MaxSmallBody>>10, s.cfg.Ingress.BodyTimeout, ingress.MinBodyRate>>10)).
			WithHeader("Connection", "close")
	default:
		return nil, problem.Malformed.New("The body ended early, or its chunks are malformed.").
			WithField("body", "expected all of it").WithHeader("Connection", "close")
	}
}

// network returns the key by which the requests of the client are counted: its network, and
// what a proxy wrote in place of an address.
func (r *recorder) network() string {
	network := ingress.Network(r.client).String()
	if r.invalidHop != "" {
		return network + " " + r.invalidHop
	}
	return network
}

// loadControl is what a Server uses of an [overload.Control].
type loadControl interface {
	Run(ctx context.Context) error
	Admit(r overload.Request) (overload.Admission, overload.Bound)
	HasRate(b overload.Bound) bool
	TakeRate(ctx context.Context, b overload.Bound, key string) time.Duration
	AdmitEventStream(caller string) (done func(), bound overload.Bound)
	Count(b overload.Bound)
	Rejected() map[string]int64
	InFlight() int
	EventStreams() int
}

// admit calls handle if the node accepts the request, and responds with a rejection if not.
func (s *Server) admit(rec *recorder, class overload.Class, handle func()) {
	admission, bound := s.load.Admit(overload.Request{
		Class: class, Client: ingress.Network(rec.client), Unlimited: rec.caller.HasKey() || s.ingress.Exempt(rec.client),
	})
	if bound != overload.None {
		rejection(bound, 0).Write(rec)
		return
	}
	defer admission.Done()
	handle()
}

// AdmitStart admits a start that another listener of the node makes for user, by the same limits
// as the starts that the Server answers, or returns the bound that rejects it. After an admitted
// start the caller calls done.
func (s *Server) AdmitStart(ctx context.Context, user string) (done func(), bound overload.Bound) {
	if s.load.TakeRate(ctx, overload.RatePerUser, user) > 0 {
		return nil, overload.RatePerUser
	}
	admission, bound := s.load.Admit(overload.Request{Class: overload.Start, Unlimited: true})
	return admission.Done, bound
}

// takeRate counts a request of key against a rate, and returns the problem if the rate is
// exceeded.
func (s *Server) takeRate(ctx context.Context, b overload.Bound, key string) *problem.Problem {
	if wait := s.load.TakeRate(ctx, b, key); wait > 0 {
		return rejection(b, wait)
	}
	return nil
}

// maxRetryAfter is the largest Retry-After of a rejection by a rate.
const maxRetryAfter = time.Minute

// rejection returns the problem for a request that a bound rejects. wait is the time until
// a rate accepts the next request.
func rejection(b overload.Bound, wait time.Duration) *problem.Problem {
	kind, retryAfter := problem.Overloaded, problem.RetryAfterJittered()
	if b.Row().Status == http.StatusTooManyRequests {
		kind, retryAfter = problem.TooManyRequests, strconv.Itoa(problem.WholeSeconds(min(wait, maxRetryAfter)))
	}
	return kind.New(b.Row().Detail+" Continue playback, and repeat the request after the number of seconds in Retry-After.").
		WithHeader("Retry-After", retryAfter)
}
