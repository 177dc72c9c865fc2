package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"streamcount/api/apitype"
	"streamcount/api/edge/profile"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/problem"
	"streamcount/lease/policy"
)

var kinds = map[profile.Kind]string{
	profile.Counted: "counted", profile.Checked: "checked", profile.Passed: "passed", profile.Denied: "denied",
}

// Explain returns what Check would decide on a request, and why. It has no effect.
func (c *Checker) Explain(ctx context.Context, p *profile.Profile, r profile.Request) apitype.EdgeExplanation {
	out := apitype.EdgeExplanation{Profile: p.Name}
	if t, err := p.Read(r); err == nil {
		out.Counts, out.Entry, out.Content, out.Detail = kinds[t.Kind], t.Entry, t.Content, t.Why
	}
	ch, d, decided := c.identify(ctx, p, r)
	if !decided {
		d = ch.explain(&out, d)
	}
	out.Decision, out.Reason, out.Status = d.Outcome.Decision(), d.Outcome.String(), http.StatusOK
	if d.Problem != nil {
		out.Status, out.Detail = d.Problem.Status, d.Problem.Detail
	}
	if d.Err != nil {
		out.Detail = d.Err.Error()
	}
	if d.User != "" {
		out.User, out.Session = d.User, sessionHash(d.User, d.Session)
	}
	out.Cookie, out.Degraded = d.Cookie != nil && (d.Outcome.Allowed() || p.Observe), d.Degraded
	out.Observe = p.Observe
	if d.Counted {
		out.Streams, out.Limit = &d.Streams, &d.Limit
	}
	return out
}

// explain decides like Check, but starts nothing.
func (ch check) explain(out *apitype.EdgeExplanation, d Decision) Decision {
	if caller := ch.id.Caller; caller.Plan != "" || caller.Limit != nil {
		out.Caller = "plan " + strconv.Quote(caller.Plan)
		if caller.Limit != nil {
			out.Caller += fmt.Sprintf(", limit %d", *caller.Limit)
		}
	}
	out.Attributes = attributesOf(ch.id)
	a, err := ch.backend.Limiter.LookUpSession(ch.ctx, ch.id.User, ch.id.Session, ch.target.Entry)
	if err != nil {
		return ch.withoutEtcd(d, err)
	}
	if a.Stream.User != "" {
		s := convert.Stream(a.Stream)
		s.ID, s.Session = "", ""
		out.Stream = &s
	}
	counted := ch.target.Kind == profile.Counted
	out.Would = "nothing"
	switch running := a.Stream.User != ""; {
	case !a.Current && ch.cutOff():
		return d.unavailable(errCutOff)
	case !running && a.Bar != nil, !counted, running && !ch.mustMove(a.Stream):
		if running && counted && a.Current {
			out.Would = "renew"
		}
		return ch.decide(d, a)
	case running:
		out.Would, d.Outcome = "move", Moved
	default:
		out.Would, d.Outcome = "start", Started
	}
	move := d.Outcome == Moved
	u, err := ch.backend.Limiter.WouldStart(ch.ctx, ch.id.User, ch.request(move))
	if err == nil {
		return d.withUsage(u.Count, u.Limit)
	}
	out.Would = "nothing"
	if d = ch.notStarted(d, err, move); d.Outcome == AtLimit {
		out.Would = "be refused"
	}
	return d
}

// attributesOf returns the attributes that a request states for plans.
func attributesOf(id profile.Identity) map[string]string {
	as, out := id.Attributes, map[string]string{}
	for name, value := range map[policy.Attribute]string{
		policy.AttrDeviceID: id.Device.ID, policy.AttrDeviceType: id.Device.Type, policy.AttrProfile: as.Profile, policy.AttrContentType: as.ContentType,
		policy.AttrContentLabels: strings.Join(as.ContentLabels, ", "),
	} {
		if value != "" {
			out[string(name)] = value
		}
	}
	for key, value := range as.Labels {
		out["labels."+key] = value
	}
	return out
}

// maxExplain bounds the body of a request to explain.
const maxExplain = maxTarget + 2*maxHeaders

// explain answers what a check of the request in the body would decide.
func (s *Server) explain(w http.ResponseWriter, r *http.Request, p *served) {
	var in apitype.EdgeRequest
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxExplain))
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		writeProblem(w, problem.RequestTimeout.New(fmt.Sprintf("Send the request within %v.", readTimeout)))
		return
	case errors.As(err, &tooLarge):
		writeProblem(w, problem.BodyTooLarge.New(fmt.Sprintf("Keep the body within %d KiB.", maxExplain>>10)))
		return
	case err != nil:
		writeProblem(w, problem.Malformed.New("The body is not JSON with uri, method, header and client: "+err.Error()))
		return
	}
	o := profile.Request{Method: in.Method, Target: in.URI, Header: http.Header{}, Client: in.Client}
	if o.Method == "" {
		o.Method = http.MethodGet
	}
	for name, values := range in.Header {
		for _, value := range values {
			o.Header.Add(name, value)
		}
	}
	out, err := json.Marshal(s.Explain(r.Context(), p.Profile, o))
	if err != nil {
		writeProblem(w, problem.Internal.New("The explanation cannot be encoded."))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	_, _ = w.Write(out) // fails only if the client is gone
}
