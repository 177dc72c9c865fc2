package lease

// Counters are what benchmarks report of a Limiter.
func (l *Limiter) Counters() map[string]float64 {
	c, sizes := l.pool.Moves(), l.Stats().BatchSize
	return map[string]float64{
		"writes/batch": sizes.Sum / max(1, float64(sizes.Count)),
		"granted":      float64(c.Granted), "reused": float64(c.Reused), "taken": float64(c.Taken),
		"revoked": float64(c.Revoked), "admitted": float64(l.admitted.Load()),
	}
}
