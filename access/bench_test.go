package access

import "testing"

// The benchmarks measure the authentication of a call:
//
//	go test -run xxx -bench . ./access
func BenchmarkAuthenticate(b *testing.B) {
	key, entry, err := NewKey("backend", "all")
	if err != nil {
		b.Fatal(err)
	}
	byAlg := func(alg string) (*Authenticator, string) {
		i := newIssuer(b, "k", alg)
		return newAuthenticator(b, Config{KeysFile: keysFile(b, entry), Tokens: tokensBy(b, i)}), i.sign(b, goodClaims(), nil)
	}
	run := func(name string, a *Authenticator, credential string, forget bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if forget {
					a.viewers.known.Purge()
				}
				if _, err := a.as("Bearer " + credential); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	a, _ := byAlg("RS256")
	run("Key", a, key, false)
	for _, alg := range asymmetric {
		a, token := byAlg(alg)
		run(alg+"/First", a, token, true)
		run(alg+"/Known", a, token, false)
	}
}

func FuzzAuthenticate(f *testing.F) {
	i := newIssuer(f, "k", "EdDSA")
	a := newAuthenticator(f, Config{Tokens: tokensBy(f, i)})
	f.Add("Bearer "+i.sign(f, goodClaims(), nil), "")
	f.Add("Bearer a.b.c", "x")
	f.Add("Bearer "+keyPrefix, "")
	good := i.sign(f, goodClaims(), nil)
	f.Fuzz(func(t *testing.T, header, tail string) {
		if c, err := a.as(header + tail); err == nil && c.Kind != Viewer {
			t.Fatalf("%q is accepted as %v", header+tail, c)
		}
		if c, err := a.as("Bearer "+good, tail); err == nil {
			t.Fatalf("two headers are accepted as %v", c)
		}
	})
}
