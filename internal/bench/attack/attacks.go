package attack

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"streamcount/internal/retry"
)

// attacks maps the name of an attack to what it does on each connection.
var attacks = map[string]func(context.Context, net.Conn){
	// An announced body of one byte that is not sent, for a call that needs no body.
	"bodies": send("POST /api/v1/streams/users/x/streams/x/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n"),
	// The same for a call that reads its body.
	"starts": send("POST /api/v1/streams/users/x/start HTTP/1.1\r\nHost: localhost\r\n" +
		"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"),
	// Half of a large body.
	"large": send("POST /api/v1/streams/heartbeats HTTP/1.1\r\nHost: localhost\r\n" +
		"Content-Type: application/json\r\nContent-Length: 500000\r\n\r\n" + strings.Repeat(" ", 250_000)),
	// A batch of 170,000 empty heartbeats.
	"batch": send(largeBatch()),
	// Connections on which nothing is sent.
	"idle": send(""),
	// One header byte at a time.
	"headers": sendSlowly("GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + strings.Repeat("a", 4000)),
}

func largeBatch() string {
	body := `{"heartbeats":[{}` + strings.Repeat(",{}", 170_000) + "]}"
	return fmt.Sprintf("POST /api/v1/streams/heartbeats HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"+
		"Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// send sends raw and then reads until the connection is closed.
func send(raw string) func(context.Context, net.Conn) {
	return func(_ context.Context, c net.Conn) {
		if _, err := io.WriteString(c, raw); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
	}
}

// sendSlowly sends raw, one byte every 100 ms.
func sendSlowly(raw string) func(context.Context, net.Conn) {
	return func(ctx context.Context, c net.Conn) {
		for i := range raw {
			if _, err := c.Write([]byte{raw[i]}); err != nil || retry.Sleep(ctx, 100*time.Millisecond) != nil {
				return
			}
		}
	}
}
