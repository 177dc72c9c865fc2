package lease

import (
	"context"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// view is this node's picture of every stream, kept by list and watch. It
// answers lists, statistics and heartbeats without asking etcd, and guesses for
// starts, whose transactions check the guess. Nobody may rely on it while it is
// not current, which is when the node has not heard from its watch for long.
//
// Readers see a revision and then a user's keys. The keys may be newer than the
// revision, never older: every transaction asks that no key of the user was put
// after that revision, so to claim too low a one is safe.
type view struct {
	etcd Etcd
	keys keys
	cfg  viewConfig

	seed   maphash.Seed
	shards [256]viewShard
	tally  tally
	told   *teller // whom it tells what happens; nil for nobody
	rules  *rulebook
	ends   *recent[nonce, grave]     // how streams ended
	gone   *recent[nonce, struct{}]  // streams that etcd did not have, nobody remembers why
	hints  *recent[nonce, time.Time] // when this node renewed the leases of streams not yet seen
	lapsed atomic.Int64              // streams seen to expire

	back      int    // keys that were gone and are back, in a list not yet done; only follow uses it
	onRestore func() // called when etcd turns out to be a backup of itself

	shardsKey atomic.Pointer[ShardsKey]

	gen     uint32       // of the list; only follow uses it
	watches int          // made so far; only follow uses it
	applied atomic.Int64 // everything up to this revision is in
	own     atomic.Int64 // the revision of this node's last write to any user
	heard   atomic.Int64 // the instant when the last sign of life that came was asked for; 0 while not listed
	waiting waiters
}

type viewConfig struct {
	timeout time.Duration // of each call to etcd
	log     *slog.Logger
	span    time.Duration // how long endings are remembered, at least
}

// viewStale is how old the last sign of life may be while the view is current.
const viewStale = 3 * time.Second

type viewShard struct {
	sync.RWMutex
	users map[string]*live // each user's streams are a list
}

// live is one key under a user's prefix. There may be millions.
type live struct {
	next    *live
	renewed atomic.Int64 // an instant
	lease   int64
	mod     int64
	value   []byte
	junk    *string // the last part of a key that is none of ours
	nonce   nonce
	gen     uint32 // of the list that saw it last
	slot    int16  // -1 for junk
	region  uint16 // in tally.names
	told    bool   // what its start was told of the user
}

// renewedAt is when this node last sent a renewal of the stream's lease that was
// answered; zero for never.
func (s *live) renewedAt() time.Time {
	return instant(s.renewed.Load()).time()
}

// renew notes a renewal that was sent at sent.
func (s *live) renew(sent time.Time) {
	at := int64(instantOf(sent))
	for {
		old := s.renewed.Load()
		if old != 0 && old >= at || s.renewed.CompareAndSwap(old, at) {
			return
		}
	}
}

func (s *live) held(k keys, user string) held {
	h := held{slot: int(s.slot), lease: s.lease, mod: s.mod, nonce: s.nonce, value: s.value}
	if s.slot >= 0 {
		h.key = k.slot(user, h.slot)
		h.session = headOf(s.value).Session
	} else {
		h.key = k.user(user) + *s.junk
	}
	return h
}

// is reports whether s is the stream at this place.
func (s *live) is(slot int, rest string) bool {
	return int(s.slot) == slot && (slot >= 0 || *s.junk == rest)
}

func newView(e Etcd, k keys, cfg viewConfig) *view {
	v := &view{
		etcd: e, keys: k, cfg: cfg,
		seed:  maphash.MakeSeed(),
		rules: newRulebook(),
		ends:  newRecent[nonce, grave](cfg.span, 1<<18),
		gone:  newRecent[nonce, struct{}](cfg.span, 1<<17),
		hints: newRecent[nonce, time.Time](10*time.Second, 1<<17),

		onRestore: func() {},
	}
	for i := range v.shards {
		v.shards[i].users = make(map[string]*live)
	}
	v.shardsKey.Store(&ShardsKey{})
	v.tally.init()
	return v
}

func (v *view) shard(user string) *viewShard {
	return &v.shards[maphash.String(v.seed, user)%uint64(len(v.shards))]
}

// current reports whether the view may be relied on.
func (v *view) current() bool {
	heard := instant(v.heard.Load())
	return heard != 0 && time.Since(heard.time()) < viewStale
}

// user returns all keys under user's prefix, and whether the view is current.
func (v *view) user(user string) (snapshot, bool) {
	s := snapshot{rev: v.applied.Load(), rules: v.rules} // before the keys
	sh := v.shard(user)
	sh.RLock()
	for at := sh.users[user]; at != nil; at = at.next {
		s.held = append(s.held, at.held(v.keys, user))
	}
	sh.RUnlock()
	s.sort()
	return s, v.current()
}

// lookup returns a stream, or nil if it is not there, and whether the view is
// current.
func (v *view) lookup(user string, who ident) (*live, bool) {
	sh := v.shard(user)
	sh.RLock()
	defer sh.RUnlock()
	for at := sh.users[user]; at != nil; at = at.next {
		if at.nonce == who.nonce && at.lease == who.lease && int(at.slot) == int(who.slot) {
			return at, v.current()
		}
	}
	return nil, v.current()
}

// ended is how a stream ended, as far as that is remembered.
func (v *view) ended(n nonce) (grave, bool) { return v.ends.get(n) }

// sayGone remembers that etcd did not have a stream of whose end the view does not
// know. A client may be told so: whatever the view still shows of it is not to be
// believed any more. Where its user has moved and comes back, that costs a question.
func (v *view) sayGone(n nonce) { v.gone.put(n, struct{}{}) }

// saidGone reports whether a stream is over, or may be: that etcd has to be asked.
func (v *view) saidGone(n nonce) bool {
	if _, over := v.ends.get(n); over {
		return true
	}
	_, said := v.gone.get(n)
	return said
}

// note remembers at once how this node ended a stream. Where etcd takes no
// tombstones, its watch may have shown the end before, as if it had expired.
func (v *view) note(g grave) {
	if old, known := v.ends.get(g.Nonce); known && old.Reason == ReasonExpired && g.Reason != ReasonExpired {
		v.lapsed.Add(-1)
	}
	v.ends.put(g.Nonce, g)
}

// expiries is how many streams the view has seen expire.
func (v *view) expiries() int64 { return v.lapsed.Load() }

// hint says when the lease of a stream was renewed that the view may not show
// yet. It is about that stream alone: on the next one under the same lease it
// would vouch for a start that was never answered, and whose lease is to be
// revoked.
func (v *view) hint(user string, who ident, renewed time.Time) {
	v.hints.put(who.nonce, renewed)
	if s, _ := v.lookup(user, who); s != nil {
		s.renew(renewed)
	}
}

// reach waits until everything up to revision rev is in. It reports false if ctx
// ends before, and at once if the view is not current.
func (v *view) reach(ctx context.Context, rev int64) bool {
	if !v.current() {
		return false
	}
	if v.applied.Load() < rev {
		select {
		case <-v.waiting.until(rev, &v.applied):
		case <-ctx.Done():
			return false
		}
	}
	return v.current()
}

// advance makes rev the applied revision.
func (v *view) advance(rev int64) {
	if rev > v.applied.Load() {
		v.applied.Store(rev)
		v.waiting.release(rev)
	}
}

// A change is what one event did to a user's keys.
type change struct {
	gone, came *live // nil for none
	left       int   // how many keys the user has after it
}

// put takes a key in. Of a key that is rewritten for the same stream nothing has
// come or gone.
func (v *view) put(user, rest string, kv *mvccpb.KeyValue) change {
	slot := slotOf(rest)
	sh := v.shard(user)
	sh.Lock()
	defer sh.Unlock()
	n := 0
	var old *live
	for at := sh.users[user]; at != nil; at = at.next {
		n++
		if at.is(slot, rest) {
			old = at
		}
	}
	if old != nil {
		old.gen = v.gen
		if old.mod == kv.ModRevision {
			return change{}
		}
		// Readers may hold it: it is replaced, not changed.
		fresh := v.newLive(slot, rest, kv)
		sh.replace(user, old, fresh)
		v.tally.moved(old, fresh)
		if old.nonce == fresh.nonce {
			return change{}
		}
		return change{old, fresh, n}
	}
	s := v.newLive(slot, rest, kv)
	s.next = sh.users[user]
	sh.users[strings.Clone(user)] = s // an assignment may keep the key it is given, and all of the string it is cut from
	v.tally.added(n, s)
	v.told.saw(user, n+1)
	return change{came: s, left: n + 1}
}

func (v *view) newLive(slot int, rest string, kv *mvccpb.KeyValue) *live {
	head := headOf(kv.Value)
	s := &live{
		lease: kv.Lease, mod: kv.ModRevision, value: kv.Value, nonce: head.Nonce,
		gen: v.gen, slot: int16(slot), region: v.tally.region(head.Region), told: saidIn(kv.Value) != said{},
	}
	if slot < 0 {
		name := strings.Clone(rest)
		s.junk = &name
	}
	if at, ok := v.hints.get(s.nonce); ok && s.nonce != (nonce{}) {
		s.renew(at)
	}
	return s
}

// replace puts fresh in the place of old.
func (sh *viewShard) replace(user string, old, fresh *live) {
	fresh.next = old.next
	if sh.users[user] == old {
		sh.users[user] = fresh
		return
	}
	for at := sh.users[user]; at != nil; at = at.next {
		if at.next == old {
			at.next = fresh
			return
		}
	}
}

// remove takes a key out.
func (v *view) remove(user, rest string) change {
	slot := slotOf(rest)
	sh := v.shard(user)
	sh.Lock()
	defer sh.Unlock()
	return v.drop(sh, user, func(s *live) bool { return s.is(slot, rest) })
}

// drop takes the first of user's streams out that is meant, of a locked shard.
func (v *view) drop(sh *viewShard, user string, meant func(*live) bool) change {
	var gone *live
	n := 0
	for at, link := sh.users[user], (*live)(nil); at != nil; link, at = at, at.next {
		n++
		if gone != nil || !meant(at) {
			continue
		}
		gone = at
		switch {
		case link != nil:
			link.next = at.next
		case at.next != nil:
			sh.users[user] = at.next
		default:
			delete(sh.users, user)
		}
	}
	if gone != nil {
		v.tally.removed(n, gone)
		n--
	}
	return change{gone: gone, left: n}
}

// sweep drops what the last list did not see.
func (v *view) sweep() {
	v.rules.sweep(v.gen)
	for i := range v.shards {
		sh := &v.shards[i]
		sh.Lock()
		for user := range sh.users {
			for v.drop(sh, user, func(s *live) bool { return s.gen != v.gen }).gone != nil {
			}
		}
		sh.Unlock()
	}
}
