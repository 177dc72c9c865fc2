package streamid

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Secrets are the keys that sign stream ids. All of them verify ids; the newest signs
// new ids. There is always at least one.
type Secrets struct{ all []secret }

// secret is one of the keys. Stream ids refer to it by its number.
type secret struct {
	Number  byte   `json:"k"` // 1 to 255
	Bytes   []byte `json:"s"`
	Created int64  `json:"t,omitempty"` // Unix milliseconds; 0 for the first
}

const (
	maxSecrets     = 8
	minSecretBytes = 16
	// secretActivationDelay is how long a node has had a secret before it signs ids
	// with it. By then the other nodes have it too. A node whose replica is older
	// reports an id with an unknown secret as unavailable, and not as forged.
	secretActivationDelay = 10 * time.Second
	// secretTrustedAge is the minimum age of a secret with which a node signs ids as
	// soon as it starts. It is less than the period for which the retirement of a
	// secret counts streams that started after the rotation.
	secretTrustedAge = time.Minute
)

var storedSecretsPrefix = []byte(`{"secrets":[`)

type storedSecrets struct {
	Secrets []secret `json:"secrets"` // oldest first
}

// ParseSecrets decodes the stored form of secrets. A single first secret is stored as
// its bytes, and more secrets as JSON.
func ParseSecrets(value []byte) (Secrets, error) {
	if !bytes.HasPrefix(value, storedSecretsPrefix) {
		if len(value) < minSecretBytes {
			return Secrets{}, fmt.Errorf("a secret of %d bytes cannot sign stream ids: the minimum is %d", len(value), minSecretBytes)
		}
		return Secrets{[]secret{{Number: 1, Bytes: value}}}, nil
	}
	var s storedSecrets
	if err := json.Unmarshal(value, &s); err != nil {
		return Secrets{}, errors.New("the secrets of stream ids are not valid JSON") // err could contain a secret
	}
	if len(s.Secrets) == 0 || len(s.Secrets) > maxSecrets ||
		slices.ContainsFunc(s.Secrets, func(k secret) bool { return k.Number == 0 || len(k.Bytes) < minSecretBytes }) {
		return Secrets{}, errors.New("the secrets of stream ids are incomplete")
	}
	return Secrets{s.Secrets}, nil
}

// Value returns the stored form of s.
func (s Secrets) Value() []byte {
	if len(s.all) == 1 && s.all[0].Number == 1 && s.all[0].Created == 0 {
		return s.all[0].Bytes
	}
	value, err := json.Marshal(storedSecrets{s.all})
	if err != nil {
		panic(err) // numbers and bytes always marshal
	}
	return value
}

// Len returns the number of secrets.
func (s Secrets) Len() int { return len(s.all) }

// Created returns when the newest secret was created, or the zero time for the first
// secret of the service.
func (s Secrets) Created() time.Time {
	if created := s.newest().Created; created != 0 {
		return time.UnixMilli(created)
	}
	return time.Time{}
}

func (s Secrets) newest() secret { return s.all[len(s.all)-1] }

func (s Secrets) has(k secret) bool {
	return slices.ContainsFunc(s.all, func(o secret) bool { return o.Number == k.Number && bytes.Equal(o.Bytes, k.Bytes) })
}

// Rotate returns s with a new secret, whose bytes are value.
func (s Secrets) Rotate(value []byte, now time.Time) (Secrets, error) {
	if len(s.all) >= maxSecrets {
		return s, fmt.Errorf("there are already %d secrets: retire the old ones first", len(s.all))
	}
	number := s.newest().Number
	for used := true; used; {
		number = number%255 + 1
		used = slices.ContainsFunc(s.all, func(k secret) bool { return k.Number == number })
	}
	return Secrets{append(slices.Clone(s.all), secret{number, value, now.UnixMilli()})}, nil
}

// RetireOld returns only the newest secret of s.
func (s Secrets) RetireOld() Secrets { return Secrets{[]secret{s.newest()}} }

// Overlaps reports whether s and o have a secret in common. If they do not, they
// belong to different services.
func (s Secrets) Overlaps(o Secrets) bool { return slices.ContainsFunc(s.all, o.has) }

// Newer returns o if it contains the newest secret of s, and s otherwise.
func (s Secrets) Newer(o Secrets) Secrets {
	if o.has(s.newest()) {
		return o
	}
	return s
}

// Succeed returns the secrets to use when etcd contains s after it contained old. If s
// lacks the newest secret of old, a backup was restored: ids that old has signed stay
// valid, so its secrets are kept, before those of s.
func (s Secrets) Succeed(old Secrets) Secrets {
	if s.has(old.newest()) {
		return s
	}
	for _, k := range old.all {
		if !s.has(k) && len(s.all) < 2*maxSecrets {
			s.all = slices.Insert(slices.Clone(s.all), 0, k)
		}
	}
	return s
}
