package formats

import (
	"crypto/md5"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// SecureLink makes tokens for the module secure_link of nginx.
type SecureLink struct {
	Secret string `json:"secret"`
	// Expression is what secure_link_md5 hashes, such as "{expires}/vod/{content}/ {secret}".
	Expression pattern `json:"expression"`
}

func (s *SecureLink) complete() error {
	switch {
	case len(s.Secret) < 16:
		return errors.New("secret: want 16 or more characters")
	case !strings.Contains(string(s.Expression), "{expires}") || !strings.Contains(string(s.Expression), "{secret}"):
		return errors.New(`expression: want {expires} and {secret} in it, as in "{expires}/vod/{content}/ {secret}"`)
	}
	if err := s.Expression.check("{expires}", "{secret}"); err != nil {
		return fmt.Errorf("expression: %w", err)
	}
	return nil
}

// Fits reports whether a token can be made for a user and a content. It is true if the format is not
// configured.
func (s *SecureLink) Fits(v Values) bool { return s == nil || s.Expression.fits(v) }

// Token returns the values of the parameters md5 and expires.
func (s *SecureLink) Token(v Values) (hash string, expires int64, err error) {
	expires = v.Expires.Unix()
	text, err := s.Expression.fill(v, "{expires}", strconv.FormatInt(expires, 10), "{secret}", s.Secret)
	if err != nil {
		return "", 0, err
	}
	sum := md5.Sum([]byte(text))
	return unpadded.EncodeToString(sum[:]), expires, nil
}
