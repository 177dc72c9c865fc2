package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// tokenLife is short, since a token cannot be taken back. The page asks for
// another when one is refused; streams go on without.
const tokenLife = 5 * time.Minute

// sessions are who is logged in, by the values of their cookies.
type sessions struct{ users sync.Map }

// login believes any name: put your own login here.
func (s *site) login(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if name == "" {
		http.Error(w, "say who you are: name=...", http.StatusBadRequest)
		return
	}
	session := rand.Text()
	s.sessions.users.Store(session, name)
	http.SetCookie(w, &http.Cookie{
		Name: "session", Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// forViewers lets in those who are logged in.
func (s *site) forViewers(do func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if cookie, err := r.Cookie("session"); err == nil {
			if user, ok := s.sessions.users.Load(cookie.Value); ok {
				do(w, r, user.(string))
				return
			}
		}
		http.Error(w, "log in first", http.StatusUnauthorized)
	}
}

// viewer tells the page who is logged in, where streamcount is, and by which
// token it may speak for this user.
func (s *site) viewer(w http.ResponseWriter, _ *http.Request, user string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{ // whoever asked is gone
		"user": user, "server": s.streamcount, "token": s.token(user, time.Now().Add(tokenLife)),
	})
}

// token is a JWT, signed by HS256.
func (s *site) token(user string, until time.Time) string {
	claims, _ := json.Marshal(map[string]any{ // of strings and a number, which cannot fail
		"iss": "film-site", "aud": "streamcount", "sub": user, "exp": until.Unix(),
	})
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// alive asks streamcount about a stream of a user, by a heartbeat: the answer is
// exact, and whoever fetches segments is watching. While streamcount cannot tell,
// or does not answer, the film goes on: that is not the viewer's fault.
func (s *site) alive(r *http.Request, user, stream string) bool {
	address := s.streamcount + "/api/v1/streams/users/" + url.PathEscape(user) +
		"/streams/" + url.PathEscape(stream) + "/heartbeat"
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodPost, address, nil)
	if err != nil {
		return false
	}
	answer, err := s.client.Do(ask)
	if err != nil {
		return true
	}
	defer func() { _ = answer.Body.Close() }() // what it says beyond its status is not needed
	code := answer.StatusCode
	return code == http.StatusOK || code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}
