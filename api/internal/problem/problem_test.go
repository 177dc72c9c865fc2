package problem

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/assert"
)

const secret = "a-secret-of-the-client"

// Problems with the errors of huma do not contain the invalid values.
func TestProblems_OfHuma(t *testing.T) {
	p := FromHuma(http.StatusUnprocessableEntity, "validation failed", []error{
		&huma.ErrorDetail{Location: "body.device.name", Message: "expected string", Value: secret},
		&huma.ErrorDetail{Location: "body." + secret + " or so", Message: "unexpected property", Value: secret},
		errors.New(secret),
	})
	assert.Equal(t, "body.device.name: expected string", p.Detail)
	assert.NotContains(t, fmt.Sprintf("%+v", p.Problem), secret)
	assert.Equal(t, "body", p.Errors[1].Location)

	p = FromHuma(http.StatusInternalServerError, secret, []error{errors.New(secret)})
	assert.NotContains(t, fmt.Sprintf("%+v", p.Problem), secret)
	assert.Equal(t, 500, FromHuma(0, "", nil).Status)
}

func TestProblems_SafeLocation(t *testing.T) {
	for loc, want := range map[string]string{
		"body.heartbeats[3].userId": "body.heartbeats[3].userId", "path.user": "path.user", "body": "body", "": "",
		"body.a b": "body", "body.device.<b>": "body.device", "query.a.b.c\n": "query.a.b", "body..": "body",
		"body." + strings.Repeat("x", 41): "body", "body.é": "body",
	} {
		assert.Equal(t, want, SafeLocation(loc), loc)
	}
}

func TestWholeSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int{0: 1, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2,
		89 * time.Second: 89, -time.Second: 1} {
		assert.Equal(t, want, WholeSeconds(d), "%v", d)
	}
}
