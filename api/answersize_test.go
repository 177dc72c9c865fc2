package api

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/openapi"
	"streamcount/events"
)

const (
	maxBadAnswer = 64 << 10
	// maxBadCost is the maximum that a request may allocate: twice its body, as the buffer
	// grows, and the memory for a thousand items.
	maxBadCost = 8 << 20
)

// On every route, the answer to an invalid request is small, and the request allocates little
// memory.
func TestRejectedInput_AnswersAreSmall(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	s.SetBackend(Backend{Feed: events.NewFeed()})
	var largest, costliest uint64
	requests := 0
	for path, item := range loadDocument(t, "/openapi.json").Paths.Map() {
		for method := range item.Operations() {
			target := strings.NewReplacer("{user}", "maya", "{id}", openapi.ExampleID, "{plan}", "family").Replace(path)
			if path == eventsPath {
				continue // the answer ends when the client disconnects
			}
			for name, body := range hostileBodies() {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				w := call(s, method, target, body)
				runtime.ReadMemStats(&after)
				cost := after.TotalAlloc - before.TotalAlloc
				require.Less(t, w.Code, 500, "%s %s, %s", method, path, name)
				if w.Code >= 400 {
					assert.LessOrEqual(t, w.Body.Len(), maxBadAnswer, "%s %s, %s", method, path, name)
					largest = max(largest, uint64(w.Body.Len()))
				}
				assert.LessOrEqual(t, cost, uint64(maxBadCost), "%s %s, %s", method, path, name)
				costliest = max(costliest, cost)
				requests++
			}
		}
	}
	require.Greater(t, requests, 300)
	t.Logf("%d requests: the largest answer has %d bytes, the costliest allocated %d", requests, largest, costliest)
}

// hostileBodies are bodies that are as large as an operation accepts.
func hostileBodies() map[string]string {
	out := map[string]string{}
	for _, size := range []int{15 << 10, 510 << 10} {
		fill := func(name, head, item, tail string) {
			n := (size - len(head) - len(tail)) / (len(item) + 1)
			out[fmt.Sprintf("%s of %d", name, size)] = head + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + tail
		}
		numbered := func(name, head, pattern, tail string) {
			var members []string
			for n := len(head) + len(tail); ; {
				member := fmt.Sprintf(pattern, len(members))
				if n += len(member) + 1; n > size {
					break
				}
				members = append(members, member)
			}
			out[fmt.Sprintf("%s of %d", name, size)] = head + strings.Join(members, ",") + tail
		}
		long := strings.Repeat("x", size-100)
		for _, list := range []string{"heartbeats", "removeUsers", "removePlans", "unknown"} {
			head := `{"` + list + `":[`
			fill(list+" of objects", head, `{}`, `]}`)
			fill(list+" of nulls", head, `null`, `]}`)
			fill(list+" of empty strings", head, `""`, `]}`)
			fill(list+" of lists", head, `[[]]`, `]}`)
			fill(list+" of numbers", head, `1`, `]}`)
			out[list+fmt.Sprintf(" of one long string of %d", size)] = head + `"` + long + `"]}`
		}
		fill("a list", `[`, `{}`, `]`)
		fill("heartbeats with unknown members", `{"heartbeats":[`, `{"a":1,"b":2}`, `]}`)
		fill("a heartbeat of lists", `{"heartbeats":[{"userId":[`, `1`, `]}]}`)
		for _, object := range []string{"plans", "users", "device", "content", "unknown"} {
			head := `{"` + object + `":{`
			numbered(object+" with many members", head, `"m%d":{}`, `}}`)
			numbered(object+" with many nulls", head, `"m%d":null`, `}}`)
			numbered(object+" with many lists", head, `"m%d":[[],{}]`, `}}`)
			fill(object+" with duplicates", head, `"a":{}`, `}}`)
			out[object+fmt.Sprintf(" with a long name of %d", size)] = head + `"` + long + `":{}}}`
			out[object+fmt.Sprintf(" with a long markup name of %d", size)] = head + `"` + strings.Repeat("<", size-100) + `":{"x":1}}}`
		}
		numbered("many unknown members", `{`, `"m%d":1`, `}`)
		numbered("users with long names", `{"users":{`, `"`+strings.Repeat("<", 120)+`%d":{}`, `}}`)
		numbered("users without rules", `{"users":{`, `"%d":{"x":1}`, `}}`)
		numbered("users with wrong rules", `{"users":{`, `"u%d":{"limit":"1","plan":7}`, `}}`)
		for _, member := range []string{"session", "replaces", "onLimit", "plan", "limit", "streamId", "count", "revision", "dryRun"} {
			out[fmt.Sprintf("%s of %d", member, size)] = `{"` + member + `":"` + long + `"}`
			out[fmt.Sprintf("%s of %d of markup", member, size)] = `{"` + member + `":"` + strings.Repeat("<", size-100) + `"}`
		}
		out[fmt.Sprintf("deep lists of %d", size)] = strings.Repeat("[", size)
		out[fmt.Sprintf("deep objects of %d", size)] = strings.Repeat(`{"device":`, size/11) + "1" + strings.Repeat("}", size/11)
		out[fmt.Sprintf("bytes of %d", size)] = strings.Repeat("\xff", size)
		out[fmt.Sprintf("a member of bytes of %d", size)] = `{"session":"` + strings.Repeat("\xff", size-100) + `"}`
		out[fmt.Sprintf("escapes of %d", size)] = `{"session":"` + strings.Repeat(`\ud800`, (size-100)/6) + `"}`
		out[fmt.Sprintf("a number of %d", size)] = `{"limit":` + strings.Repeat("9", size-100) + `}`
		// A batch with many malformed ids is rejected. A few are answered one by one.
		heartbeat := `{"userId":"` + strings.Repeat(`\u0085`, 190) + `","streamId":"` + strings.Repeat("<", 190) + `"}`
		fill("heartbeats with bad ids", `{"heartbeats":[`, heartbeat, `]}`)
	}
	return out
}

// The same applies to invalid request lines and headers.
func TestRejectedInput_AnswersToHeadsAreSmall(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	s.SetBackend(Backend{Feed: events.NewFeed()})
	long := strings.Repeat("%3C", 600)
	for _, target := range []string{
		userBase + "?" + long + "=1", userBase + "?consistency=" + long, "/api/v1/streams/users/" + long, "/" + long,
		userBase + "/streams/" + long, "/api/v1/plans/" + long, "/api/v1/limits/users/" + long, "/api/v1/data/users/" + long, "/problems/" + long,
		"/api/v1/streams/users?prefix=" + long, "/api/v1/streams/users?max=" + long, "/api/v1/events?user=" + long,
		"/api/v1/events?" + long + "=1", "/api/v1/events?after=" + long,
		userBase + "?" + strings.Repeat("a=1&", 500), userBase + "?" + strings.Repeat("%61&", 500),
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
			w := call(s, method, target, "", "Last-Event-ID", strings.Repeat("<", 4000), "Authorization", strings.Repeat("<", 4000))
			assert.Less(t, w.Code, 500, "%s %.80s", method, target)
			assert.GreaterOrEqual(t, w.Code, 400, "%s %.80s", method, target)
			assert.LessOrEqual(t, w.Body.Len(), maxBadAnswer, "%s %.80s", method, target)
		}
	}
}
