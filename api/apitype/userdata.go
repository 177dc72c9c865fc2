package apitype

// UserData is everything that the service stores about a user.
type UserData struct {
	UserID    string           `json:"userId" example:"maya"`
	Streams   []StoredStream   `json:"streams" nullable:"false" doc:"The running streams, oldest first."`
	Override  any              `json:"override,omitempty" doc:"The limit or plan that is set for the user, as it is stored."`
	Cooldowns []StoredCooldown `json:"cooldowns" nullable:"false" doc:"The sessions and devices that were evicted, and may not evict others for a while."`
	Departed  any              `json:"departed,omitempty" doc:"The keys of a user who is moving to another shard, as they are stored."`
	Arrived   bool             `json:"arrived,omitempty" doc:"The user has come from another shard, by a move of users that is not complete."`
	Other     []StoredKey      `json:"other,omitempty" doc:"Keys under the user's id that streamcount did not write."`
}

// A StoredStream is a running stream with everything that is stored about it.
type StoredStream struct {
	ID         string   `json:"id"`
	StartedAt  *Time    `json:"startedAt,omitempty" format:"date-time"`
	ExpiresAt  *Time    `json:"expiresAt,omitempty" format:"date-time" doc:"When it expires without a heartbeat; left out if etcd did not report it in time."`
	TTLSeconds int      `json:"ttlSeconds"`
	Region     string   `json:"region,omitempty"`
	Session    string   `json:"session,omitempty"`
	Via        string   `json:"via,omitempty" doc:"What started it in place of its player."`
	Device     *Device  `json:"device,omitempty"`
	Content    *Content `json:"content,omitempty"`
	Profile    string   `json:"profile,omitempty"`
	Network    string   `json:"network,omitempty"`
	Labels     Labels   `json:"labels,omitempty"`
	Priority   *int     `json:"priority,omitempty"`
	Plan       string   `json:"plan,omitempty" doc:"The plan that the start named."`
	Limit      *int     `json:"limit,omitempty" doc:"The limit that the start named."`
}

// A StoredCooldown forbids a session or a device to end other streams.
type StoredCooldown struct {
	Of        string `json:"of" enum:"session,device"`
	Hash      string `json:"hash" doc:"The first 16 bytes of the SHA-256 of the id of the session or device, in base64url."`
	ExpiresAt *Time  `json:"expiresAt,omitempty" format:"date-time"`
}

// A StoredKey is a key in etcd with its value.
type StoredKey struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// ErasedData is the answer to the erasure of a user's data: what was removed.
type ErasedData struct {
	UserID    string `json:"userId" example:"maya"`
	Streams   int    `json:"streams" doc:"How many streams were ended."`
	Override  bool   `json:"override" doc:"Whether a limit or plan of the user was removed."`
	Cooldowns int    `json:"cooldowns" doc:"How many cool-downs were removed."`
	Other     int    `json:"other" doc:"How many other keys were removed: of moves between shards, and of other programs."`
	MarkKept  bool   `json:"markKept,omitempty" doc:"A move of users between shards is not complete. Until it is, one key with the user's id and no value remains."`
}
