package apitype

// A Token is a playback token for an edge, in each of the formats that the request named.
type Token struct {
	JWT        string            `json:"jwt,omitempty" doc:"A signed JWT. Its public keys are at /.well-known/jwks.json."`
	ExpiresAt  *Time             `json:"expiresAt,omitempty" format:"date-time" doc:"When the token expires, in all of its formats. Each heartbeat returns a new token."`
	Akamai     string            `json:"akamai,omitempty" doc:"The value of hdnts, for Akamai EdgeAuth."`
	SecureLink *SecureLink       `json:"secureLink,omitempty" doc:"The parameters for secure_link of nginx."`
	CloudFront map[string]string `json:"cloudFront,omitempty" doc:"The signed cookies of CloudFront, by name."`
}

// A SecureLink is a token for secure_link of nginx.
type SecureLink struct {
	MD5     string `json:"md5"`
	Expires int64  `json:"expires" doc:"Seconds since 1970."`
}

// A TokenKey is a key of playback tokens, without the key itself.
type TokenKey struct {
	KID       string `json:"kid" doc:"The id of the key, as in the headers of tokens."`
	Algorithm string `json:"algorithm" enum:"ES256,EdDSA"`
	State     string `json:"state" enum:"published,signing,verifying" doc:"published: it will sign; signing; verifying: it has signed, and its tokens may still be valid."`
	CreatedAt *Time  `json:"createdAt,omitempty" format:"date-time"`
	SignsFrom *Time  `json:"signsFrom,omitempty" format:"date-time" doc:"When it begins to sign."`
	RemovedAt *Time  `json:"removedAt,omitempty" format:"date-time" doc:"When it is removed, if its successor exists."`
}

// TokenKeys are the keys of playback tokens, in the order in which they sign.
type TokenKeys struct {
	Keys []TokenKey `json:"keys" nullable:"false"`
}

// RotateTokenKey is the body of a rotation.
type RotateTokenKey struct {
	Now bool `json:"now,omitempty" doc:"Whether the next key signs as soon as all nodes have published it, after 20 seconds. Verifiers that have cached the keys reject its tokens until they fetch the keys again."`
}
