package access

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// The reader of JSON Web Keys (RFC 7517). Providers publish keys whose
// certificates and thumbprints are wrong, so only the members that matter are
// read: kty, n, e, crv, x, y, use, key_ops, alg and kid.

// A publicKey is a key that viewers' tokens may be signed with.
type publicKey struct {
	kid    string // "" if the key has no id
	kind   string // RSA, P-256, P-384, P-521 or Ed25519
	alg    string // the only algorithm that it may be used with; "" if it names none
	anyKid bool   // it checks tokens of every kid, because its file format has no kids
	key    any    // as golang-jwt wants it
}

// A rejectedKey is a key of a set that is not used, or used with a warning.
type rejectedKey struct {
	kid, kind, reason string
}

// algorithmsOf lists what each kind of key can sign. The first is the
// default of a key without alg.
var algorithmsOf = map[string][]string{
	"RSA":     {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
	"P-256":   {"ES256"},
	"P-384":   {"ES384"},
	"P-521":   {"ES512"},
	"Ed25519": {"EdDSA"},
}

// can reports whether the key may check tokens of algorithm alg. A key without
// alg is used with the first algorithm of its kind, and with those in allowed.
func (k publicKey) can(alg string, allowed []string) bool {
	if k.alg != "" {
		return k.alg == alg
	}
	of := algorithmsOf[k.kind]
	return alg == of[0] || slices.Contains(of, alg) && slices.Contains(allowed, alg)
}

const (
	minRSABits = 2048
	maxRSABits = 8192
)

// jwkMembers are the members of a JWK that are read.
type jwkMembers struct {
	kty, use, alg, kid string
	n, e, crv, x, y    string
	ops                []string
	private            bool
}

// readJWK reads one key of a set. Its unusedKey has a reason unless the key can be
// used. warning is not "" if the key can be used but has a fault that its owner
// should correct.
func readJWK(raw json.RawMessage) (key publicKey, unused rejectedKey, warning string) {
	m, err := readMembers(raw)
	unused.kid, unused.kind = m.kid, m.kty
	if err == nil {
		err = m.checkUse()
	}
	if err == nil {
		key, err = m.publicKey()
	}
	if key.kind != "" {
		unused.kind = key.kind
	}
	if key.alg = algorithmName(m.alg); err == nil && key.alg != "" && !slices.Contains(algorithmsOf[key.kind], key.alg) {
		err = fmt.Errorf("its alg %q is not a signature algorithm for %s keys", short(m.alg), key.kind)
	}
	if err != nil {
		unused.reason = err.Error()
		return publicKey{}, unused, ""
	}
	if m.private {
		warning = "its private part is published: replace it"
	}
	key.kid = m.kid
	return key, rejectedKey{}, warning
}

func readMembers(raw json.RawMessage) (m jwkMembers, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return m, errors.New("it is not a JSON object")
	}
	texts := map[string]*string{
		"kid": &m.kid, "kty": &m.kty, "use": &m.use, "alg": &m.alg, "n": &m.n, "e": &m.e, "crv": &m.crv, "x": &m.x, "y": &m.y,
	}
	for name, value := range members {
		wanted := "a text"
		switch into, ok := texts[name]; {
		case ok:
			err = json.Unmarshal(value, into)
		case name == "key_ops":
			wanted, err = "a list of texts", json.Unmarshal(value, &m.ops)
		case name == "d":
			m.private = true
		}
		if err != nil {
			return m, fmt.Errorf("its %s is not %s", name, wanted)
		}
	}
	if m.kty == "" {
		return m, errors.New("it has no kty")
	}
	return m, nil
}

// checkUse checks the declared use of a key.
func (m jwkMembers) checkUse() error {
	switch {
	case m.use == "enc":
		return errors.New("it is for encryption (use is enc)")
	case m.use == "" && m.ops != nil && !slices.Contains(m.ops, "verify"):
		return errors.New("it is not for signatures (key_ops has no verify)")
	}
	return nil
}

// algorithmName is the name of alg in tokens and keys. RFC 9864 gave EdDSA with
// this curve a second name.
func algorithmName(alg string) string {
	if alg == "Ed25519" {
		return "EdDSA"
	}
	return alg
}

