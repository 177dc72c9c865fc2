package readiness

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"

	"streamcount/lease/rules"
)

func TestNotes(t *testing.T) {
	assert.Empty(t, Notes(rules.Compatibility{}, true))
	c := rules.Compatibility{
		Plans: []string{"gold", "silver"}, Users: []string{"ma\u202eya\""},
		Older: []rules.Node{{ID: "node-1", Region: "eu", Version: "0.1.0"}, {ID: "node-2"}},
	}
	assert.Equal(t, `this version cannot read 2 plans, whose users cannot start streams on this node: "gold", "silver"
this version cannot read the limits of 1 user, who cannot start streams on this node: "ma\u202eya\""
2 nodes do not support the rules in use and may admit too many streams: `+
		`"node-1 (region eu, version 0.1.0)", "node-2 (region unknown, version unknown)"
`, Notes(c, true))
	assert.Equal(t, `this version cannot read 2 plans, whose users cannot start streams on this node: "gold", "silver"
this version cannot read the limits of 1 user, who cannot start streams on this node: call with a credential that may read limits to see which
2 nodes do not support the rules in use and may admit too many streams: call with a credential that may read limits to see which
`, Notes(c, false))

	c = rules.Compatibility{}
	for i := range 1000 {
		c.Users = append(c.Users, strconv.Itoa(i))
	}
	assert.Equal(t, "this version cannot read the limits of 1000 users, who cannot start streams on this node: "+
		`"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", and 990 more`+"\n", Notes(c, true))
}
