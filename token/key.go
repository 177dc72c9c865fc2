package token

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// An Algorithm is the name of a signature algorithm of RFC 7518 or RFC 8037.
type Algorithm string

// The algorithms. HS256 has a secret instead of a pair of keys.
const (
	ES256 Algorithm = "ES256"
	EdDSA Algorithm = "EdDSA"
	HS256 Algorithm = "HS256"
)

// MinSecret is the minimum number of bytes of a secret of HS256.
const MinSecret = 32

// A Key signs tokens. Its zero value is no key.
type Key struct {
	ID        string // the thumbprint of RFC 7638
	Algorithm Algorithm
	private   any // *ecdsa.PrivateKey, ed25519.PrivateKey or []byte; nil if only the public key is available
	public    jwk // has no private members
}

// NewKey generates a key of ES256 or EdDSA.
func NewKey(a Algorithm) (Key, error) {
	switch a {
	case ES256:
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return Key{}, fmt.Errorf("generate a key: %w", err)
		}
		return ecdsaKey(private)
	case EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return Key{}, fmt.Errorf("generate a key: %w", err)
		}
		return ed25519Key(private), nil
	}
	return Key{}, fmt.Errorf("keys of %s cannot be generated", a)
}

// NewSecret returns the key of HS256 with a secret.
func NewSecret(secret []byte) (Key, error) {
	if len(secret) < MinSecret {
		return Key{}, fmt.Errorf("a secret of %d bytes: HS256 needs %d or more", len(secret), MinSecret)
	}
	return newKey(HS256, bytes.Clone(secret), jwk{Kty: "oct", K: encode(secret)}), nil
}

// newKey returns a key, whose ID is the thumbprint of public. The secret of HS256 is not kept in
// Key.public.
func newKey(a Algorithm, private any, public jwk) Key {
	id := public.thumbprint()
	if a == HS256 {
		public = jwk{}
	}
	public.Kid, public.Alg, public.Use = id, a, "sig"
	return Key{ID: id, Algorithm: a, private: private, public: public}
}

func ecdsaKey(private *ecdsa.PrivateKey) (Key, error) {
	if private.Curve != elliptic.P256() {
		return Key{}, fmt.Errorf("an EC key on the curve %s: ES256 needs P-256", private.Curve.Params().Name)
	}
	public, err := ecdsaJWK(&private.PublicKey)
	return newKey(ES256, private, public), err
}

func ecdsaJWK(public *ecdsa.PublicKey) (jwk, error) {
	point, err := public.Bytes() // 4, x and y
	if err != nil || len(point) != 65 {
		return jwk{}, errors.New("an EC key that is not on the curve P-256, which ES256 needs")
	}
	return jwk{Kty: "EC", Crv: "P-256", X: encode(point[1:33]), Y: encode(point[33:])}, nil
}

func ed25519Key(private ed25519.PrivateKey) Key {
	public, _ := private.Public().(ed25519.PublicKey) // it is, by its documentation
	return newKey(EdDSA, private, ed25519JWK(public))
}

func ed25519JWK(public ed25519.PublicKey) jwk {
	return jwk{Kty: "OKP", Crv: "Ed25519", X: encode(public)}
}

// CanSign reports whether k has its private part.
func (k Key) CanSign() bool { return k.private != nil }

// Public returns k without its private part.
func (k Key) Public() Key {
	k.private = nil
	return k
}

// PublicKey returns the public key of ES256 or EdDSA as the standard library has it; nil for a secret.
func (k Key) PublicKey() crypto.PublicKey {
	x, _ := base64.RawURLEncoding.DecodeString(k.public.X) // newKey has encoded both
	y, _ := base64.RawURLEncoding.DecodeString(k.public.Y)
	switch k.Algorithm {
	case ES256:
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err == nil {
			return public
		}
	case EdDSA:
		return ed25519.PublicKey(x)
	case HS256:
	}
	return nil
}

