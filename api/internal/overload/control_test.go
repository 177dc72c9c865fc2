package overload

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Slots are reserved for heartbeats and stops, and left for other clients.
func TestAdmit_Slots(t *testing.T) {
	c := New(Config{MaxInFlight: 16})
	var admitted []Admission
	admit := func(client string, class Class) Bound {
		a, bound := c.Admit(Request{Class: class, Client: netip.MustParsePrefix(client + "/32"), Unlimited: client == "127.0.0.1"})
		if bound == None {
			admitted = append(admitted, a)
		}
		return bound
	}
	for range 4 {
		assert.Equal(t, None, admit("192.0.2.1", Ordinary))
	}
	assert.Equal(t, RequestsPerAddress, admit("192.0.2.1", Reserved))
	for range 10 {
		assert.Equal(t, None, admit("127.0.0.1", Start))
	}
	assert.Equal(t, RequestsInFlight, admit("192.0.2.2", Read))
	assert.Equal(t, None, admit("192.0.2.2", Reserved))
	assert.Equal(t, None, admit("192.0.2.3", Reserved))
	assert.Equal(t, RequestsInFlight, admit("192.0.2.4", Reserved))
	assert.Equal(t, 16, c.InFlight())
	for _, a := range admitted {
		a.Done()
	}
	assert.Zero(t, c.InFlight())
	assert.Zero(t, c.slots.ordinary.Load())
	assert.Empty(t, c.slots.clientUses.used)
	assert.Equal(t, int64(2), c.Rejected()["in-flight"])
	assert.Equal(t, int64(1), c.Rejected()["in-flight-per-address"])
}

// A client without an address, such as that of a Unix socket, gets its slots back.
func TestAdmit_ClientWithoutAddress(t *testing.T) {
	c := New(Config{MaxInFlight: 16})
	for range 3 {
		var admitted []Admission
		for range 4 {
			a, bound := c.Admit(Request{})
			require.Equal(t, None, bound)
			admitted = append(admitted, a)
		}
		for _, a := range admitted {
			a.Done()
		}
	}
	assert.Empty(t, c.slots.clientUses.used)
}

// Starts and reads have separate limits, which heartbeats and stops do not have.
func TestAdmit_Classes(t *testing.T) {
	for class, want := range map[Class]map[Class]Bound{
		Start: {Start: ConcurrentStarts, Read: None, Reserved: None, Ordinary: None},
		Read:  {Start: None, Read: ConcurrentReads, Reserved: None, Ordinary: None},
	} {
		c := New(Config{MaxInFlight: 1000})
		limiter := map[Class]*concurrencyLimiter{Start: c.starts, Read: c.reads}[class]
		limiter.intervalStart, limiter.limit = time.Now().Add(time.Hour), 0
		for class, want := range want {
			a, bound := c.Admit(Request{Class: class, Unlimited: true})
			assert.Equal(t, want, bound)
			if bound == None {
				a.Done()
			}
		}
		assert.Zero(t, c.InFlight())
	}
}

// The limits use the measured scheduler delay.
func TestRun_SchedulerDelay(t *testing.T) {
	c := New(Config{MaxInFlight: 10})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, c.Run(ctx)) })
	require.Eventually(t, func() bool {
		return c.starts.delay(time.Now()) > 0 && c.reads.delay(time.Now()) > 0
	}, time.Minute, time.Millisecond)
	stop()
	running.Wait()
}

