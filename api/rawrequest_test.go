package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
)

// An answer is the response on a connection. Status 0 means that the server closed the
// connection without a response.
type answer struct {
	status int
	header http.Header
	body   string
	rest   string // what follows the response
}

// send writes raw to a new connection and reads the first response, and what follows until
// the server closes the connection or patience ends.
func send(t *testing.T, addr, raw string, patience time.Duration) answer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	go func() { _, _ = io.WriteString(c, raw) }() // the server may respond before it has read everything
	in := bufio.NewReader(c)
	method, _, _ := strings.Cut(raw, " ")
	res, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return answer{}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	var late net.Error
	if err != nil && !errors.As(err, &late) {
		require.NoError(t, err)
	}
	rest := []byte(nil)
	if res.Close {
		rest, _ = io.ReadAll(in)
	}
	return answer{res.StatusCode, res.Header, string(body), string(rest)}
}

// post is a request with a JSON body and the headers given.
func post(target, body string, headers ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s",
		target, len(body), lines(headers), body)
}

// bare is a request without a body.
func bare(method, target string, headers ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, target, lines(headers))
}

func lines(headers []string) string {
	if len(headers) == 0 {
		return ""
	}
	return strings.Join(headers, "\r\n") + "\r\n"
}

// checkProblem checks that a response of the service is a complete problem.
func checkProblem(t *testing.T, a answer) {
	t.Helper()
	assert.Equal(t, problem.MediaType, a.header.Get("Content-Type"))
	assert.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
	assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
	var p apitype.Problem
	require.NoError(t, json.Unmarshal([]byte(a.body), &p), a.body)
	assert.Equal(t, a.status, p.Status)
	assert.True(t, strings.HasPrefix(p.Type, "/problems/"), p.Type)
	assert.NotEmpty(t, p.Title)
	assert.NotEmpty(t, p.Detail)
	assert.Equal(t, p.Title, p.Text)
	if a.status == http.StatusMethodNotAllowed {
		assert.NotEmpty(t, a.header.Get("Allow"))
	}
}
