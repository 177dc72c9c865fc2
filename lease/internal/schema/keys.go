package schema

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
)

// Keys is the layout of the keys below a prefix.
type Keys struct{ Prefix string }

// UsersPrefix returns the prefix of the streams of all users.
func (k Keys) UsersPrefix() string { return k.Prefix + "/users/" }

// UserPrefix returns the prefix of one user's streams. Every key below it counts
// against the user's limit.
func (k Keys) UserPrefix(user string) string {
	return k.Prefix + "/users/" + escapeUserID(user) + "/"
}

// Slot returns the key of a slot.
func (k Keys) Slot(user string, slot int) string {
	number := strconv.Itoa(slot)
	return k.Prefix + "/users/" + escapeUserID(user) + "/000"[:max(1, 4-len(number))] + number
}

// ParseUserKey splits a key below UsersPrefix into the user id and the rest. It
// reports false for a key that belongs to no user.
func (k Keys) ParseUserKey(key []byte) (user, rest string, ok bool) {
	path, ok := strings.CutPrefix(string(key), k.UsersPrefix())
	if !ok {
		return "", "", false
	}
	part, rest, ok := strings.Cut(path, "/")
	if !ok {
		return "", "", false
	}
	user, ok = UnescapeUserID(part)
	return user, rest, ok
}

// OverridesPrefix returns the prefix of the overrides of all users.
func (k Keys) OverridesPrefix() string { return k.Prefix + "/limits/" }

// Override returns the key of a user's override.
func (k Keys) Override(user string) string { return k.OverridesPrefix() + escapeUserID(user) }

// ParseOverride returns the user to whom the override with this key belongs.
func (k Keys) ParseOverride(key []byte) (user string, ok bool) {
	part, ok := strings.CutPrefix(string(key), k.OverridesPrefix())
	if !ok {
		return "", false
	}
	return UnescapeUserID(part)
}

// PlansPrefix returns the prefix of all plans.
func (k Keys) PlansPrefix() string { return k.Prefix + "/plans/" }

// Plan returns the key of a plan.
func (k Keys) Plan(name string) string { return k.PlansPrefix() + name }

// Rules returns the key that is put with every change of a plan or override.
func (k Keys) Rules() string { return k.Prefix + "/rules" }

// TombstonesPrefix returns the prefix of all tombstones.
func (k Keys) TombstonesPrefix() string { return k.Prefix + "/ended/" }

// NewTombstone returns a new random key for tombstones.
func (k Keys) NewTombstone() string { return k.TombstonesPrefix() + rand.Text() }

// Beacon returns the key that nodes put to see the progress of their watch, if etcd
// does not answer progress requests.
func (k Keys) Beacon() string { return k.Prefix + "/beacon" }

// Secret returns the key of the secrets of stream ids.
func (k Keys) Secret() string { return k.Prefix + "/secret" }

// Routing returns the key of the [RoutingRecord].
func (k Keys) Routing() string { return k.Prefix + "/shards" }

// DepartedPrefix returns the prefix of the states of users that migrate away.
func (k Keys) DepartedPrefix() string { return k.Prefix + "/departed/" }

// Departed returns the key of the state of a user that migrates away. It exists until
// the state is written to the user's new shard.
func (k Keys) Departed(user string) string { return k.DepartedPrefix() + escapeUserID(user) }

// ArrivedPrefix returns the prefix of the import marks of all users.
func (k Keys) ArrivedPrefix() string { return k.Prefix + "/arrived/" }

// Arrived returns the key of a user's import mark, which prevents a second import. It
// exists until the migration of all users is complete.
func (k Keys) Arrived(user string) string { return k.ArrivedPrefix() + escapeUserID(user) }

// UserCooldowns returns the prefix of the cooldown keys of one user.
func (k Keys) UserCooldowns(user string) string {
	return k.Prefix + "/cooldowns/" + escapeUserID(user) + "/"
}

// The last parts of the keys of [Keys.ClientCooldowns] begin with these texts.
const (
	SessionCooldown = "s-"
	DeviceCooldown  = "d-"
)

// ClientCooldowns returns the keys that forbid a client to evict streams of user: one
// for its session and one for its device, if it has them.
func (k Keys) ClientCooldowns(user, session, device string) []string {
	var out []string
	for kind, name := range map[string]string{SessionCooldown: session, DeviceCooldown: device} {
		if name != "" {
			sum := sha256.Sum256([]byte(name))
			out = append(out, k.UserCooldowns(user)+kind+base64.RawURLEncoding.EncodeToString(sum[:16]))
		}
	}
	return out
}
