package filewatch

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadableByAll(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes do not determine who may read a file")
	}
	path := filepath.Join(t.TempDir(), "secret")
	_, exposed := WorldReadable(path)
	assert.False(t, exposed, "the file does not exist")
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o400: false, 0o644: true, 0o604: true, 0o666: true} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Chmod(path, mode))
		got, exposed := WorldReadable(path)
		assert.Equal(t, want, exposed, mode)
		assert.Equal(t, mode, got.Perm())
		require.NoError(t, os.Remove(path))
	}
}
