// Package router matches the paths of the most frequent calls by their segments. A general
// router with regular expressions takes longer than the rest of such a call.
package router

import "strings"

// maxSegments is the maximum number of segments of a path.
const maxSegments = 8

// Params are the variable segments of a path, still percent-encoded; "" if the path has
// none.
type Params struct{ User, ID string }

// A Table has routes with handlers of type H. The zero Table is empty.
type Table[H any] struct{ routes []route[H] }

type route[H any] struct {
	method   string
	segments []string
	handler  H
}

// Add adds a route. The segments {user} and {id} of its path match any text; all others
// match themselves.
func (t *Table[H]) Add(method, path string, handler H) {
	segments := strings.Split(path[1:], "/")
	if len(segments) > maxSegments {
		panic("router: the path has too many segments: " + path)
	}
	t.routes = append(t.routes, route[H]{method, segments, handler})
}

// Match returns the handler of a method and a percent-encoded path.
func (t *Table[H]) Match(method, path string) (handler H, params Params, ok bool) {
	var buffer [maxSegments]string
	segments := split(path, &buffer)
	for i := range t.routes {
		r := &t.routes[i]
		if len(r.segments) != len(segments) || r.method != method {
			continue
		}
		if params, ok := r.match(segments); ok {
			return r.handler, params, true
		}
	}
	return handler, Params{}, false
}

// split returns the segments of a path; none if it has too many or does not begin with a
// slash.
func split(path string, buffer *[maxSegments]string) []string {
	if path == "" || path[0] != '/' {
		return nil
	}
	rest := path[1:]
	for n := range buffer {
		var more bool
		if buffer[n], rest, more = strings.Cut(rest, "/"); !more {
			return buffer[:n+1]
		}
	}
	return nil
}

func (r *route[H]) match(segments []string) (p Params, ok bool) {
	for i, want := range r.segments {
		switch got := segments[i]; {
		case want == got:
		case got == "":
			return p, false
		case want == "{user}":
			p.User = got
		case want == "{id}":
			p.ID = got
		default:
			return p, false
		}
	}
	return p, true
}
