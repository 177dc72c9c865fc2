package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// safeVersions are the oldest safe releases by minor version of etcd 3. Before
// them an old leader could revoke leases that were alive, and nested
// transactions escaped access control and the quota.
var safeVersions = map[int]int{5: 33, 6: 14, 7: 1}

// tooOld reports whether this version of etcd is older than the oldest safe release of its
// minor version, and returns that release. Later minor versions are safe. A version that
// cannot be parsed is not.
func tooOld(version string) (minimum string, old bool) {
	const oldest = "3.5.33"
	core, suffix, _ := strings.Cut(version, "-")
	core, _, _ = strings.Cut(core, "+")
	var n [3]int
	parts := strings.Split(core, ".")
	if len(parts) != len(n) {
		return oldest, true
	}
	for i, part := range parts {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil || n[i] < 0 {
			return oldest, true
		}
	}
	major, minor, patch := n[0], n[1], n[2]
	if major < 3 || (major == 3 && minor < 5) {
		return oldest, true
	}
	safe, known := safeVersions[minor]
	if major > 3 || !known {
		return "", false
	}
	return fmt.Sprintf("3.%d.%d", minor, safe), patch < safe || (patch == safe && isPreview(suffix))
}

// isPreview distinguishes a release candidate from a vendor's build of a release.
func isPreview(suffix string) bool {
	return strings.HasPrefix(suffix, "rc") || strings.HasPrefix(suffix, "alpha") ||
		strings.HasPrefix(suffix, "beta")
}

// checkVersions returns an error if an endpoint has an unsafe version. It ignores endpoints
// that do not answer.
func checkVersions(ctx context.Context, c *clientv3.Client) error {
	endpoints := c.Endpoints()
	refusals := make([]error, len(endpoints))
	var all sync.WaitGroup
	for i, ep := range endpoints {
		all.Go(func() {
			if resp, err := c.Status(ctx, ep); err == nil {
				refusals[i] = refuseVersion(ep, resp.Version)
			}
		})
	}
	all.Wait()
	for _, err := range refusals {
		if err != nil {
			return &permanentError{err}
		}
	}
	return nil
}

func refuseVersion(endpoint, version string) error {
	if minimum, old := tooOld(version); old {
		return fmt.Errorf("etcd at %s has version %q: upgrade it to %s or later, "+
			"older versions can end live streams", endpoint, version, minimum)
	}
	return nil
}
