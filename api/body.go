package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const (
	maxBody      = 16 << 10
	maxBatchBody = 512 << 10
)

// A bodyReader is a body that has been read and checked.
type bodyReader struct{ bytes.Reader }

// Close does nothing: the server closes the real body.
func (*bodyReader) Close() error { return nil }

// readBody takes a request's body within the operation's bound. An operation
// without a body of its own takes any, and ignores it.
func readBody(r *http.Request, op *huma.Operation) (*bodyReader, *problem) {
	limit := op.MaxBodyBytes - 1 // huma refuses a body that fills its bound
	body, p := readAtMost(r, limit)
	out := &bodyReader{}
	switch {
	case p != nil:
		return nil, p
	case op.RequestBody == nil:
		return out, nil
	case len(body) == 0 && op.RequestBody.Required:
		return nil, invalid.problem("The call needs a body.").at("body", "expected an object")
	case len(body) == 0:
		return out, nil
	}
	if p := checkMediaType(r.Header); p != nil {
		return nil, p
	}
	if p := checkJSON(body); p != nil {
		return nil, p
	}
	out.Reset(body)
	return out, nil
}

func readAtMost(r *http.Request, limit int64) ([]byte, *problem) {
	tooLarge := func() *problem {
		// The rest is not worth reading.
		return bodyTooLarge.problem("The body is larger than this call takes.").with("Connection", "close")
	}
	if r.ContentLength == 0 || r.Body == nil {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, tooLarge()
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	var slow net.Error
	switch {
	case errors.As(err, &slow) && slow.Timeout():
		return nil, tooSlow.problem("The body did not arrive in time.").with("Connection", "close")
	case err != nil:
		return nil, malformed.problem("The body ended early, or its chunks are malformed.").
			with("Connection", "close")
	case int64(len(body)) > limit:
		return nil, tooLarge()
	}
	return body, nil
}

// checkMediaType wants JSON in UTF-8, unpacked: nothing here is large enough to
// be worth what a compressed body can do.
func checkMediaType(h http.Header) *problem {
	for _, coding := range h.Values("Content-Encoding") {
		if c := strings.TrimSpace(coding); c != "" && !strings.EqualFold(c, "identity") {
			return mediaType.problem("Send the body without a content encoding.")
		}
	}
	kinds := h.Values("Content-Type")
	if len(kinds) != 1 {
		return mediaType.problem("Send one Content-Type header: application/json.")
	}
	kind, params, err := mime.ParseMediaType(kinds[0])
	if err != nil || kind != "application/json" {
		return mediaType.problem("Send the body as application/json.")
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return mediaType.problem("Send the body in UTF-8.")
	}
	return nil
}
