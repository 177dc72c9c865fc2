package events

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A position is a point in the history of one etcd cluster: after all revisions before
// rev, and after the first n events of rev.
type position struct {
	rev int64
	n   int32
}

// endOfRevision is the n of a position after all events of its revision.
const endOfRevision = math.MaxInt32

func (p position) before(q position) bool { return p.rev < q.rev || p.rev == q.rev && p.n < q.n }

// An eventCursor is a position in the events of all shards. As text:
//
//	1207                      revision 1207 of the only etcd cluster
//	eu:1207.3,us:88           of each of several clusters; of 1207 the first three events
//	eu:1207.3,us:88~k3xqa.12  after event 12 of the feed k3xqa
//
// The last part identifies the same event again on the same node, also if it is a
// refusal. Other nodes ignore it.
type eventCursor struct {
	positions map[string]position
	feedID    string // empty for none
	seq       uint64
}

// defaultShard is the name of the only etcd cluster. Cursors omit it.
const defaultShard = "default"

// ErrBadCursor means that a text is not a valid cursor. The text of the error states
// the fault.
var ErrBadCursor = errors.New("not a cursor of events")

const maxCursorLength = 8 << 10

var (
	shardPattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)
	positionPattern = regexp.MustCompile(`^([0-9]{1,19})(?:\.([0-9]{1,9}))?$`)
	sequencePattern = regexp.MustCompile(`^([a-z0-9]{1,16})\.([0-9]{1,19})$`)
)

// parseCursor parses the text of a cursor.
func parseCursor(text string) (eventCursor, error) {
	if len(text) > maxCursorLength {
		return eventCursor{}, fmt.Errorf("%w: longer than %d characters", ErrBadCursor, maxCursorLength)
	}
	c := eventCursor{positions: map[string]position{}}
	list, sequence, hasSequence := strings.Cut(text, "~")
	for part := range strings.SplitSeq(list, ",") {
		name, at, named := strings.Cut(part, ":")
		if !named {
			name, at = defaultShard, part
		}
		p, err := parsePosition(at)
		switch _, duplicate := c.positions[name]; {
		case err != nil || !shardPattern.MatchString(name):
			return eventCursor{}, fmt.Errorf("%w: %.60q: want REVISION or SHARD:REVISION, ... as in the id of an event",
				ErrBadCursor, part)
		case duplicate:
			return eventCursor{}, fmt.Errorf("%w: duplicate shard %s", ErrBadCursor, name)
		}
		c.positions[name] = p
	}
	if !hasSequence {
		return c, nil
	}
	m := sequencePattern.FindStringSubmatch(sequence)
	if m == nil {
		return eventCursor{}, fmt.Errorf("%w: %.60q after ~", ErrBadCursor, sequence)
	}
	seq, err := strconv.ParseUint(m[2], 10, 64)
	if err != nil {
		return eventCursor{}, fmt.Errorf("%w: %.60q after ~", ErrBadCursor, sequence)
	}
	c.feedID, c.seq = m[1], seq
	return c, nil
}

func parsePosition(text string) (position, error) {
	m := positionPattern.FindStringSubmatch(text)
	if m == nil {
		return position{}, ErrBadCursor
	}
	rev, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return position{}, err
	}
	p := position{rev, endOfRevision}
	if m[2] != "" {
		n, err := strconv.ParseInt(m[2], 10, 32)
		if err != nil {
			return position{}, err
		}
		p.n = int32(n)
	}
	return p, nil
}

// shardPositions are the positions of a follower on each shard.
type shardPositions []shardPosition

type shardPosition struct {
	publisher *Publisher
	at        position
}

// advance moves the position on a shard to p. It returns false, and changes nothing, if
// the follower is at p or further. With restart, p may be an earlier position: the
// history starts again there.
func (t *shardPositions) advance(from *Publisher, p position, restart bool) bool {
	i := slices.IndexFunc(*t, func(s shardPosition) bool { return s.publisher == from })
	if i < 0 {
		*t = append(*t, shardPosition{from, p})
		return true
	}
	if !restart && !(*t)[i].at.before(p) {
		return false
	}
	(*t)[i].at = p
	return true
}

// cursor returns the text of the cursor after event seq of a feed.
func (t shardPositions) cursor(feedID string, seq uint64) string {
	b := make([]byte, 0, 64)
	for _, s := range t {
		if len(b) > 0 {
			b = append(b, ',')
		}
		if s.publisher.shard != defaultShard {
			b = append(append(b, s.publisher.shard...), ':')
		}
		b = strconv.AppendInt(b, s.at.rev, 10)
		if s.at.n != endOfRevision {
			b = strconv.AppendInt(append(b, '.'), int64(s.at.n), 10)
		}
	}
	if len(b) == 0 {
		b = append(b, '0')
	}
	b = append(append(append(b, '~'), feedID...), '.')
	return string(strconv.AppendUint(b, seq, 10))
}
