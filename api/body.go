package api

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/internal/problem"
	"streamcount/api/internal/strictjson"
)

// A requestBody is a body that matches what the schema says about its form. Its zero value
// is that of a request without a body.
type requestBody struct {
	json    []byte // checked by strictjson
	decoded any    // instead of json, for a body in the plain form: a pointer, which matches the whole schema
}

// readBody reads the body of a request of op. It ignores the body of a call that takes
// none. readPlain, which may be nil, decodes a body in the plain form.
func (s *Server) readBody(
	rec *recorder, r *http.Request, op *huma.Operation, readPlain func([]byte) (any, bool),
) (body requestBody, p *problem.Problem) {
	if op.RequestBody == nil {
		return body, nil
	}
	limit := op.MaxBodyBytes - 1 // huma rejects a body of exactly MaxBodyBytes
	raw, p := s.readAtMost(rec, r, limit)
	switch {
	case p != nil:
		return body, p
	case len(raw) == 0 && op.RequestBody.Required:
		return body, problem.Invalid.New("The call needs a body.").WithField("body", "expected an object")
	case len(raw) == 0:
		return body, nil
	}
	if p := checkMediaType(r.Header); p != nil {
		return body, p
	}
	rec.body.Validate(func() {
		if readPlain != nil {
			if decoded, ok := readPlain(raw); ok {
				body.decoded = decoded
				return
			}
		}
		if op.RequestBody.Required || !isNull(raw) {
			body.json, p = s.checkJSON(raw, op.RequestBody.Content["application/json"].Schema)
		}
	})
	return body, p
}

// checkJSON returns what to decode of a body that matches a schema.
func (s *Server) checkJSON(body []byte, schema *huma.Schema) ([]byte, *problem.Problem) {
	checked, err := strictjson.Check(body, schema, s.schemas)
	if err == nil {
		return checked, nil
	}
	where := problem.SafeLocation(err.Location)
	if err.Malformed != "" {
		return nil, problem.Malformed.New(err.Malformed).WithField(where, err.Message)
	}
	return nil, problem.Invalid.New(where+": "+err.Message).WithField(where, err.Message)
}

func (s *Server) readAtMost(rec *recorder, r *http.Request, limit int64) ([]byte, *problem.Problem) {
	tooLarge := func() *problem.Problem {
		// The rest is not worth reading.
		return problem.BodyTooLarge.New("The body is larger than this call takes.").
			WithField("body", fmt.Sprintf("expected at most %d bytes", limit)).WithHeader("Connection", "close")
	}
	if r.ContentLength == 0 || r.Body == nil {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, tooLarge()
	}
	body, p := s.receive(rec, r, limit)
	if p != nil {
		return nil, p
	}
	if int64(len(body)) > limit {
		return nil, tooLarge()
	}
	rec.bodyRead = true
	return body, nil
}

// isNull reports whether a body is null, which some clients send for no body.
func isNull(body []byte) bool {
	return string(bytes.TrimSpace(bytes.TrimPrefix(body, []byte(strictjson.ByteOrderMark)))) == "null"
}

// checkMediaType accepts JSON in UTF-8 that is not compressed: no body here is large
// enough to be worth what a compressed one can do.
func checkMediaType(h http.Header) *problem.Problem {
	for _, coding := range h.Values("Content-Encoding") {
		if c := strings.TrimSpace(coding); c != "" && !strings.EqualFold(c, "identity") {
			return problem.UnsupportedMediaType.New("Send the body without a content encoding.").
				WithField("header.Content-Encoding", "expected none")
		}
	}
	wrong := func(detail string) *problem.Problem {
		return problem.UnsupportedMediaType.New(detail).WithField("header.Content-Type", "expected application/json in UTF-8")
	}
	types := h.Values("Content-Type")
	if len(types) == 0 {
		return wrong("Send a Content-Type header: application/json.")
	}
	for _, value := range types {
		if value == "application/json" {
			continue
		}
		kind, params, err := mime.ParseMediaType(value)
		if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || kind != "application/json" {
			return wrong("Send the body as application/json.")
		}
		if charset, ok := params["charset"]; ok && !isUTF8(charset) {
			return wrong("Send the body in UTF-8.")
		}
	}
	return nil
}

// isUTF8 reports whether a charset is UTF-8 or a part of it, in any of the spellings
// that are in use.
func isUTF8(charset string) bool {
	letters := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(charset))
	switch letters {
	case "utf8", "unicode11utf8", "unicode20utf8", "xunicode20utf8", "utf8mb4", "ascii", "usascii":
		return true
	}
	return false
}
