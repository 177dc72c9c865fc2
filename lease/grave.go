package lease

import (
	"encoding/json"
	"time"
)

// A grave says why a stream ended, for its next heartbeat. The graves of one
// transaction stand in one key, the tombstone, so that a batch of stops costs
// one put more and not one each.
type grave struct {
	Nonce  nonce  `json:"n"`
	Reason Reason `json:"r"`
	By     *by    `json:"by,omitempty"`
}

// by is [By] as tombstones hold it.
type by struct {
	Device  Device `json:"d,omitzero"`
	Started int64  `json:"t"` // Unix milliseconds
}

func (g grave) err() *EndedError {
	e := &EndedError{Reason: g.Reason}
	if g.By != nil {
		e.By = &By{Device: g.By.Device, StartedAt: time.UnixMilli(g.By.Started)}
	}
	return e
}

// gravesValue is the value of a tombstone.
func gravesValue(gs []grave) []byte {
	v, err := json.Marshal(gs)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return v
}

// gravesOf reads a tombstone; a foreign value says nothing.
func gravesOf(value []byte) []grave {
	var gs []grave
	if json.Unmarshal(value, &gs) != nil {
		return nil
	}
	return gs
}
