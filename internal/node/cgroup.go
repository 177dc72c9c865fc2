package node

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// cgroupLimit returns the memory limit of the process's cgroup and of the groups that
// contain it, in bytes, or 0 if there is none. root is the root of the file system.
func cgroupLimit(root fs.FS) uint64 {
	limit := uint64(math.MaxInt64)
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // exists on Linux only
	for line := range strings.Lines(string(groups)) {
		// A line is ID:CONTROLLERS:PATH. Version 2 has a single line, without controllers.
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, dir, _ := strings.Cut(rest, ":")
		mount, files := "sys/fs/cgroup", []string{"memory.max", "memory.high"}
		if controllers != "" {
			mount, files = "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}
			if !slices.Contains(strings.Split(controllers, ","), "memory") {
				continue
			}
		}
		// Inside a container the path may be that of the host, and the mount shows the
		// container's group as its root.
		for dir = path.Join("/", dir); ; dir = path.Dir(dir) {
			for _, name := range files {
				text, _ := fs.ReadFile(root, path.Join(mount, dir, name))
				if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
					limit = min(limit, n)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	if limit >= 1<<60 { // version 1 has no word for "no limit"
		return 0
	}
	return limit
}
