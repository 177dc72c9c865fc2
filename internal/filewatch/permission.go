package filewatch

import (
	"io/fs"
	"os"
	"runtime"
)

// WorldReadable reports whether every user of this machine may read the file, and returns
// its mode. It returns false if the file does not exist, and on Windows, where the mode
// does not determine who may read a file.
func WorldReadable(path string) (fs.FileMode, bool) {
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" {
		return 0, false
	}
	return info.Mode(), info.Mode().Perm()&0o004 != 0
}
