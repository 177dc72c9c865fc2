package lease

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A place is how far somebody has come in the history of one etcd: all before
// revision rev, and the first n of its events.
type place struct {
	rev int64
	n   int32
}

// wholeRevision is n where nothing of the revision is missing.
const wholeRevision = math.MaxInt32

func (p place) before(q place) bool { return p.rev < q.rev || p.rev == q.rev && p.n < q.n }

func (p place) String() string {
	text := strconv.FormatInt(p.rev, 10)
	if p.n != wholeRevision {
		text += "." + strconv.Itoa(int(p.n))
	}
	return text
}

// A cursor is how far somebody has come in the events of all shards, in text:
//
//	1207                      in the one etcd that there is
//	eu:1207.3,us:88           in each of several; of 1207 three events
//	eu:1207.3,us:88~k3xqa.12  and by the 12th event of the feed k3xqa
//
// With the last part it leads to the same event again on the same node, refusals
// included. Other nodes know only the part before.
type cursor struct {
	places map[string]place
	boot   string
	seq    uint64
}

// bareShard is the name that cursors leave out.
const bareShard = "default"

// ErrBadCursor means that a text does not say where in the events to go on. The
// error's text says what is wrong.
var ErrBadCursor = errors.New("not a cursor of events")

const maxCursor = 8 << 10

var (
	cursorName  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)
	cursorPlace = regexp.MustCompile(`^([0-9]{1,19})(?:\.([0-9]{1,9}))?$`)
	cursorHint  = regexp.MustCompile(`^([a-z0-9]{1,16})\.([0-9]{1,19})$`)
)

// parseCursor reads what trail.cursor wrote, and plain revisions.
func parseCursor(text string) (cursor, error) {
	if len(text) > maxCursor {
		return cursor{}, fmt.Errorf("%w: longer than %d characters", ErrBadCursor, maxCursor)
	}
	c := cursor{places: map[string]place{}}
	list, hint, hinted := strings.Cut(text, "~")
	for part := range strings.SplitSeq(list, ",") {
		name, at, named := strings.Cut(part, ":")
		if !named {
			name, at = bareShard, part
		}
		p, err := parsePlace(at)
		switch _, twice := c.places[name]; {
		case err != nil || !cursorName.MatchString(name):
			return cursor{}, fmt.Errorf("%w: %.60q: want REVISION or SHARD:REVISION, ... as in the id of an event",
				ErrBadCursor, part)
		case twice:
			return cursor{}, fmt.Errorf("%w: shard %s is there twice", ErrBadCursor, name)
		}
		c.places[name] = p
	}
	if !hinted {
		return c, nil
	}
	m := cursorHint.FindStringSubmatch(hint)
	if m == nil {
		return cursor{}, fmt.Errorf("%w: %.60q after ~", ErrBadCursor, hint)
	}
	seq, err := strconv.ParseUint(m[2], 10, 64)
	if err != nil {
		return cursor{}, fmt.Errorf("%w: %.60q after ~", ErrBadCursor, hint)
	}
	c.boot, c.seq = m[1], seq
	return c, nil
}

func parsePlace(text string) (place, error) {
	m := cursorPlace.FindStringSubmatch(text)
	if m == nil {
		return place{}, ErrBadCursor
	}
	rev, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return place{}, err
	}
	p := place{rev, wholeRevision}
	if m[2] != "" {
		n, err := strconv.ParseInt(m[2], 10, 32)
		if err != nil {
			return place{}, err
		}
		p.n = int32(n)
	}
	return p, nil
}

// trail is how far a follower has come on each shard.
type trail []step

type step struct {
	from *teller
	at   place
}

// reach notes that p was reached, and reports false if it was before. With anew the
// history begins again there.
func (t *trail) reach(from *teller, p place, anew bool) bool {
	i := slices.IndexFunc(*t, func(s step) bool { return s.from == from })
	if i < 0 {
		*t = append(*t, step{from, p})
		return true
	}
	if !anew && !(*t)[i].at.before(p) {
		return false
	}
	(*t)[i].at = p
	return true
}

// write is the trail as a cursor, after event seq of a feed. Shards that are no
// longer there are left out.
func (t trail) write(boot string, seq uint64) string {
	b := make([]byte, 0, 64)
	for _, s := range t {
		if len(b) > 0 {
			b = append(b, ',')
		}
		if s.from.name != bareShard {
			b = append(append(b, s.from.name...), ':')
		}
		b = strconv.AppendInt(b, s.at.rev, 10)
		if s.at.n != wholeRevision {
			b = strconv.AppendInt(append(b, '.'), int64(s.at.n), 10)
		}
	}
	if len(b) == 0 {
		b = append(b, '0')
	}
	b = append(append(append(b, '~'), boot...), '.')
	return string(strconv.AppendUint(b, seq, 10))
}
