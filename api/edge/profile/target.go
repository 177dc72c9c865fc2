package profile

import (
	"net/http"
	"slices"
	"strings"
)

// Read returns how the request counts and what it is for. The error is a [*Rejection] of
// [BadURI].
//
// A method other than HEAD, OPTIONS and POST counts like GET, because some servers answer any
// method with the file.
func (p *Profile) Read(r Request) (Target, error) {
	if r.Method == http.MethodOptions && r.Target == "*" {
		return Target{Kind: Passed, Why: optionsPass}, nil
	}
	raw, query, fault := splitTarget(r.Target)
	t := Target{query: query}
	if fault == "" {
		t.path, fault = normalise(raw)
	}
	if fault != "" {
		return Target{}, reject(BadURI, "the original URI cannot be read: %s", fault)
	}
	for i := range p.templates {
		if p.templates[i].match(t.path) {
			t.template = &p.templates[i]
			break
		}
	}
	t.Kind, t.Why = p.kindOf(r.Method, t)
	t.Entry = t.Kind == Counted && slices.ContainsFunc(p.entries, func(e string) bool { return matchGlob(e, t.path) })
	switch id, n := p.contentID.find(r, t); {
	case n > 1:
		return Target{}, reject(BadURI, "the original URI cannot be read: it has two values of %s", p.contentID)
	case t.Kind != Denied && id != "":
		t.Content = bounded(id)
	}
	return t, nil
}

const optionsPass = "OPTIONS requests do not count"

// kindOf returns how a request counts, and why it does not count.
func (p *Profile) kindOf(method string, t Target) (k Kind, why string) {
	switch {
	case method == http.MethodOptions:
		return Passed, optionsPass
	case t.template == nil:
		return p.unmatched, "no path of the profile matches the path of the request"
	case !p.counts(t.path):
		return Passed, "the extension of the file is not in only"
	case method == http.MethodPost && !p.countPost:
		return Passed, "POST requests do not count with post: pass"
	case method == http.MethodHead:
		return Checked, ""
	}
	return Counted, ""
}

// counts reports whether requests for a file count, by its extension. Some servers ignore path
// parameters, as in a.ts;v=1, or dots and spaces at the end of the name, and answer with a.ts.
func (p *Profile) counts(path string) bool {
	if len(p.only) == 0 {
		return true
	}
	file, _, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ";")
	file = strings.TrimRight(file, ". ")
	dot := strings.LastIndexByte(file, '.')
	return dot >= 0 && slices.ContainsFunc(p.only, func(e string) bool { return strings.EqualFold(e, file[dot+1:]) })
}

// splitTarget returns the path and the query of a request target, which may be a whole URL.
func splitTarget(target string) (path, query, fault string) {
	switch {
	case target == "":
		return "", "", "it is empty; the proxy must send it"
	case strings.Contains(target, "#"):
		return "", "", "it has a #"
	case target[0] != '/':
		scheme, rest, ok := strings.Cut(target, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return "", "", "it is neither a path nor an http or https URL"
		}
		end := strings.IndexAny(rest, `/?\`)
		switch {
		case end < 0:
			target = "/"
		case rest[end] == '?':
			target = "/" + rest[end:]
		default:
			target = rest[end:]
		}
	}
	path, query, _ = strings.Cut(target, "?")
	return path, query, ""
}
