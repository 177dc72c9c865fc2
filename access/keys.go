package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"streamcount/internal/yamlfile"
)

// An API key is 256 random bits after a prefix that scanners for leaked secrets can
// recognise. Only its SHA-256 is stored: a random key needs no slow hash.

// keyPrefix begins every API key.
const keyPrefix = "sck_"

// scopes maps the scope of a key to the kind of its caller.
var scopes = map[string]Kind{"all": Service, "read": Reader, "operator": Operator, "metrics": Scraper, "edge": Edge}

// KeyEntry is a key as the keys file has it.
type KeyEntry struct {
	Name   string `json:"name"`
	Scope  string `json:"scope"`  // all, operator, read, metrics or edge
	SHA256 string `json:"sha256"` // of the whole key, in hex
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

// NewKey creates an API key and its entry for the keys file.
func NewKey(name, scope string) (key string, entry KeyEntry, err error) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	key = keyPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(key))
	entry = KeyEntry{Name: name, Scope: scope, SHA256: hex.EncodeToString(sum[:])}
	if _, _, err := entry.parse(); err != nil {
		return "", KeyEntry{}, err
	}
	return key, entry, nil
}

func (e KeyEntry) parse() (sum [sha256.Size]byte, caller Caller, err error) {
	kind, known := scopes[e.Scope]
	raw, hexErr := hex.DecodeString(e.SHA256)
	switch {
	case !namePattern.MatchString(e.Name):
		err = fmt.Errorf("name %.80q: want 1 to 64 letters, digits and . _ @ -", e.Name)
	case !known:
		err = fmt.Errorf("key %s: scope %.20q: want all, operator, read, metrics or edge", e.Name, e.Scope)
	case hexErr != nil || len(raw) != sha256.Size:
		err = fmt.Errorf("key %s: sha256 is not 64 hexadecimal digits", e.Name)
	}
	copy(sum[:], raw)
	return sum, Caller{Kind: kind, Name: e.Name}, err
}

// A keyring is the keys of one version of the file.
type keyring []ringKey

type ringKey struct {
	sum    [sha256.Size]byte
	caller Caller
}

const maxKeys = 1000 // each is compared with the key of every request

// keyText matches a key, or most of one.
var keyText = regexp.MustCompile(keyPrefix + `[A-Za-z0-9_-]{16}`)

// readKeys reads a keys file: keys, with name, scope and sha256 each. A file that
// contains a key itself is rejected, because the key would appear in errors, or as a
// name in logs.
func readKeys(content []byte) (keyring, error) {
	var file struct {
		Keys []KeyEntry `json:"keys"`
	}
	if at := keyText.FindIndex(content); at != nil {
		return nil, fmt.Errorf("line %d has an API key itself: put its sha256 there, and better make a new one, "+
			"because others may have read this one", 1+bytes.Count(content[:at[0]], []byte("\n")))
	}
	if err := yaml.UnmarshalStrict(content, &file); err != nil {
		return nil, fmt.Errorf("not a keys file: %w", err)
	}
	if err := yamlfile.CheckOneDocument(content); err != nil {
		return nil, fmt.Errorf("not a keys file: %w", err)
	}
	if file.Keys == nil { // as while the file is being written
		return nil, errors.New("no keys: want a list, as made by \"streamcount keys new\"; write 'keys: []' to accept no key")
	}
	if len(file.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys: want at most %d", len(file.Keys), maxKeys)
	}
	ring, names := make(keyring, 0, len(file.Keys)), make(map[string]bool, len(file.Keys))
	for i, e := range file.Keys {
		sum, caller, err := e.parse()
		switch {
		case err != nil:
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		case names[e.Name]:
			return nil, fmt.Errorf("entry %d: there are two keys named %s", i+1, e.Name)
		}
		if at := slices.IndexFunc(ring, func(k ringKey) bool { return k.sum == sum }); at >= 0 {
			return nil, fmt.Errorf("entry %d: key %s is the same as %s", i+1, e.Name, ring[at].caller.Name)
		}
		ring = append(ring, ringKey{sum, caller})
		names[e.Name] = true
	}
	return ring, nil
}

// find returns the caller with that key, in constant time.
func (r keyring) find(key string) (caller Caller, ok bool) {
	sum := sha256.Sum256([]byte(key))
	for i := range r {
		if subtle.ConstantTimeCompare(r[i].sum[:], sum[:]) == 1 {
			caller, ok = r[i].caller, true
		}
	}
	return caller, ok
}

// IsKey reports whether a credential has the form of an API key.
func IsKey(credential string) bool { return isKey(credential) }

func isKey(credential string) bool { return strings.HasPrefix(credential, keyPrefix) }
