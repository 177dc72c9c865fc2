package formats

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Akamai makes tokens of Akamai EdgeAuth with access control lists.
type Akamai struct {
	Key  string  `json:"key"`            // in hex
	ACL  pattern `json:"acl"`            // such as /vod/{content}/*; several are separated by "!"
	Salt string  `json:"salt,omitempty"` // "" for none

	key []byte
}

// aclPath is a path of an access control list. "~" separates the fields of a token.
var aclPath = regexp.MustCompile(`^[/*][!-}]*$`)

func (a *Akamai) complete() (err error) {
	a.key, err = hex.DecodeString(a.Key)
	switch {
	case err != nil || len(a.key) < 16:
		return errors.New("key: want 32 or more hexadecimal digits")
	case a.ACL == "":
		return errors.New("acl: want paths, such as /vod/{content}/*")
	}
	if err := a.ACL.check(); err != nil {
		return fmt.Errorf("acl: %w", err)
	}
	for path := range strings.SplitSeq(string(a.ACL), "!") {
		if !aclPath.MatchString(path) {
			return errors.New("acl: want ASCII paths, separated by !, that begin with / or * and have no spaces and no ~")
		}
	}
	return nil
}

// Fits reports whether a token can be made for a user and a content. It is true if the format is not
// configured.
func (a *Akamai) Fits(v Values) bool { return a == nil || a.ACL.fits(v) }

// Token returns the value of the cookie or query parameter hdnts.
func (a *Akamai) Token(v Values) (string, error) {
	acl, err := a.ACL.fill(v)
	if err != nil {
		return "", err
	}
	return a.sign(fmt.Sprintf("exp=%d~acl=%s~id=%s", v.Expires.Unix(), acl, escape(v.Stream))), nil
}

// sign appends the hash of fields.
func (a *Akamai) sign(fields string) string {
	hash := hmac.New(sha256.New, a.key)
	hash.Write([]byte(fields))
	if a.Salt != "" {
		hash.Write([]byte("~salt=" + a.Salt))
	}
	return fields + "~hmac=" + hex.EncodeToString(hash.Sum(nil))
}
