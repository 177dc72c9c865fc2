// Package preview answers what a plan would do, and what it does to a user, in the form of
// the HTTP API. It stores nothing, so that commands can try plans without a server.
package preview

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"streamcount/api/apitype"
	"streamcount/api/internal/convert"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// An InvalidError says what is wrong with a plan or a start.
type InvalidError struct {
	Fields []apitype.FieldError // at least one
}

// Error returns the location and the message of the first error.
func (e *InvalidError) Error() string { return e.Fields[0].Location + ": " + e.Fields[0].Message }

func invalid(location, message string) error {
	return &InvalidError{[]apitype.FieldError{{Location: location, Message: message}}}
}

// Warnings returns what is probably not intended in a plan with several limits, at a location
// of a document, or an [*InvalidError].
func Warnings(location string, b apitype.PlanRule) ([]string, error) {
	p, bad := convert.Plan(location, b)
	if bad != nil {
		return nil, &InvalidError{bad.Errors}
	}
	return warnings(p), nil
}

// warnings returns those of a plan with several limits. Answers about other plans are as
// they were before a plan could have several.
func warnings(p policy.Plan) []string {
	if !p.HasSeveralLimits() {
		return nil
	}
	return p.Warnings()
}

// Plan returns the body of a stored plan. For a plan with several limits it has the
// attributes that a start should state, and warnings.
func Plan(name string, p policy.Plan) apitype.Plan {
	out := apitype.Plan{Name: name, PlanRule: convert.PlanRule(p)}
	if p.HasSeveralLimits() {
		for _, a := range p.Attributes() {
			out.Attributes = append(out.Attributes, string(a))
		}
		out.Warnings = p.Warnings()
	}
	return out
}

// Try decides on the start of b as a node decides on a real one. It considers neither a
// cooldown, nor a node's own maximum number of streams. The locations of an [*InvalidError]
// begin with the given one.
func Try(location string, b apitype.Try) (apitype.TryResult, error) {
	none := apitype.TryResult{}
	p, bad := convert.Plan(location+".plan", b.Plan)
	if bad != nil {
		return none, &InvalidError{bad.Errors}
	}
	if len(b.Streams) > apitype.MaxTryStreams {
		return none, invalid(location+".streams", fmt.Sprintf("expected at most %d streams", apitype.MaxTryStreams))
	}
	running := make([]policy.TrialStream, len(b.Streams))
	for i, s := range b.Streams {
		var err error
		if running[i], err = trialStream(fmt.Sprintf("%s.streams[%d]", location, i), s); err != nil {
			return none, err
		}
	}
	next, err := trialStream(location+".start", b.Start)
	if err != nil {
		return none, err
	}
	for _, id := range b.Start.Replaces {
		i, err := strconv.Atoi(id)
		if err != nil || i < 0 || i >= len(running) {
			return none, invalid(location+".start.replaces", `expected the index of a running stream, such as "0"`)
		}
		next.Replaces = append(next.Replaces, i)
	}
	trial, err := policy.Try(p, running, next)
	out := apitype.TryResult{
		Admitted: trial.Admitted, Limits: []apitype.RefusingLimit{}, Ends: append([]int{}, trial.Ends...), Observed: trial.Observed,
		Warnings: warnings(p),
	}
	if missing, ok := errors.AsType[*policy.MissingAttributesError](err); ok {
		for _, a := range missing.Missing {
			out.Missing = append(out.Missing, string(a))
		}
	}
	for _, l := range trial.Limits {
		out.Limits = append(out.Limits, convert.RefusingLimit(l))
	}
	return out, nil
}

// trialStream returns the stream of a start at a location.
func trialStream(location string, b apitype.TryStart) (policy.TrialStream, error) {
	none := policy.TrialStream{}
	if b.Plan != "" {
		return none, invalid(location+".plan", "all streams of a try have the same plan")
	}
	evict := string(policy.ReplaceOldest)
	if !slices.Contains([]string{"", string(policy.Deny), evict}, b.OnLimit) {
		return none, invalid(location+".onLimit", fmt.Sprintf("expected %s or %s", policy.Deny, evict))
	}
	req := convert.Start(&b.Start)
	if err := req.Attributes.Validate(); err != nil {
		if bad, ok := errors.AsType[*policy.AttributeError](err); ok {
			return none, invalid(location+"."+bad.Member, bad.Problem)
		}
		return none, invalid(location, err.Error())
	}
	as := policy.Attributes{
		DeviceID: req.Device.ID, DeviceType: req.Device.Type, ContentID: req.Content.ID, ContentType: req.Attributes.ContentType,
		ContentLabels: req.Attributes.ContentLabels, Profile: req.Attributes.Profile, Network: req.Attributes.Network,
		Region: b.Region, Labels: req.Attributes.Labels, Priority: policy.DefaultPriority,
	}
	if req.Attributes.Priority != nil {
		as.Priority = *req.Attributes.Priority
	}
	return policy.TrialStream{Session: b.Session, Attributes: as, Evict: b.OnLimit == evict}, nil
}

// Explanation returns the body of an explanation.
func Explanation(x rules.Explanation) apitype.Explanation {
	out := apitype.Explanation{Plan: x.Plan, From: string(x.From), Until: apitype.At(x.Until), Limits: []apitype.LimitUsage{}}
	for _, u := range x.Limits {
		l := apitype.LimitUsage{
			Name: u.Limit.Name, Limit: u.Limit.Limit, Counted: u.Counted, Left: u.Left, Per: string(u.Limit.Per), Value: u.Value,
			MoreValues: u.MoreValues, Observe: u.Limit.Observe, From: string(x.NumbersFrom[u.Limit.Name]),
		}
		if u.Limit.Count != policy.CountStreams {
			l.Count = string(u.Limit.Count)
		}
		out.Limits = append(out.Limits, l)
	}
	return out
}
