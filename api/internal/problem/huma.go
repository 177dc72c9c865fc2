package problem

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// MaxErrors is how many errors a problem names.
const MaxErrors = 20

// FromHuma makes a problem of what huma found wrong, without the values that
// huma would repeat.
func FromHuma(status int, msg string, errs []error) *Problem {
	k := Internal
	for _, known := range Types() {
		if known.Status == status {
			k = known
			break
		}
	}
	if k.Status >= http.StatusInternalServerError {
		return k.New("An internal error occurred.")
	}
	p := k.New(msg)
	for _, err := range errs {
		if len(p.Errors) == MaxErrors {
			break
		}
		var d *huma.ErrorDetail
		if errors.As(err, &d) {
			p = p.WithField(SafeLocation(d.Location), d.Message)
		}
	}
	if len(p.Errors) > 0 {
		p.Detail = strings.TrimPrefix(p.Errors[0].Location+": "+p.Errors[0].Message, ": ")
	}
	return p
}

// ownLocation matches the paths of our own fields, and of near misses that
// are worth naming. Any other name is the client's data.
var ownLocation = regexp.MustCompile(`^[a-z]+(\.[A-Za-z0-9_]{1,40}(\[[0-9]{1,4}\])?){0,8}$`)

// SafeLocation cuts a location down to the part that does not repeat data.
func SafeLocation(loc string) string {
	for !ownLocation.MatchString(loc) {
		i := strings.LastIndexByte(loc, '.')
		if i < 0 {
			return ""
		}
		loc = loc[:i]
	}
	return loc
}
