package profile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"streamcount/internal/yamlfile"
	"streamcount/lease/policy"
)

// attributeSources are the sources of the attributes that plans may refer to. A value is a
// part of the request, or a constant. The zero source states nothing.
type attributeSources struct {
	deviceType, profile, contentType source
	contentLabels                    []source
	labels                           map[string]source
}

// all returns the sources that state something, by the member that has them.
func (a *attributeSources) all() map[string][]source {
	out := map[string][]source{"device": {a.deviceType}, "profile": {a.profile}, "content": append([]source{a.contentType}, a.contentLabels...)}
	for _, s := range a.labels {
		out["labels"] = append(out["labels"], s)
	}
	return out
}

// placesOfAttributes are where a request may state an attribute. A player chooses everything
// but its claims, so labels, on which limits rely, have fewer.
var (
	placesOfAttributes = []place{inClaim, inQuery, inPath, inCookie, inHeader}
	placesOfLabels     = []place{inClaim, inHeader}
)

// parseAttribute reads a constant or a source. A constant has no colon, so that a mistake in
// the place of a source is not taken for one.
func parseAttribute(text string, places ...place) (source, error) {
	if !strings.Contains(text, ":") {
		return source{inText, text}, nil
	}
	s, err := parseSource(text, places...)
	if err != nil {
		err = fmt.Errorf("%w, or a text without a colon", err)
	}
	return s, err
}

func oneAttribute(into *source, places ...place) func(yamlfile.Node) error {
	return func(n yamlfile.Node) error {
		var text string
		if err := n.Text(&text); err != nil {
			return err
		}
		var err error
		if *into, err = parseAttribute(text, places...); err != nil {
			return n.Errorf("%w", err)
		}
		return nil
	}
}

func (p *Profile) readContentLabels(n yamlfile.Node) error {
	return eachText(n, func(text string) error {
		s, err := parseAttribute(text, placesOfAttributes...)
		p.attributes.contentLabels = append(p.attributes.contentLabels, s)
		return err
	})
}

func (p *Profile) readLabels(n yamlfile.Node) error {
	p.attributes.labels = map[string]source{}
	return n.Each(func(key string, n yamlfile.Node) error {
		var s source
		err := oneAttribute(&s, placesOfLabels...)(n)
		p.attributes.labels[key] = s
		return err
	})
}

// check returns an error if constants, the keys of labels or the numbers of labels are invalid.
func (a *attributeSources) check() error {
	constants := policy.StartAttributes{Profile: a.profile.constant(), ContentType: a.contentType.constant(), Labels: map[string]string{}}
	for _, s := range a.contentLabels {
		constants.ContentLabels = append(constants.ContentLabels, s.example())
	}
	for key, s := range a.labels {
		constants.Labels[key] = s.example()
	}
	bad, invalid := errors.AsType[*policy.AttributeError](constants.Validate())
	if invalid {
		return fmt.Errorf("%s: %s", bad.Member, bad.Problem)
	}
	return nil
}

// constant returns the value of s if it is a constant.
func (s source) constant() string {
	if s.place == inText {
		return s.name
	}
	return ""
}

// example returns a short value of s.
func (s source) example() string {
	if s.place == inText {
		return s.name
	}
	return "x"
}

// attributesOf returns the attributes that a request states. Those of the credential take
// precedence. It also returns the type of the device.
func (p *Profile) attributesOf(l login, r Request, t Target) (as policy.StartAttributes, deviceType string, err error) {
	text := func(s source, maximum int) string {
		value, n := l.find(s, r, t)
		if n > 1 && err == nil { // the origin may use another one
			err = reject(BadURI, "the request has two values of %s", s)
		}
		return boundedTo(value, maximum)
	}
	own := &p.attributes
	as.ContentType = text(own.contentType, policy.MaxLabelValue)
	for _, s := range own.contentLabels {
		if label := text(s, policy.MaxLabelValue); label != "" && !slices.Contains(as.ContentLabels, label) {
			as.ContentLabels = append(as.ContentLabels, label)
		}
	}
	signed := l.caller.Attributes
	if n := len(own.labels) + len(signed.Labels); n > 0 {
		as.Labels = make(map[string]string, n)
	}
	for key, s := range own.labels {
		if label := text(s, policy.MaxLabelValue); label != "" {
			as.Labels[key] = label
		}
	}
	for key, label := range signed.Labels {
		as.Labels[key] = label
	}
	as.Priority = signed.Priority
	if as.Profile = signed.Profile; !signed.OnlyProfile {
		as.Profile = text(own.profile, policy.MaxProfile)
	}
	return as, text(own.deviceType, maxText), err
}
