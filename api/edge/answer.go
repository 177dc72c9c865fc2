package edge

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"streamcount/api/edge/profile"
	"streamcount/api/internal/problem"
)

// Header values that do not change.
var (
	noStore   = []string{"no-store"}
	plainText = []string{"text/plain; charset=utf-8"}
	zero      = []string{"0"}
	one       = []string{"1"}
	allow     = []string{"allow"}
	deny      = []string{"deny"}
)

// answer writes the answer to a check. The status of an allowed request is 200 and never 204,
// because some proxies accept only that.
func answer(w http.ResponseWriter, p *profile.Profile, d Decision) {
	h := w.Header()
	h["Cache-Control"] = noStore
	h["X-Accel-Expires"] = zero
	if d.User != "" {
		h["X-Streamcount-User"] = []string{d.User}
		h["X-Streamcount-Session"] = []string{sessionHash(d.User, d.Session)}
	}
	if d.Counted {
		h["X-Streamcount-Streams"] = []string{strconv.Itoa(d.Streams)}
		h["X-Streamcount-Limit"] = []string{strconv.Itoa(d.Limit)}
	}
	if !d.Outcome.Allowed() {
		h["X-Streamcount-Decision"], h["X-Streamcount-Reason"] = deny, []string{d.Outcome.String()}
		writeProblem(w, d.Problem)
		return
	}
	h["X-Streamcount-Decision"] = allow
	switch d.Outcome {
	case Running, Started, Moved:
		if !d.Degraded && p.Cache >= time.Second {
			h["X-Accel-Expires"] = []string{strconv.Itoa(int(p.Cache / time.Second))}
		}
	}
	if d.Outcome == Observed {
		h["X-Streamcount-Would-Refuse"] = []string{d.Refusal.String()}
	}
	if d.Degraded {
		h["X-Streamcount-Degraded"] = one
	}
	if d.Cookie != nil {
		h["Set-Cookie"] = []string{d.Cookie.String()}
	}
	h["Content-Length"] = zero
	w.WriteHeader(http.StatusOK)
}

// sessionHash identifies a session in headers and logs without revealing it.
func sessionHash(user, session string) string {
	b := make([]byte, 0, 256)
	b = append(append(append(b, user...), 0), session...)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// writeProblem writes a problem with its length, which lets proxies keep the connection.
func writeProblem(w http.ResponseWriter, p *problem.Problem) {
	h := w.Header()
	for name, values := range p.GetHeaders() {
		h[name] = values
	}
	body, err := json.Marshal(p)
	if err != nil { // never: it consists of text and numbers
		body = nil
	}
	h.Set("Content-Type", problem.MediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // fails only if the client is gone, or after HEAD
}
