package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"streamcount/internal/filewatch"
)

// A keySource has the public keys of an issuer. run keeps them up to date.
type keySource interface {
	// current returns the keys, or nil before the first were read.
	current() *keyset
	// lookup is current for a token of that kid, which may cause a fetch.
	lookup(ctx context.Context, kid string) *keyset
	runner
}

// A runner keeps something up to date until ctx ends.
type runner interface {
	run(ctx context.Context) error
}

const filesEvery = 3 * time.Second // a change applies about a second later

// A keyFile is a keySource of one file.
type keyFile struct {
	set   atomic.Pointer[keyset]
	files *filewatch.Files
	log   *slog.Logger
}

func newKeyFile(path string, log *slog.Logger) (*keyFile, error) {
	f := &keyFile{log: log}
	var logged [sha256.Size]byte
	var err error
	f.files, err = followFile(path, func(content []byte) error {
		set, err := readKeyset(content)
		if set.sum != logged { // an unusable file is read repeatedly
			logged = set.sum
			set.log(log)
		}
		if err == nil {
			f.set.Store(set)
		}
		return err
	})
	return f, err
}

func (f *keyFile) current() *keyset                       { return f.set.Load() }
func (f *keyFile) lookup(context.Context, string) *keyset { return f.set.Load() }
func (f *keyFile) run(ctx context.Context) error          { return f.files.Run(ctx, filesEvery, f.log) }

// A secretFile has the secret of HS256 tokens.
type secretFile struct {
	secret atomic.Pointer[[]byte]
	files  *filewatch.Files
	log    *slog.Logger
}

const minSecret = 32 // bytes, as RFC 7518 requires for HS256

func newSecretFile(path string, log *slog.Logger) (*secretFile, error) {
	f := &secretFile{log: log}
	warnIfExposed(path, log)
	var err error
	f.files, err = followFile(path, func(content []byte) error {
		// Remove one line end, which editors add. Every other byte belongs to the secret.
		s := bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
		if len(s) < minSecret {
			return fmt.Errorf("a secret of %d bytes: want %d or more", len(s), minSecret)
		}
		f.secret.Store(&s)
		return nil
	})
	return f, err
}

func (f *secretFile) run(ctx context.Context) error { return f.files.Run(ctx, filesEvery, f.log) }

// followFile reads a file now, and while its Run runs whenever the file changes.
func followFile(path string, load func(content []byte) error) (*filewatch.Files, error) {
	return filewatch.New(func(contents [][]byte) error {
		if err := load(contents[0]); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}, path)
}

// warnIfExposed logs a warning if every user of this machine may read a file with secrets
// or rights.
func warnIfExposed(path string, log *slog.Logger) {
	if mode, exposed := filewatch.WorldReadable(path); exposed {
		log.Warn("a file of credentials is readable by every user of this machine: take that right away",
			"file", path, "mode", mode.String())
	}
}
