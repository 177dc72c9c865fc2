package ingress

import (
	"container/list"
	"net/netip"
	"sync"
)

// A registry holds entries of clients: at most maxTotal in all, and at most maxPerClient of
// one client. When there is no room, the oldest entry that is not in use is evicted, so
// that idle entries do not keep out new ones.
type registry struct {
	maxTotal, maxPerClient int
	exempt                 func(netip.Addr) bool // reports clients without maxPerClient; nil if there are none

	mu       sync.Mutex
	limited  list.List // entries of clients that maxPerClient applies to, oldest first
	exempted list.List // of other clients; evicted only if no limited entry can be
	clients  map[netip.Prefix]*list.List
}

// An evictable is the object of an entry. The registry calls its methods under its lock.
type evictable interface {
	// evict ends the object, and reports false if it is in use.
	evict(why outcome) bool
	// clearUsed reports whether the object was in use since the previous call.
	clearUsed() bool
}

// An entry is a member of a registry.
type entry struct {
	item             evictable
	client           netip.Prefix
	list, clientList *list.List // clientList is nil for an exempt client
	elem, clientElem *list.Element
}

// An outcome is the result of adding an entry.
type outcome int

const (
	added           outcome = iota
	evictedOldest           // added, and the oldest entry was evicted
	evictedOfClient         // added, and the oldest entry of the same client was evicted
	registryFull            // not added: all entries are in use
	clientFull              // not added: all entries of the client are in use
)

// add makes e the newest entry, for item, of the client at a. maxPerClient does not apply
// to a privileged client.
func (r *registry) add(e *entry, item evictable, a netip.Addr, privileged bool) outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	*e = entry{item: item, list: &r.exempted}
	result := added
	if !privileged && (r.exempt == nil || !r.exempt(a)) {
		e.list, e.client = &r.limited, Network(a)
		e.clientList = r.clients[e.client]
		if e.clientList == nil {
			e.clientList = list.New()
		}
		if e.clientList.Len() >= r.maxPerClient {
			if !r.evictFrom(e.clientList, evictedOfClient) {
				return clientFull
			}
			result = evictedOfClient
		}
	}
	if r.limited.Len()+r.exempted.Len() >= r.maxTotal {
		if !r.evictFrom(&r.limited, evictedOldest) && !r.evictFrom(&r.exempted, evictedOldest) {
			return registryFull
		}
		result = evictedOldest
	}
	e.elem = e.list.PushBack(e)
	if e.clientList != nil {
		e.clientElem = e.clientList.PushBack(e)
		if r.clients == nil {
			r.clients = make(map[netip.Prefix]*list.List)
		}
		r.clients[e.client] = e.clientList // it is missing if its last entry was evicted
	}
	return result
}

// remove removes e, if it is a member.
func (r *registry) remove(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeLocked(e)
}

func (r *registry) removeLocked(e *entry) {
	if e.elem == nil {
		return
	}
	e.list.Remove(e.elem)
	e.elem = nil
	if e.clientList == nil {
		return
	}
	if e.clientList.Remove(e.clientElem); e.clientList.Len() == 0 {
		delete(r.clients, e.client)
	}
}

// evictFrom evicts the oldest entry of l that is not in use. An entry that was in use since
// the previous check counts as new.
func (r *registry) evictFrom(l *list.List, why outcome) bool {
	for range 2 * l.Len() {
		e := l.Front().Value.(*entry)
		if !e.item.clearUsed() && e.item.evict(why) {
			r.removeLocked(e)
			return true
		}
		l.MoveToBack(l.Front())
	}
	return false
}

func (r *registry) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limited.Len() + r.exempted.Len()
}
