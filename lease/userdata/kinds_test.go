package userdata

import (
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/internal/schema"
)

// Every key that contains a user id is in one of the ranges that are read and erased. A new
// method of schema.Keys with a text as its first parameter must be added here, and to the
// kinds of keys if that text is a user id.
func TestKinds_AreComplete(t *testing.T) {
	const user = "maya"
	keys := schema.Keys{Prefix: "/p"}
	s := New(Config{Keys: keys})
	methods := reflect.TypeOf(keys)
	checked := 0
	for i := range methods.NumMethod() {
		m := methods.Method(i)
		if m.Type.NumIn() < 2 || m.Type.In(1).Kind() != reflect.String || m.Name == "Plan" {
			continue
		}
		args := []reflect.Value{reflect.ValueOf(keys), reflect.ValueOf(user)}
		for n := 2; n < m.Type.NumIn(); n++ {
			arg := reflect.New(m.Type.In(n)).Elem()
			if arg.Kind() == reflect.String {
				arg.SetString("x")
			}
			args = append(args, arg)
		}
		out := m.Func.Call(args)[0].Interface()
		all, ok := out.([]string)
		if one, single := out.(string); single {
			all, ok = []string{one}, true
		}
		require.True(t, ok, m.Name)
		for _, key := range all {
			checked++
			require.Contains(t, key, user, m.Name)
			assert.True(t, s.covers(user, key), "%s: %s", m.Name, key)
		}
	}
	assert.GreaterOrEqual(t, checked, 8)
	assert.False(t, s.covers(user, "/p/plans/maya"))
	assert.False(t, s.covers(user, keys.Slot("maya2", 1)))
}

func (s *Store) covers(user, key string) bool {
	for _, r := range s.ranges(user) {
		if key == string(r.From) || r.End != nil && strings.Compare(key, string(r.From)) >= 0 && key < string(r.End) {
			return true
		}
	}
	return false
}
