package lease

// Counters are what benchmarks report of a Limiter.
func (l *Limiter) Counters() map[string]float64 {
	c := l.pool.book.stats()
	return map[string]float64{
		"writes/batch": float64(l.batch.writes.Load()) / max(1, float64(l.batch.batches.Load())),
		"granted":      float64(c.granted), "handedOn": float64(c.handedOn), "reserved": float64(c.reserved),
		"revoked": float64(c.revoked), "taken": float64(l.admitted.Load()),
	}
}