// Rejections by a rate are delayed, but only a limited number of them at a time, and not
// after the client has disconnected.
func TestTakeRate_DelaysRejections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{MaxInFlight: 10, RatePerUser: 1})
		for c.rates[RatePerUser].take("maya", time.Now()) == 0 {
		}
		start := time.Now()
		reject := func(ctx context.Context) { assert.Positive(t, c.TakeRate(ctx, RatePerUser, "maya")) }
		for range maxDelayedRejections {
			go reject(t.Context())
		}
		synctest.Wait()
		reject(t.Context())
		assert.Zero(t, time.Since(start), "no more rejections are delayed")
		time.Sleep(rejectionDelay)
		synctest.Wait()
		assert.Empty(t, c.delayed)
		assert.Equal(t, int64(maxDelayedRejections+1), c.Rejected()["rate-per-user"])

		start = time.Now()
		reject(t.Context())
		assert.Equal(t, rejectionDelay, time.Since(start))
		disconnected, cancel := context.WithCancel(t.Context())
		cancel()
		reject(disconnected)
		assert.Equal(t, rejectionDelay, time.Since(start))
	})
}

func TestAdmitEventStream(t *testing.T) {
	c := New(Config{MaxInFlight: 4 * 20})
	var done []func()
	for _, caller := range []string{"a", "b", "c", "d", "e"} {
		for range 4 {
			end, bound := c.AdmitEventStream(caller)
			require.Equal(t, None, bound)
			done = append(done, end)
		}
		_, bound := c.AdmitEventStream(caller)
		require.Equal(t, EventStreamsPerCaller, bound)
	}
	_, bound := c.AdmitEventStream("f")
	assert.Equal(t, EventStreams, bound)
	assert.Equal(t, 20, c.EventStreams())
	for _, end := range done {
		end()
	}
	assert.Zero(t, c.EventStreams())
	assert.Empty(t, c.eventCallers.used)
}

// Each bound documents what it limits, why, and what happens at the limit.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for b := None + 1; b < numBounds; b++ {
		row := b.Row()
		assert.False(t, names[row.Name], row.Name)
		names[row.Name] = true
		assert.NotEmpty(t, row.Limits, row.Name)
		assert.NotEmpty(t, row.Reason, row.Name)
		assert.True(t, row.Max > 0 || row.Setting != "", row.Name)
		assert.True(t, (row.Effect == "") != (row.Status == 0), row.Name)
		assert.Equal(t, row.Detail != "", row.Status != 0, row.Name)
	}
}

// The documentation has the table.
func TestTable_IsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/operations.md")
	require.NoError(t, err)
	var want strings.Builder
	want.WriteString("| bound | limits | default | at the limit | reason |\n|---|---|---|---|---|\n")
	for b := None + 1; b < numBounds; b++ {
		row := b.Row()
		name, limit, effect := "`"+row.Name+"`", strconv.Itoa(row.Max)+row.Unit, row.Effect
		if row.Max == 0 {
			limit = "off"
		}
		if row.Setting != "" {
			limit += ", `--" + row.Setting + "`"
		}
		if row.Status != 0 {
			effect = strconv.Itoa(row.Status)
		}
		want.WriteString("| " + strings.Join([]string{name, row.Limits, limit, effect, row.Reason}, " | ") + " |\n")
	}
	if !strings.Contains(string(page), want.String()) {
		t.Errorf("docs/operations.md does not contain this table:\n%s", want.String())
	}
}

// The table has the numbers of the limits in package lease.
func TestTable_LimitsOfLease(t *testing.T) {
	for bound, where := range map[Bound]struct{ file, pattern string }{
		StartsOfUser:   {"internal/userlock/userlock.go", `\bmaxStartsPerUser\s+= %d\b`},
		QueuedWrites:   {"internal/commit/batch.go", `\bmaxQueuedWrites\s+= %d\b`},
		QueuedRenewals: {"internal/keepalive/renewer.go", `\bmaxQueued\s+= 1 << 16\b`},
		EtcdSilence:    {"internal/breaker/breaker.go", `\bopenAfter\s+= %d \* time\.Second\b`},
	} {
		source, err := os.ReadFile("../../../lease/" + where.file)
		require.NoError(t, err)
		assert.Regexp(t, strings.Replace(where.pattern, "%d", strconv.Itoa(bound.Max()), 1), string(source))
	}
	assert.Equal(t, 1<<16, QueuedRenewals.Max())
}
