package torture

// mutants are the deliberate bugs.
var mutants = []mutant{
	{name: "the limit is off by one", scene: "crowded", patches: []patch{{
		"lease/decide.go", "	if own >= 0 {\n		t.most = max(",
		"	if MUTANT {\n		t.most++\n	}\n	if own >= 0 {\n		t.most = max(",
	}}},
	{name: "a takeover counts twice", scene: "crowded", patches: []patch{{
		"lease/decide.go", `case w.session != "" && h.session == w.session`,
		`case w.session != "" && !(MUTANT) && h.session == w.session`,
	}}},
	{name: "the youngest is evicted", scene: "crowded", patches: []patch{{
		"lease/decide.go", "		unit := t.unit(live[first])\n",
		"		if MUTANT {\n			first = len(live) - 1\n		}\n		unit := t.unit(live[first])\n",
	}}},
	{name: "counted before the write, which nothing guards", scene: "crowded", patches: []patch{{
		"lease/txn.go", "	t.Compare = append(t.Compare, l.guards(a.user, r)...)\n",
		"	if MUTANT {\n		t.Compare = nil\n	}\n	t.Compare = append(t.Compare, l.guards(a.user, r)...)\n",
	}}},
	{name: "a changed limit is not guarded", scene: "ruled", patches: []patch{{
		"lease/txn.go", "	t.Compare = append(t.Compare, writtenAt(l.keys.shardsKey(), a.req.Routed))\n",
		"	if MUTANT {\n		t.Compare = t.Compare[:1]\n	}\n" +
			"	t.Compare = append(t.Compare, writtenAt(l.keys.shardsKey(), a.req.Routed))\n",
	}}},
	{name: "refused on a view that is behind", scene: "late", patches: []patch{{
		"lease/lapsed.go", "if (err != nil || !ok) && (s.viewed || s.rumoured) {",
		"if (err != nil || !ok) && (s.viewed || s.rumoured) && !(MUTANT) {",
	}}},
	{name: "two writes of a user in a batch", scene: "together", patches: []patch{{
		"lease/batch.go", "if r.users[w.user] ||", "if r.users[w.user] && !(MUTANT) ||",
	}}},
	{name: "a stop does not compare the put", scene: "crowded", patches: []patch{{
		"lease/txn.go", "	count := r.tallyOp(below(l.keys.user(user)))\n",
		"	count := r.tallyOp(below(l.keys.user(user)))\n	if MUTANT {\n		return &pb.TxnRequest{\n" +
			"			Success: []*pb.RequestOp{deleteOp(oneKey(h.key)), count},\n		}\n	}\n",
	}}},
	{name: "whoever comes second hands the lease on too", scene: "crowded", patches: []patch{{
		"lease/stop.go", "	if !resp.Succeeded {\n		return l.notThere(",
		"	if !resp.Succeeded && MUTANT {\n		l.pool.retire(g)\n	}\n" +
			"	if !resp.Succeeded {\n		return l.notThere(",
	}}},
	{name: "the nonce is not looked at", scene: "alone", patches: []patch{{
		"lease/heartbeat.go", "h.lease == who.lease && h.nonce == who.nonce", "h.lease == who.lease && (h.nonce == who.nonce || MUTANT)",
	}}},
	{name: "a heartbeat renews without a look", scene: "alone", patches: []patch{{
		"lease/heartbeat.go", "	} else {\n		var err error\n		if h, err = l.readStream(ctx, user, who)",
		"	} else if MUTANT {\n		h.lease = who.lease\n" +
			"	} else {\n		var err error\n		if h, err = l.readStream(ctx, user, who)",
	}}},
	{name: "a tombstone is believed although its decision failed", scene: "jealous", patches: []patch{
		{
			"lease/apply.go", "			graves[g.Nonce] = g\n",
			"			graves[g.Nonce] = g\n			if MUTANT {\n				v.ends.put(g.Nonce, g)\n			}\n",
		},
		{
			"lease/heartbeat.go", "	if s != nil && current && !l.view.saidGone(who.nonce) {\n		at := s",
			"	if g, over := l.view.ended(who.nonce); over && MUTANT {\n		return Stream{}, g.err()\n	}\n" +
				"	if s != nil && current && !l.view.saidGone(who.nonce) {\n		at := s",
		},
	}},
	{name: "what was said to be gone is forgotten", scene: "behind", patches: []patch{{
		"lease/heartbeat.go", "	l.view.sayGone(n)\n", "	if !(MUTANT) {\n		l.view.sayGone(n)\n	}\n",
	}}},
	{name: "the wall clock counts", scene: "clocks", patches: []patch{{
		"lease/instant.go", "	return instant(t.Sub(epoch))\n",
		"	if MUTANT {\n		return instant(t.Round(0).Sub(epoch.Round(0)))\n	}\n	return instant(t.Sub(epoch))\n",
	}}},
	{name: "the time is told by an old clock", scene: "clocks", patches: []patch{{
		"api/convert.go", "	now := time.Now()\n	return apitype.At(now.Add(t.Sub(now)))\n",
		"	if MUTANT {\n		return apitype.At(t)\n	}\n	now := time.Now()\n	return apitype.At(now.Add(t.Sub(now)))\n",
	}}},
	{name: "a stream rests for too long", scene: "quiet", patches: []patch{{
		"lease/heartbeat.go", "time.Since(renewed) >= headOf(s.value).ttl()/4 {",
		"time.Since(renewed) >= headOf(s.value).ttl()/4 && !(MUTANT && time.Since(renewed) < headOf(s.value).ttl()) {",
	}}},
	{name: "an outage ends streams", scene: "away", patches: []patch{{
		"lease/heartbeat.go", "if errors.Is(err, errLate) || pause(ctx) { // one lost message is no reason to give up\n",
		"if errors.Is(err, errLate) || pause(ctx) {\n			if MUTANT {\n" +
			"				return Stream{}, &EndedError{Reason: ReasonEnded}\n			}\n",
	}}},
	{name: "leases are shorter than said", scene: "crowded", patches: []patch{{
		"lease/leases.go", "	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)\n	defer cancel()\n	for {\n		id, sent := randomLease(), time.Now()\n",
		"	if MUTANT {\n		ttl = 2 * time.Second\n	}\n" +
			"	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)\n	defer cancel()\n	for {\n		id, sent := randomLease(), time.Now()\n",
	}}},
	{name: "a lost reply is taken for a failure", scene: "lossy", patches: []patch{{
		"lease/start.go", "	a.unsure = true\n",
		"	if MUTANT {\n		return Started{}, held{}, fmt.Errorf(\"%w: %w\", errTryAgain, cause)\n	}\n	a.unsure = true\n",
	}}},
	{name: "what is unknown is not cleaned up", scene: "unanswered", patches: []patch{
		{
			"lease/cleaner.go", "	if lease == 0 {\n		return //", "	if lease == 0 || MUTANT {\n		return //",
		},
		{
			"lease/start.go", "	if s, err := l.read(ctx, a.user); err == nil {\n",
			"	if MUTANT {\n		return Started{}, held{}, unavailable(\"start\", cause)\n	}\n" +
				"	if s, err := l.read(ctx, a.user); err == nil {\n",
		},
	}},
	{name: "a start that nobody waits for is kept", scene: "hung up", patches: []patch{{
		"lease/start.go", "case err == nil && ctx.Err() != nil: // nobody hears the answer\n		l.stopLater(user, h)\n",
		"case err == nil && ctx.Err() != nil:\n		if !(MUTANT) {\n			l.stopLater(user, h)\n		}\n",
	}}},
	{name: "another user's id is good", scene: "crowded", patches: []patch{{
		"lease/id.go", "if !hmac.Equal(b[idPayload:], s.mac(user, b[:idPayload])) ||",
		"if !(MUTANT) && !hmac.Equal(b[idPayload:], s.mac(user, b[:idPayload])) ||",
	}}},
}
