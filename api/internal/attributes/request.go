// Package attributes decides which source the service accepts for the attributes of a start:
// the body, the viewer's token, or the node.
package attributes

import (
	"strings"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/problem"
	"streamcount/lease"
)

// Request returns the request of a start of caller. A service states everything in the body.
// For a viewer, plan, limit, labels, priority and, if a claim is configured for it, the
// profile come from the token only, and the network is the given one, "" for none. A viewer's
// body that states one of them is a problem.
func Request(caller access.Caller, body *apitype.Start, network string) (lease.Request, *problem.Problem) {
	req := convert.Start(body)
	if caller.Kind != access.Viewer {
		return req, nil
	}
	if p := refuse(caller, body); p != nil {
		return lease.Request{}, p
	}
	req.Grant, req.Limit = caller.Plan, caller.Limit
	req.Attributes.Labels, req.Attributes.Priority = caller.Attributes.Labels, caller.Attributes.Priority
	req.Attributes.Network = network
	if caller.Attributes.OnlyProfile {
		req.Attributes.Profile = caller.Attributes.Profile
	}
	return req, nil
}

// refuse returns a problem if a viewer's body states what only others may state.
func refuse(caller access.Caller, body *apitype.Start) *problem.Problem {
	if body == nil {
		return nil
	}
	if body.Plan != "" {
		return problem.Invalid.New("The plan of a viewer comes from the token or from an operator. Leave it out of the body.").
			WithField("body.plan", notForViewers)
	}
	for _, m := range []struct {
		name   string
		stated bool
	}{
		{"labels", len(body.Labels) > 0}, {"priority", body.Priority != nil}, {"network", body.Network != ""},
		{"profile", body.Profile != "" && caller.Attributes.OnlyProfile},
	} {
		if m.stated {
			return problem.Invalid.New("A viewer may not state "+m.name+". Leave it out of the body.").
				WithField("body."+m.name, notForViewers)
		}
	}
	return nil
}

const notForViewers = "not for viewers"

// Relocate changes a problem about the attributes of a start of caller, whose locations are
// those of a service's body, so that a viewer's problem points to who states the attribute.
func Relocate(caller access.Caller, p *problem.Problem) *problem.Problem {
	if caller.Kind != access.Viewer {
		return p
	}
	for i := range p.Errors {
		e := &p.Errors[i]
		member := strings.TrimPrefix(e.Location, "body.")
		switch {
		case member == "labels": // those of the token are not too long without those of the content
			e.Location = "body.content.labels"
		case strings.HasPrefix(member, "labels."), member == "priority", member == "profile" && caller.Attributes.OnlyProfile:
			e.Location, e.Message = "header.Authorization", "the token has no claim for "+member+": "+e.Message
		case member == "network":
			e.Message += "; the node does not determine it for this client"
		}
	}
	return p
}
