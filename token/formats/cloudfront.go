package formats

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// CloudFront makes signed cookies with a custom policy.
type CloudFront struct {
	PrivateKey string  `json:"privateKey"` // RSA, PEM
	KeyPairID  string  `json:"keyPairId"`
	Resource   pattern `json:"resource"`       // such as https://media.example/vod/{content}/*
	Hash       string  `json:"hash,omitempty"` // sha1, the default, or sha256

	key *rsa.PrivateKey
}

var keyPairID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (c *CloudFront) complete() (err error) {
	switch {
	case !keyPairID.MatchString(c.KeyPairID):
		return errors.New("keyPairId: want the id of the public key in CloudFront, such as K2JCJMDEHXQW5F")
	case c.Resource == "":
		return errors.New("resource: want a URL, such as https://media.example/vod/{content}/*")
	case strings.ContainsAny(string(c.Resource), "\"\\") || strings.ContainsFunc(string(c.Resource), func(r rune) bool { return r <= ' ' }):
		return errors.New("resource: want no quotes, backslashes, spaces and control characters")
	case c.Hash != "" && c.Hash != "sha1" && c.Hash != "sha256":
		return errors.New("hash: want sha1 or sha256")
	}
	if err := c.Resource.check(); err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	if c.key, err = parseRSA(c.PrivateKey); err != nil {
		return fmt.Errorf("privateKey: %w", err)
	}
	return nil
}

func parseRSA(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("want an RSA key in PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := any.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("want an RSA key in PEM")
	}
	return key, nil
}

// Fits reports whether a token can be made for a user and a content. It is true if the format is not
// configured.
func (c *CloudFront) Fits(v Values) bool { return c == nil || c.Resource.fits(v) }

// Cookies returns the cookies by name.
func (c *CloudFront) Cookies(v Values) (map[string]string, error) {
	resource, err := c.Resource.fill(v)
	if err != nil {
		return nil, err
	}
	policy := fmt.Sprintf(`{"Statement":[{"Resource":"%s","Condition":{"DateLessThan":{"AWS:EpochTime":%d}}}]}`, resource, v.Expires.Unix())
	cookies := map[string]string{"CloudFront-Key-Pair-Id": c.KeyPairID, "CloudFront-Policy": cloudFrontBase64([]byte(policy))}
	var signature []byte
	if c.Hash == "sha256" {
		sum := sha256.Sum256([]byte(policy))
		signature, err = rsa.SignPKCS1v15(nil, c.key, crypto.SHA256, sum[:])
		cookies["CloudFront-Hash-Algorithm"] = "SHA256"
	} else {
		sum := sha1.Sum([]byte(policy))
		signature, err = rsa.SignPKCS1v15(nil, c.key, crypto.SHA1, sum[:])
	}
	if err != nil {
		return nil, fmt.Errorf("sign the policy: %w", err)
	}
	cookies["CloudFront-Signature"] = cloudFrontBase64(signature)
	return cookies, nil
}

// cloudFrontBase64 is base64 with other characters in place of those that URLs reserve.
func cloudFrontBase64(b []byte) string {
	return strings.NewReplacer("+", "-", "=", "_", "/", "~").Replace(base64.StdEncoding.EncodeToString(b))
}