// sign returns a JWT with the claims.
func (k Key) sign(claims jwt.Claims) (string, error) {
	t := jwt.NewWithClaims(jwt.GetSigningMethod(string(k.Algorithm)), claims) // its typ is JWT
	t.Header["kid"] = k.ID
	return t.SignedString(k.private)
}

// MarshalJSON returns the JWK of k with its private part, if it has one.
func (k Key) MarshalJSON() ([]byte, error) {
	out := k.public
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		d, err := private.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encode a key: %w", err)
		}
		out.D = encode(d)
	case ed25519.PrivateKey:
		out.D = encode(private.Seed())
	case []byte:
		out.Kty, out.K = "oct", encode(private)
	}
	return json.Marshal(out)
}

// UnmarshalJSON decodes a JWK. The id of the key is its thumbprint, whatever its kid is.
func (k *Key) UnmarshalJSON(b []byte) error {
	var in jwk
	if err := json.Unmarshal(b, &in); err != nil {
		return errors.New("not a JWK") // the error of package json may repeat a part of the key
	}
	key, err := in.key()
	if err != nil {
		return err
	}
	if in.Alg != "" && in.Alg != key.Algorithm {
		return fmt.Errorf("a JWK of type %s with alg %.20q: want %s", in.Kty, in.Alg, key.Algorithm)
	}
	*k = key
	return nil
}

// A jwk is a JSON Web Key of RFC 7517.
type jwk struct {
	Kty string    `json:"kty"`
	Crv string    `json:"crv,omitempty"`
	X   string    `json:"x,omitempty"`
	Y   string    `json:"y,omitempty"`
	D   string    `json:"d,omitempty"`
	K   string    `json:"k,omitempty"`
	Kid string    `json:"kid,omitempty"`
	Alg Algorithm `json:"alg,omitempty"`
	Use string    `json:"use,omitempty"`
}

// thumbprint returns the thumbprint of RFC 7638: the hash of the required members in
// alphabetical order.
func (j jwk) thumbprint() string {
	text := fmt.Sprintf(`{"crv":%q,"kty":%q,"x":%q}`, j.Crv, j.Kty, j.X)
	switch j.Kty {
	case "EC":
		text = fmt.Sprintf(`{"crv":%q,"kty":%q,"x":%q,"y":%q}`, j.Crv, j.Kty, j.X, j.Y)
	case "oct":
		text = fmt.Sprintf(`{"k":%q,"kty":%q}`, j.K, j.Kty)
	}
	sum := sha256.Sum256([]byte(text))
	return encode(sum[:])
}

func (j jwk) key() (Key, error) {
	x, errX := base64.RawURLEncoding.DecodeString(j.X)
	y, errY := base64.RawURLEncoding.DecodeString(j.Y)
	d, errD := base64.RawURLEncoding.DecodeString(j.D)
	secret, errK := base64.RawURLEncoding.DecodeString(j.K)
	if cmp.Or(errX, errY, errD, errK) != nil {
		return Key{}, errors.New("a JWK with a member that is not base64url")
	}
	switch {
	case j.Kty == "EC" && j.Crv == "P-256" && len(x) == 32 && len(y) == 32:
		return readEC(append(append([]byte{4}, x...), y...), d)
	case j.Kty == "OKP" && j.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize:
		return readOKP(x, d)
	case j.Kty == "oct":
		return NewSecret(secret)
	}
	return Key{}, fmt.Errorf("a JWK of type %.20q and curve %.20q: want EC with P-256, OKP with Ed25519, or oct", j.Kty, j.Crv)
}

// readEC returns the key of a point and, if d is not empty, of the private number.
func readEC(point, d []byte) (Key, error) {
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return Key{}, errors.New("a JWK with x and y that are not a point of P-256")
	}
	if len(d) == 0 {
		return publicKey(public)
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil || !private.PublicKey.Equal(public) {
		return Key{}, errors.New("a JWK whose d does not belong to its x and y")
	}
	return ecdsaKey(private)
}

