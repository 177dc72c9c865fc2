package lease

// Counters are what benchmarks report of a Limiter.
func (l *Limiter) Counters() map[string]float64 {
	c, sizes := l.pool.book.stats(), l.m.batchSize.read()
	return map[string]float64{
		"writes/batch": sizes.Sum / max(1, float64(sizes.Count)),
		"granted":      float64(c.granted), "handedOn": float64(c.handedOn), "reserved": float64(c.reserved),
		"revoked": float64(c.revoked), "taken": float64(l.admitted.Load()),
	}
}