func (m jwkMembers) publicKey() (publicKey, error) {
	switch {
	case m.kty == "RSA":
		return m.rsa()
	case m.kty == "EC":
		return m.ec()
	case m.kty == "OKP" && m.crv == "Ed25519":
		x, err := base64Bytes("x", m.x)
		if err == nil && len(x) != ed25519.PublicKeySize {
			err = fmt.Errorf("its x has %d bytes, not %d", len(x), ed25519.PublicKeySize)
		}
		return publicKey{kind: "Ed25519", key: ed25519.PublicKey(x)}, err
	case m.kty == "OKP":
		return publicKey{}, fmt.Errorf("its curve %q is not Ed25519", short(m.crv))
	case m.kty == "oct":
		return publicKey{}, errors.New("it is a symmetric key, which must not be published")
	}
	return publicKey{}, fmt.Errorf("its kty %q is unknown: RSA, EC and OKP are supported", short(m.kty))
}

func (m jwkMembers) rsa() (publicKey, error) {
	n, err := base64Bytes("n", m.n)
	if err != nil {
		return publicKey{}, err
	}
	e, err := base64Bytes("e", m.e)
	if err != nil {
		return publicKey{}, err
	}
	if len(n) > maxRSABits { // too large to be decoded into a number
		return publicKey{}, fmt.Errorf("its n has %d bytes", len(n))
	}
	exponent := new(big.Int).SetBytes(e)
	if !exponent.IsInt64() || exponent.Int64() > 1<<31-1 {
		return publicKey{}, errors.New("its e is greater than 2^31-1")
	}
	return checkKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())})
}

func (m jwkMembers) ec() (publicKey, error) {
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	curve, ok := curves[m.crv]
	if !ok {
		return publicKey{}, fmt.Errorf("its curve %q is not P-256, P-384 or P-521", short(m.crv))
	}
	size := (curve.Params().BitSize + 7) / 8
	point := make([]byte, 1+2*size)
	point[0] = 4 // uncompressed
	for i, c := range []struct{ name, value string }{{"x", m.x}, {"y", m.y}} {
		b, err := base64Bytes(c.name, c.value)
		if err != nil {
			return publicKey{}, err
		}
		for len(b) > size && b[0] == 0 {
			b = b[1:]
		}
		if len(b) > size {
			return publicKey{}, fmt.Errorf("its %s has %d bytes, not %d", c.name, len(b), size)
		}
		copy(point[1+(i+1)*size-len(b):], b) // some providers drop leading zeros
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return publicKey{}, errors.New("its x and y are not a point of the curve")
	}
	return checkKey(key)
}

// checkKey returns a usable key for these numbers, or the reason why it is not used.
func checkKey(key any) (publicKey, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		out := publicKey{kind: "RSA", key: k}
		switch bits := k.N.BitLen(); {
		case bits < minRSABits || bits > maxRSABits:
			return out, fmt.Errorf("it has %d bits: %d to %d are supported", bits, minRSABits, maxRSABits)
		case k.N.Bit(0) == 0:
			return out, errors.New("its n is even")
		case k.E < 3 || k.E%2 == 0 || k.E > 1<<31-1:
			return out, errors.New("its e is not an odd number from 3 to 2^31-1")
		}
		return out, nil
	case *ecdsa.PublicKey:
		kind := k.Curve.Params().Name
		if algorithmsOf[kind] == nil {
			return publicKey{}, fmt.Errorf("its curve %q is not P-256, P-384 or P-521", kind)
		}
		return publicKey{kind: kind, key: k}, nil
	case ed25519.PublicKey:
		return publicKey{kind: "Ed25519", key: k}, nil
	}
	return publicKey{}, errors.New("it is not an RSA, elliptic-curve or Ed25519 key")
}

// base64Bytes decodes base64url or standard base64, padded or not.
func base64Bytes(name, value string) ([]byte, error) {
	value = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(value, "="))
	b, err := base64.RawURLEncoding.DecodeString(value)
	switch {
	case err != nil:
		return nil, fmt.Errorf("its %s is not base64url", name)
	case len(b) == 0:
		return nil, fmt.Errorf("it has no %s", name)
	}
	return b, nil
}

// short truncates text of a provider for messages.
func short(text string) string {
	const maxShown = 80
	if len(text) > maxShown {
		return strings.ToValidUTF8(text[:maxShown], "") + "..."
	}
	return text
}
