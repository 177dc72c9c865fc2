package ingress

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Bodies of one client that do not arrive replace each other, not those of other clients.
func TestBodies_PerClient(t *testing.T) {
	in, addr := serve(t)
	in.bodies.arriving.maxPerClient = 5
	other, first := dialFrom(t, addr, 3), dialFrom(t, addr, 2)
	for i, c := range []net.Conn{other, first} {
		write(t, c, post(10, "")+"{")
		require.Eventually(t, func() bool { return in.ArrivingBodies() == i+1 }, wait, time.Millisecond)
	}
	for range 5 {
		write(t, dialFrom(t, addr, 2), post(10, "")+"{")
	}
	res := read(t, first)
	assert.Equal(t, 503, res.StatusCode)
	assert.Equal(t, "bodies-per-address", res.Header.Get("Bound"))
	assert.True(t, res.Close)
	write(t, other, `"a": 1}  `)
	assert.Equal(t, 200, read(t, other).StatusCode)
}

// Large bodies that do not arrive are replaced, first those of the same client.
func TestBodies_Large(t *testing.T) {
	in, addr := serve(t)
	in.bodies.large.maxTotal, in.bodies.large.maxPerClient = 4, 2
	var conns []net.Conn
	for i := range 12 { // two of each client
		c := dialFrom(t, addr, 2+i/2)
		write(t, c, post(100_000, "")+strings.Repeat(" ", 40_000))
		conns = append(conns, c)
		require.Eventually(t, func() bool { return in.bodies.large.len() == min(i+1, 4) }, wait, time.Millisecond)
		if i >= 4 {
			res := read(t, conns[i-4])
			assert.Equal(t, 503, res.StatusCode)
			assert.Equal(t, "large-bodies", res.Header.Get("Bound"))
		}
	}
	write(t, dialFrom(t, addr, 7), post(100_000, "")+strings.Repeat(" ", 40_000))
	assert.Equal(t, "large-bodies-per-address", read(t, conns[10]).Header.Get("Bound"))
	for range 5 {
		c := dialFrom(t, addr, 100)
		write(t, c, post(100_000, "")+strings.Repeat(" ", 100_000))
		assert.Equal(t, 200, read(t, c).StatusCode)
	}
	require.Eventually(t, func() bool { return in.bodies.large.len() <= 4 }, wait, time.Millisecond)
}

// The limits per client do not apply to a privileged client.
func TestBodies_Privileged(t *testing.T) {
	in, addr := serve(t)
	in.bodies.arriving.maxPerClient, in.bodies.large.maxPerClient = 1, 1
	var conns []net.Conn
	for i := range 4 {
		c := dialFrom(t, addr, 2)
		write(t, c, post(100_000, "Privileged: yes\r\n")+strings.Repeat(" ", 40_000))
		require.Eventually(t, func() bool { return in.bodies.large.len() == i+1 }, wait, time.Millisecond)
		conns = append(conns, c)
	}
	for _, c := range conns {
		write(t, c, strings.Repeat(" ", 60_000))
		assert.Equal(t, 200, read(t, c).StatusCode)
	}
	require.Eventually(t, func() bool { return in.bodies.large.len() == 0 }, wait, time.Millisecond)
}

// Large bodies wait for each other before validation. Other requests do not wait.
func TestBodies_Validate(t *testing.T) {
	in, addr := serve(t)
	for range cap(in.bodies.validations) {
		in.bodies.validations <- struct{}{}
	}
	large := dialFrom(t, addr, 2)
	write(t, large, post(100_000, "")+strings.Repeat(" ", 100_000))
	require.Eventually(t, func() bool { return in.bodies.large.len() == 1 && in.ArrivingBodies() == 0 }, wait, time.Millisecond)
	small := dialFrom(t, addr, 2)
	write(t, small, post(100, "")+strings.Repeat(" ", 100))
	assert.Equal(t, 200, read(t, small).StatusCode)
	assert.Equal(t, 1, in.bodies.large.len())
	<-in.bodies.validations
	assert.Equal(t, 200, read(t, large).StatusCode)
	require.Eventually(t, func() bool { return in.bodies.large.len() == 0 }, wait, time.Millisecond)
	assert.Len(t, in.bodies.validations, cap(in.bodies.validations)-1)
}

// A body uses no more memory than its announced length up to MaxSmallBody, or one buffer of
// the limit.
func TestBody_Memory(t *testing.T) {
	const maxLarge = 512 << 10
	in, err := New(Config{})
	require.NoError(t, err)
	data := strings.Repeat("0123456789abcdef", 40_000)
	for _, limit := range []int{MaxSmallBody, 256 << 10, maxLarge} {
		for _, size := range []int{
			0, 1, 100, MaxSmallBody - 1, MaxSmallBody, MaxSmallBody + 1, MaxSmallBody + 2, 3*MaxSmallBody + 5, limit, limit + 1, limit + 9,
		} {
			for _, announced := range []int{size, -1} {
				for name, reader := range map[string]io.Reader{
					"whole": strings.NewReader(data[:size]), "early end": iotest.DataErrReader(strings.NewReader(data[:size])),
					"bytes": iotest.OneByteReader(strings.NewReader(data[:size])),
				} {
					b := &Body{bodies: &in.bodies}
					got, err := b.read(io.LimitReader(reader, int64(limit)+1), int64(announced), int64(limit), nil)
					require.NoError(t, err)
					assert.True(t, data[:min(size, limit+1)] == string(got), "%s: %d bytes of %d", name, len(got), size)
					if announced >= 0 && size <= MaxSmallBody {
						assert.LessOrEqual(t, cap(got), size+1)
						assert.Nil(t, b.buffer)
					}
					assert.LessOrEqual(t, cap(got), maxLarge+1)
					if size != MaxSmallBody+1 { // then it depends on when the end is seen
						assert.Equal(t, size > MaxSmallBody && limit > MaxSmallBody, b.buffer != nil, "%d of at most %d", size, limit)
					}
					b.Release()
				}
			}
		}
	}
	assert.Zero(t, in.bodies.large.len())
	b := &Body{bodies: &in.bodies}
	_, err = b.read(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(data))), 100, MaxSmallBody, nil)
	assert.ErrorIs(t, err, iotest.ErrTimeout)
}
