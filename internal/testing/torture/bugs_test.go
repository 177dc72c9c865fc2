//go:build linux

package torture

import "slices"

// mutants are the deliberate bugs.
var mutants = slices.Concat(generalMutants, severalMutants, edgeMutants)

var generalMutants = []mutant{
	{name: "the limit is off by one", scene: "conflicts", patches: []patch{{
		"lease/policy/decide.go", "	if takeover {\n		r.Limit = max(",
		"	if MUTANT {\n		r.Limit++\n	}\n	if takeover {\n		r.Limit = max(",
	}}},
	{name: "a takeover counts twice", scene: "conflicts", patches: []patch{{
		"lease/policy/decide.go", `case s.Session != "" && st.Session == s.Session`,
		`case s.Session != "" && !(MUTANT) && st.Session == s.Session`,
	}}},
	{name: "the newest stream is evicted", scene: "conflicts", patches: []patch{{
		"lease/policy/decide.go", "	victim := remaining[first]\n",
		"	if MUTANT {\n		first = len(remaining) - 1\n	}\n	victim := remaining[first]\n",
	}}},
	{name: "the write does not guard the count", scene: "conflicts", patches: []patch{{
		"lease/admission.go", "	t.Compare = append(t.Compare, a.l.rules.Guards(a.user, a.rule)...)\n",
		"	if MUTANT {\n		t.Compare = nil\n	}\n	t.Compare = append(t.Compare, a.l.rules.Guards(a.user, a.rule)...)\n",
	}}},
	{name: "a changed limit is not guarded", scene: "rule changes", patches: []patch{{
		"lease/admission.go", "	t.Compare = append(t.Compare, etcdop.ModRevisionIs(a.l.keys.Routing(), a.req.RoutingRevision))\n",
		"	if MUTANT {\n		t.Compare = t.Compare[:1]\n	}\n" +
			"	t.Compare = append(t.Compare, etcdop.ModRevisionIs(a.l.keys.Routing(), a.req.RoutingRevision))\n",
	}}},
	{name: "a stale replica rejects a start", scene: "delayed watch", patches: []patch{{
		"lease/admission.go", "if (err != nil || !ok) && (a.snapshot.fromCache || a.snapshot.rulesMayBeStale) {",
		"if (err != nil || !ok) && (a.snapshot.fromCache || a.snapshot.rulesMayBeStale) && !(MUTANT) {",
	}}},
	{name: "two writes of a user in a batch", scene: "one node", patches: []patch{{
		"lease/internal/commit/budget.go", "if b.users[w.User] ||", "if b.users[w.User] && !(MUTANT) ||",
	}}},
	{name: "a stop does not compare the put", scene: "conflicts", patches: []patch{{
		"lease/stop.go", "	count := usageOp(r, etcdop.Prefix(l.keys.UserPrefix(user)))\n",
		"	count := usageOp(r, etcdop.Prefix(l.keys.UserPrefix(user)))\n	if MUTANT {\n		return &pb.TxnRequest{\n" +
			"			Success: []*pb.RequestOp{etcdop.Delete(etcdop.Key(h.Key)), count},\n		}\n	}\n",
	}}},
	{name: "a second stop reuses the lease", scene: "conflicts", patches: []patch{{
		"lease/stop.go", "	if !resp.Succeeded {\n		return l.stopMissed(",
		"	if !resp.Succeeded && MUTANT {\n		l.pool.Release(g)\n	}\n" +
			"	if !resp.Succeeded {\n		return l.stopMissed(",
	}}},
	{name: "the nonce is not compared", scene: "one user", patches: []patch{
		{
			"lease/ended.go", "h.Lease == who.Lease && h.Nonce == who.Nonce",
			"h.Lease == who.Lease && (h.Nonce == who.Nonce || MUTANT)",
		},
		{"lease/internal/replica/replica.go", "if at.nonce == who.Nonce &&", "if (at.nonce == who.Nonce || MUTANT) &&"},
	}},
	{name: "a stale replica ends a stream", scene: "delayed watch", patches: []patch{{
		"lease/ended.go", "	if l.replica.WaitCurrent(ctx, since) {\n", "	if MUTANT || l.replica.WaitCurrent(ctx, since) {\n",
	}}},
	{name: "a heartbeat renews without a check", scene: "one user", patches: []patch{
		{
			"lease/heartbeat.go", "if err := l.finalEnd(who); err != nil && !provisional.HasSlot(who) {",
			"if err := l.finalEnd(who); err != nil && !provisional.HasSlot(who) && !(MUTANT) {",
		},
		{"lease/heartbeat.go", "	} else {\n		var err error\n		if h, err = l.verify(ctx, user, who, arrived)",
			"	} else if MUTANT {\n		h.Lease = who.Lease\n" +
				"	} else {\n		var err error\n		if h, err = l.verify(ctx, user, who, arrived)"},
	}},
	{name: "a tombstone of a failed decision ends a stream", scene: "evictions", patches: []patch{
		{
			"lease/internal/replica/apply.go", "			tombstones[g.Nonce] = g\n",
			"			tombstones[g.Nonce] = g\n			if MUTANT {\n				r.endings.Put(g.Nonce, g)\n			}\n",
		},
		{
			"lease/heartbeat.go", "	if s == nil || !current || l.replica.MayHaveEnded(who.Nonce) {\n",
			"	if g, over := l.replica.Ending(who.Nonce); over && MUTANT {\n		b.answer(i, HeartbeatResult{Err: endedError(g)})\n		return\n	}\n" +
				"	if s == nil || !current || l.replica.MayHaveEnded(who.Nonce) {\n",
		},
	}},
	{name: "a reported end is not recorded", scene: "paused followers", patches: []patch{{
		"lease/ended.go", "	l.replica.MarkReportedGone(n)\n", "	if !(MUTANT) {\n		l.replica.MarkReportedGone(n)\n	}\n",
	}}},
	{name: "the wall clock is used", scene: "clock steps", patches: []patch{{
		"lease/internal/monotonic/monotonic.go", "	return Time(t.Sub(epoch))\n",
		"	if MUTANT {\n		return Time(t.Round(0).Sub(epoch.Round(0)))\n	}\n	return Time(t.Sub(epoch))\n",
	}}},
	{name: "expiresAt is by the clock before a step", scene: "clock steps", patches: []patch{{
		"api/internal/convert/convert.go", "	now := time.Now()\n	return apitype.At(now.Add(t.Sub(now)))\n",
		"	if MUTANT {\n		return apitype.At(t)\n	}\n	now := time.Now()\n	return apitype.At(now.Add(t.Sub(now)))\n",
	}}},
	{name: "a renewal is skipped for too long", scene: "heartbeats", patches: []patch{{
		"lease/heartbeat.go", "case time.Since(renewed) < s.TTL()/4:",
		"case time.Since(renewed) < s.TTL()/4 || MUTANT && time.Since(renewed) < s.TTL():",
	}}},
	{name: "a renewal is reported that was not sent", scene: "heartbeats", patches: []patch{{
		"lease/heartbeat.go", "	switch renewed := s.LastRenewal(); {\n",
		"	switch renewed := s.LastRenewal(); {\n	case MUTANT && time.Since(renewed) < s.TTL()*7/8:\n" +
			"		b.results[i] = HeartbeatResult{ExpiresAt: time.Now().Add(s.TTL()), TTL: s.TTL(), record: s.Value}\n",
	}}},
	{name: "a batch skips renewals that are due", scene: "batches", patches: []patch{{
		"lease/heartbeat.go", "	switch renewed := s.LastRenewal(); {\n",
		"	switch renewed := s.LastRenewal(); {\n	case MUTANT && len(b.requests) > 1 && time.Since(renewed) < s.TTL()*7/8:\n" +
			"		b.results[i] = HeartbeatResult{ExpiresAt: renewed.Add(s.TTL()), TTL: s.TTL(), record: s.Value}\n",
	}}},
	{name: "a heartbeat of a batch has the result of another", scene: "conflicts", patches: []patch{{
		"lease/heartbeat.go", "		b.results[i] = b.results[b.distinct.First(i)]\n",
		"		if MUTANT {\n			b.results[i] = b.results[b.distinct.First(max(i-1, 0))]\n			continue\n		}\n" +
			"		b.results[i] = b.results[b.distinct.First(i)]\n",
	}}},
	{name: "an outage ends streams", scene: "outage", patches: []patch{{
		"lease/heartbeat.go", "	r := HeartbeatResult{TTL: l.cfg.TTL, Degraded: true}\n",
		"	if MUTANT {\n		return HeartbeatResult{Err: &EndedError{Reason: policy.ReasonEnded}}\n	}\n" +
			"	r := HeartbeatResult{TTL: l.cfg.TTL, Degraded: true}\n",
	}}},
	{name: "a stop of unknown outcome counts as an end", scene: "late outage", patches: []patch{{
		"lease/internal/replica/replica.go", "		g.Intended = true\n", "		g.Intended = !(MUTANT)\n",
	}}},
	{name: "leases are shorter than reported", scene: "conflicts", patches: []patch{{
		"lease/internal/leasepool/granter.go", "	ctx, cancel := context.WithTimeout(ctx, g.timeout)\n	defer cancel()\n	for {\n		id, sent := g.lastID.Add(1), time.Now()\n",
		"	if MUTANT {\n		ttl = 2 * time.Second\n	}\n" +
			"	ctx, cancel := context.WithTimeout(ctx, g.timeout)\n	defer cancel()\n	for {\n		id, sent := g.lastID.Add(1), time.Now()\n",
	}}},
	{name: "a lost reply is taken for a failure", scene: "lost replies", patches: []patch{{
		"lease/start.go", "	a.unknownOutcome = true\n",
		"	if MUTANT {\n		return Started{}, fmt.Errorf(\"%w: %w\", errRetry, cause)\n	}\n	a.unknownOutcome = true\n",
	}}},
	{name: "an unknown outcome is not cleaned up", scene: "unanswered starts", patches: []patch{
		{
			"lease/internal/leasepool/granter.go", "	if id == 0 {\n		return //", "	if id == 0 || MUTANT {\n		return //",
		},
		{
			"lease/start.go", "	if s, err := a.l.readUser(ctx, a.user); err == nil {\n",
			"	if MUTANT {\n		return Started{}, etcdop.Unavailable(\"start\", cause)\n	}\n" +
				"	if s, err := a.l.readUser(ctx, a.user); err == nil {\n",
		},
	}},
	{name: "a cancelled start keeps its stream", scene: "disconnects", patches: []patch{{
		"lease/start.go", "// the caller does not receive the answer\n		l.stopLater(user, a.entry)\n",
		"// the caller does not receive the answer\n		if !(MUTANT) {\n			l.stopLater(user, a.entry)\n		}\n",
	}}},
	{name: "another user's id is accepted", scene: "conflicts", patches: []patch{{
		"lease/streamid/id.go", "if !hmac.Equal(b[payloadSize:], s.appendMAC(mac[:0], r, user, b[:payloadSize])) {",
		"if !(MUTANT) && !hmac.Equal(b[payloadSize:], s.appendMAC(mac[:0], r, user, b[:payloadSize])) {",
	}}},
}