func readOKP(x, seed []byte) (Key, error) {
	if len(seed) == 0 {
		return publicKey(ed25519.PublicKey(x))
	}
	if len(seed) != ed25519.SeedSize {
		return Key{}, fmt.Errorf("a JWK whose d has %d bytes: want %d", len(seed), ed25519.SeedSize)
	}
	private := ed25519.NewKeyFromSeed(seed)
	if !bytes.Equal(private[ed25519.SeedSize:], x) {
		return Key{}, errors.New("a JWK whose d does not belong to its x")
	}
	return ed25519Key(private), nil
}

// publicKey returns a key without a private part.
func publicKey(public any) (Key, error) {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		j, err := ecdsaJWK(public)
		return newKey(ES256, nil, j), err
	case ed25519.PublicKey:
		return newKey(EdDSA, nil, ed25519JWK(public)), nil
	}
	return Key{}, fmt.Errorf("a public key of type %T: want P-256 or Ed25519", public)
}

// ParseFile reads the keys of a file: PEM blocks, a JWK or a JWK set, or for HS256 the secret
// itself. The first key signs, and must be of the algorithm. The others are returned without
// their private parts.
func ParseFile(content []byte, a Algorithm) ([]Key, error) {
	keys, err := parseFile(content, a)
	if err != nil {
		return nil, err
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("no key in the file")
	case keys[0].Algorithm != a:
		return nil, fmt.Errorf("the first key is for %s: token-algorithm is %s", keys[0].Algorithm, a)
	case !keys[0].CanSign():
		return nil, errors.New("the first key is a public key: the first key signs, so it must be a private key")
	}
	for i := range keys[1:] {
		keys[i+1] = keys[i+1].Public()
	}
	return keys, nil
}

func parseFile(content []byte, a Algorithm) ([]Key, error) {
	trimmed := bytes.TrimSpace(bytes.TrimPrefix(content, []byte("\ufeff")))
	switch {
	case len(trimmed) == 0:
		return nil, errors.New("the file is empty")
	case bytes.HasPrefix(trimmed, []byte("{")):
		return parseJSON(trimmed)
	case bytes.HasPrefix(trimmed, []byte("-----BEGIN ")):
		return parsePEM(trimmed)
	case a == HS256:
		// Remove one line end, which editors add. Every other byte belongs to the secret.
		key, err := NewSecret(bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r")))
		return []Key{key}, err
	}
	return nil, errors.New("want PEM, a JWK or a JWK set")
}

// parseJSON reads a JWK or a JWK set.
func parseJSON(text []byte) ([]Key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(text, &set) != nil {
		return nil, errors.New("not a JWK or a JWK set: the file is not JSON, or its member keys is not a list")
	}
	if set.Keys == nil {
		set.Keys = []json.RawMessage{text}
	}
	keys := make([]Key, len(set.Keys))
	for i, jwk := range set.Keys {
		if err := keys[i].UnmarshalJSON(jwk); err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	return keys, nil
}

func parsePEM(rest []byte) (keys []Key, err error) {
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, errors.New("the PEM file has text that is no block")
			}
			return keys, nil
		}
		if block.Type == "EC PARAMETERS" { // "openssl ecparam" writes it in front of the key
			continue
		}
		key, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys)+1, err)
		}
		keys = append(keys, key)
	}
}

func parseBlock(block *pem.Block) (Key, error) {
	var private any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return Key{}, fmt.Errorf("the content of the block is no %s", block.Type)
		}
		return publicKey(public)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return Key{}, fmt.Errorf("a block %.40q: want PRIVATE KEY, EC PRIVATE KEY or PUBLIC KEY", block.Type)
	}
	if err != nil { // of package asn1, about fields of its structures
		return Key{}, fmt.Errorf("the content of the block is no %s", block.Type)
	}
	switch private := private.(type) {
	case *ecdsa.PrivateKey:
		return ecdsaKey(private)
	case ed25519.PrivateKey:
		return ed25519Key(private), nil
	}
	return Key{}, fmt.Errorf("a private key of type %T: want P-256 or Ed25519", private)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
