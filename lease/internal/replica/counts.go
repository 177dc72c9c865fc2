package replica

import (
	"slices"
	"strings"
	"sync"
)

// usageCounts counts the streams of a replica as it changes.
type usageCounts struct {
	mu              sync.Mutex
	streams         int
	byCount         map[int]int // users by the number of their streams
	regionNames     []string
	regionNumbers   map[string]uint16 // index in regionNames
	streamsByRegion []int             // by index in regionNames
	streamsByOrigin [3]int            // by index in origins
	withClaims      int               // streams whose start carried a plan or a limit
}

// maxRegions bounds the regions that are counted separately; further ones count as the
// last. Other programs can write the records, so the names are not trusted.
const maxRegions = 1000

// origins are the parts of Via before the colon that are counted separately; all others count
// as the last, and streams that their players started as "".
var origins = [3]string{"", "edge", "other"}

// originOf returns the index in origins of a Via.
func originOf(via string) uint8 {
	kind, _, _ := strings.Cut(via, ":")
	if i := slices.Index(origins[:], kind); i >= 0 {
		return uint8(i)
	}
	return uint8(len(origins) - 1)
}

func (t *usageCounts) init() {
	t.byCount = make(map[int]int)
	t.regionNumbers = make(map[string]uint16)
}

// regionNumber returns the index of a name in regionNames.
func (t *usageCounts) regionNumber(name string) uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.regionNumbers[name]; ok {
		return n
	}
	if len(t.regionNames) >= maxRegions {
		return maxRegions - 1
	}
	n := uint16(len(t.regionNames))
	t.regionNames, t.streamsByRegion = append(t.regionNames, name), append(t.streamsByRegion, 0)
	t.regionNumbers[name] = n
	return n
}

// added counts one more stream of a user who had n.
func (t *usageCounts) added(n int, s *Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams++
	t.countEntry(s, 1)
	t.countUser(n, n+1)
}

// removed counts one stream less of a user who had n.
func (t *usageCounts) removed(n int, s *Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams--
	t.countEntry(s, -1)
	t.countUser(n, n-1)
}

// replaced counts a stream in the place of another.
func (t *usageCounts) replaced(from, to *Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countEntry(from, -1)
	t.countEntry(to, 1)
}

func (t *usageCounts) countEntry(s *Entry, by int) {
	t.streamsByRegion[s.region] += by
	t.streamsByOrigin[s.origin] += by
	if s.hasClaims {
		t.withClaims += by
	}
}

// countUser counts that the number of a user's streams changes.
func (t *usageCounts) countUser(from, to int) {
	if from > 0 {
		if t.byCount[from]--; t.byCount[from] == 0 {
			delete(t.byCount, from)
		}
	}
	if to > 0 {
		t.byCount[to]++
	}
}

// Counts are the numbers of streams and users in a replica.
type Counts struct {
	Revision     int64 // that they describe
	Streams      int
	Users        int
	UsersAtLimit int
	ByRegion     map[string]int
	ByVia        map[string]int // by what started them in place of their players, such as "edge"; nil for none
	HasClaims    bool           // there are streams whose start carried a plan or a limit
}

// Total counts all streams and users. Users with limit or more streams count as at the
// limit.
func (r *Replica) Total(limit int) Counts {
	t := &r.counts
	out := Counts{Revision: r.applied.Load(), ByRegion: map[string]int{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	out.Streams = t.streams
	for n, users := range t.byCount {
		out.Users += users
		if n >= limit {
			out.UsersAtLimit += users
		}
	}
	for i, n := range t.streamsByRegion {
		if n > 0 {
			out.ByRegion[t.regionNames[i]] += n
		}
	}
	for i, n := range t.streamsByOrigin[1:] {
		if n > 0 && out.ByVia == nil {
			out.ByVia = map[string]int{}
		}
		if n > 0 {
			out.ByVia[origins[i+1]] = n
		}
	}
	out.HasClaims = t.withClaims > 0
	return out
}

// Distribution returns how many users have how many streams, up to most, and how many
// streams are in each region that ever had one. Users with more streams count as most.
func (r *Replica) Distribution(most int) (users map[int]int, regions map[string]int) {
	t := &r.counts
	t.mu.Lock()
	defer t.mu.Unlock()
	users, regions = make(map[int]int, len(t.byCount)), make(map[string]int, len(t.streamsByRegion))
	for n, many := range t.byCount {
		users[min(n, most)] += many
	}
	for i, n := range t.streamsByRegion {
		regions[t.regionNames[i]] += n
	}
	return users, regions
}
