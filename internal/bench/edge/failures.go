package edge

import (
	"fmt"
	"sync"
)

// failures counts requests that failed. It is safe for concurrent use.
type failures struct {
	mu      sync.Mutex
	count   int64
	example error
}

// add counts n failures, unless err is nil.
func (f *failures) add(n int64, err error) {
	if n == 0 || err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count += n; f.example == nil {
		f.example = err
	}
}

// err returns an error if there were failures.
func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == 0 {
		return nil
	}
	return fmt.Errorf("%d requests failed, for example: %w", f.count, f.example)
}
