// Package edge measures the checks of the edge of a node, which proxies send for the requests of
// players.
package edge

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"streamcount/internal/bench/launch"
	"streamcount/internal/bench/load"
	"streamcount/internal/testing/freeport"
)

// answerTimeout is how long a request may take.
const answerTimeout = 10 * time.Second

// profiles are the profiles of the node. Without etcd no request is allowed, so that no request is
// measured that was not counted.
const profiles = `profiles:
  header: {paths: "/vod/{content}/{file...}", user: "header:X-User", session: ["header:X-Session"], onOutage: deny}
  vod: {paths: "/t/{token}/{content}/{file...}", user: "path:token", session: ["claim:jti"], onOutage: deny}
`

const issuer, audience = "https://bench.example", "bench"

// A node is a running node with an edge.
type node struct {
	*launch.Target
	edge   string // address of the edge
	secret []byte // of viewers' tokens; nil if the node accepts none
	dir    string // of its files
}

// startNode starts a node. With tokens it verifies viewers' tokens, and its API requires them.
func startNode(ctx context.Context, cfg launch.Config, ttl time.Duration, tokens bool) (_ *node, err error) {
	dir, err := os.MkdirTemp(cfg.Dir, "streamcount-bench-")
	if err != nil {
		return nil, fmt.Errorf("create a directory for the node: %w", err)
	}
	n := &node{dir: dir}
	defer func() {
		if err != nil {
			err = launch.JoinErrors(err, n.stop(ctx))
		}
	}()
	port, err := freeport.Find()
	if err != nil {
		return nil, err
	}
	n.edge = fmt.Sprintf("127.0.0.1:%d", port)
	file, secret := filepath.Join(dir, "edge.yaml"), filepath.Join(dir, "secret")
	args := []string{"--edge-listen=" + n.edge, "--edge-file=" + file}
	if err := os.WriteFile(file, []byte(profiles), 0o600); err != nil {
		return nil, err
	}
	if tokens {
		n.secret = []byte(rand.Text() + rand.Text()) // 52 characters
		args = append(args, "--auth-secret-file="+secret, "--auth-issuer="+issuer, "--auth-audience="+audience)
		if err := os.WriteFile(secret, n.secret, 0o600); err != nil {
			return nil, err
		}
	}
	n.Target, err = cfg.Start(ctx, launch.Spec{Limit: 3, TTL: ttl, Args: args})
	return n, err
}

// stop ends the node and deletes its files, even if ctx has ended.
func (n *node) stop(ctx context.Context) error {
	var err error
	if n.Target != nil {
		err = n.Stop(ctx)
	}
	return launch.JoinErrors(err, os.RemoveAll(n.dir))
}

// token returns the token of a user, whose playback has the id session.
func (n *node) token(user, session string) (string, error) {
	if n.secret == nil {
		return "", nil
	}
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: user, ID: session,
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(24 * time.Hour)),
	}).SignedString(n.secret)
}

// A request is a call of a viewer.
type request struct {
	method, path []byte
	header       []byte // lines
	token        string // that API calls have as a credential
}

// send sends r, and returns the body of its answer. An answer other than 200 is an error.
func (r request) send(c *load.Conn) ([]byte, error) {
	c.Header, c.Credential = r.header, r.token
	a, err := c.Do(string(r.method), r.path, nil)
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("%s: %d: %.200s", r.path[:min(len(r.path), 80)], a.Status, a.Body)
	}
	return a.Body, err
}

// media returns the path and query of a segment, as the player of the user requests it.
func (n *node) media(user string) (string, error) {
	token, err := n.token(user, "play-"+user)
	if token == "" {
		return "/vod/film/0.ts", err
	}
	return "/t/" + token + "/film/0.ts", err
}

// check returns the check of a segment that the player of the user requests.
func (n *node) check(user string) (request, error) {
	target, err := n.media(user)
	profile, header := "vod", "X-Original-URI: "+target+"\r\nX-Original-Method: GET\r\n"
	if n.secret == nil {
		profile, header = "header", header+"X-User: "+user+"\r\nX-Session: play-"+user+"\r\n"
	}
	return request{method: []byte("GET"), path: []byte("/edge/v1/" + profile + "/check"), header: []byte(header)}, err
}

// connections returns n connections to the server at base. closeAll closes them.
func connections(ctx context.Context, base string, n int) (list []*load.Conn, closeAll func(), err error) {
	client, err := load.NewClient(base, answerTimeout)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	list = make([]*load.Conn, n)
	for i := range list {
		list[i] = client.Conn(ctx)
	}
	return list, func() {
		cancel()
		for _, c := range list {
			c.Close()
		}
	}, nil
}
