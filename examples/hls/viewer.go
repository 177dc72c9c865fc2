package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"streamcount/lease/userid"
)

// tokenLife is short, because a token cannot be revoked. The page requests another
// token when one is rejected. Running streams continue without a token.
const tokenLife = 5 * time.Minute

const (
	sessionLife = 12 * time.Hour
	maxSessions = 10_000
)

// sessions are the viewers who are logged in, by the values of their cookies.
type sessions struct {
	mu    sync.Mutex
	users map[string]session
}

type session struct {
	user string
	ends time.Time
}

// add starts a session, or returns false if there are too many.
func (s *sessions) add(user string, now time.Time) (cookie string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.users) >= maxSessions {
		maps.DeleteFunc(s.users, func(_ string, v session) bool { return !now.Before(v.ends) })
	}
	if len(s.users) >= maxSessions {
		return "", false
	}
	if s.users == nil {
		s.users = make(map[string]session)
	}
	cookie = rand.Text()
	s.users[cookie] = session{user, now.Add(sessionLife)}
	return cookie, true
}

// user returns the viewer of a session that has not ended.
func (s *sessions) user(cookie string, now time.Time) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.users[cookie]
	return v.user, ok && now.Before(v.ends)
}

func (s *sessions) remove(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, cookie)
}

// login accepts any name without a password: put your own login here.
func (s *site) login(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if !userid.Valid(name) || name == "." || name == ".." {
		http.Error(w, "give your name as name=...: "+userid.Rule, http.StatusBadRequest)
		return
	}
	value, ok := s.sessions.add(name, time.Now())
	if !ok {
		http.Error(w, "too many viewers are logged in: try again later", http.StatusServiceUnavailable)
		return
	}
	http.SetCookie(w, sessionCookie(r, value, int(sessionLife/time.Second)))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// logout ends the session.
func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie("session"); err == nil {
		s.sessions.remove(cookie.Value)
	}
	http.SetCookie(w, sessionCookie(r, "", -1))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// sessionCookie is Secure, except for a browser on the site's own machine, which calls it by http.
func sessionCookie(r *http.Request, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: "session", Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" || !isLoopback(r.Host),
	}
}

func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

// forViewers calls do with the user who is logged in, or answers 401.
func (s *site) forViewers(do func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if cookie, err := r.Cookie("session"); err == nil {
			if user, ok := s.sessions.user(cookie.Value, time.Now()); ok {
				do(w, r, user)
				return
			}
		}
		http.Error(w, "log in first", http.StatusUnauthorized)
	}
}

// viewer returns the user who is logged in, the URL of streamcount, and a token for
// this user.
func (s *site) viewer(w http.ResponseWriter, _ *http.Request, user string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{ // an error means that the client has disconnected
		"user": user, "server": s.streamcount, "token": s.token(user, time.Now().Add(tokenLife)),
	})
}

// token is a JWT, signed by HS256.
func (s *site) token(user string, until time.Time) string {
	claims, _ := json.Marshal(map[string]any{ // strings and a number cannot fail
		"iss": "film-site", "aud": "streamcount", "sub": user, "exp": until.Unix(),
	})
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

var streamID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// alive reports whether a stream of the user is alive. It sends a heartbeat to
// streamcount: the answer is exact, and a client that fetches segments is watching.
//
// It fails open: while streamcount answers 429 or 5xx, or does not answer, every stream
// counts as alive, also one that never existed. So an outage stops no film, and during it
// there is no limit. A site that must enforce the limit returns false in this case; then
// its films stop with the service.
func (s *site) alive(r *http.Request, user, stream string) bool {
	if !streamID.MatchString(stream) {
		return false
	}
	address := s.streamcount + "/api/v1/streams/users/" + url.PathEscape(user) +
		"/streams/" + url.PathEscape(stream) + "/heartbeat"
	heartbeat, err := http.NewRequestWithContext(r.Context(), http.MethodPost, address, nil)
	if err != nil {
		return false
	}
	answer, err := s.client.Do(heartbeat)
	if err != nil {
		return true
	}
	defer func() { _ = answer.Body.Close() }() // only the status is used
	code := answer.StatusCode
	return code == http.StatusOK || code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}
