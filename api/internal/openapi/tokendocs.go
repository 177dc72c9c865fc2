package openapi

import (
	"time"

	"streamcount/access"
	"streamcount/api/apitype"
)

var exampleTokenKeys = apitype.TokenKeys{Keys: []apitype.TokenKey{{
	KID: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", Algorithm: "ES256", State: "signing",
	CreatedAt: exampleTime(0), SignsFrom: exampleTime(0),
}}}

// TokenKeys describes the operation of that name.
func TokenKeys() Operation {
	return Operation{
		id: "token-keys", tag: tagNode, summary: "List the keys of playback tokens",
		traits: Traits{Action: access.ReadRules},
		description: "The keys in etcd, without the keys themselves, in the order in which they sign. The public keys are at " +
			"`/.well-known/jwks.json`.",
		response: exampleTokenKeys,
	}
}

// RotateTokenKey describes the operation of that name.
func RotateTokenKey() Operation {
	rotated := exampleTokenKeys.Keys[0]
	rotated.RemovedAt = exampleTime(2*time.Hour + 3*time.Minute)
	return Operation{
		id: "rotate-token-key", tag: tagNode, summary: "Create the next key of playback tokens",
		traits: Traits{Action: access.WriteRules},
		description: "The next key is published for an hour before it signs, so that verifiers that cache the keys have it. With `now` it " +
			"signs after 20 seconds, when all nodes have published it. Tokens that an earlier key has signed remain valid until they expire. The call is safe to repeat.",
		request: apitype.RotateTokenKey{},
		response: apitype.TokenKeys{Keys: []apitype.TokenKey{rotated, {
			KID: "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", Algorithm: "ES256", State: "published",
			CreatedAt: exampleTime(0), SignsFrom: exampleTime(time.Hour),
		}}},
	}
}
