package cluster

import (
	"bufio"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// The embedded etcd has no authentication, so nothing but this user's
// processes may reach it.
func TestEmbedded_NoTCPPort(t *testing.T) {
	before := listening(t)
	e := startEmbedded(t, t.TempDir())
	put(t, dial(t, e.ClientConfig()), "k", "v")
	after := slices.DeleteFunc(listening(t), func(a string) bool { return slices.Contains(before, a) })
	assert.Empty(t, after, "no TCP port of any kind")
}

// listening returns the sockets on which this process listens for TCP.
func listening(t *testing.T) []string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	own := map[string]bool{}
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		name, _ := os.Readlink("/proc/self/fd/" + fd.Name()) // it may be closed by now
		if inode, ok := strings.CutPrefix(name, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var found []string
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(table)
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(t, err)
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			const address, state, inode, listen = 1, 3, 9, "0A"
			if w := strings.Fields(lines.Text()); len(w) > inode && w[state] == listen && own[w[inode]] {
				found = append(found, w[address])
			}
		}
	}
	return found
}

// The socket is private even if the data directory is not.
func TestEmbedded_SocketIsPrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	private := filepath.Join(dir, "private")
	require.NoError(t, os.Mkdir(private, 0o777))
	require.NoError(t, os.Chmod(private, 0o777))
	e := startEmbedded(t, dir)
	info, err := os.Stat(private)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	put(t, dial(t, ClientConfig{Endpoints: e.Endpoints()}), "k", "v")
	require.NoError(t, e.Close())
	assert.NoFileExists(t, filepath.Join(private, "etcd.sock"))
}

func TestEmbedded_SocketPaths(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]string{
		"plain":      "data",
		"characters": "with space/100%41 ü #?*/[data]",
	} {
		t.Run(name, func(t *testing.T) {
			e := startEmbedded(t, filepath.Join(t.TempDir(), filepath.FromSlash(rest)))
			put(t, dial(t, ClientConfig{Endpoints: e.Endpoints()}), "k", "by the socket")
			c := dial(t, e.ClientConfig())
			assert.Equal(t, "by the socket", get(t, c, "k"))
			all, err := Inspect(t.Context(), c, e.Endpoints())
			require.NoError(t, err)
			require.Len(t, all, 1)
			assert.NoError(t, all[0].Err)
		})
	}
}

// A path longer than a socket's address is reached from its own directory.
func TestEmbedded_LongDataDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40), "data")
	core, logs := observer.New(zap.InfoLevel)
	e, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: dir, Log: zap.New(core)})
	require.NoError(t, err)
	put(t, dial(t, e.ClientConfig()), "k", "v")
	if runtime.GOOS == "linux" {
		assert.Empty(t, logs.All())
		t.Chdir(dir)
		conn, err := net.Dial("unix", filepath.Join("private", "etcd.sock"))
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	require.NoError(t, e.Close())
	assert.NoFileExists(t, filepath.Join(dir, "private", "etcd.sock"))
}

// Some file systems have no sockets. The service does not need one.
func TestEmbedded_WithoutASocket(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "private"), nil, 0o600))
	core, logs := observer.New(zap.InfoLevel)
	e, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: dir, Log: zap.New(core)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	put(t, dial(t, e.ClientConfig()), "k", "v")
	warnings := logs.FilterMessageSnippet("cannot create the Unix socket").All()
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0].ContextMap()["error"], "private")
}

// A process that was killed leaves its socket behind.
func TestEmbedded_StaleSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kill, endpoint := startChild(t, dir)
	kill()
	require.FileExists(t, strings.TrimPrefix(endpoint, "unix://"))
	e := startEmbedded(t, dir)
	put(t, dial(t, ClientConfig{Endpoints: e.Endpoints()}), "k", "v")
}

// Earlier versions listened on a TCP port, which is in their data.
func TestEmbedded_DataOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = memberName, dir
	clients := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls = []url.URL{clients}
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:34567"}}
	cfg.ListenPeerUrls = nil
	peer, err := url.Parse(memberURL)
	require.NoError(t, err)
	cfg.AdvertisePeerUrls = []url.URL{*peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(memberName)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	old, err := embed.StartEtcd(cfg)
	require.NoError(t, err)
	<-old.Server.ReadyNotify()
	c := dial(t, ClientConfig{Endpoints: []string{"http://" + old.Clients[0].Addr().String()}})
	put(t, c, "k", "v")
	require.NoError(t, c.Close())
	old.Close()

	e := startEmbedded(t, dir)
	c = dial(t, e.ClientConfig())
	assert.Equal(t, "v", get(t, c, "k"))
	members, err := c.MemberList(t.Context())
	require.NoError(t, err)
	require.Len(t, members.Members, 1)
	assert.Equal(t, e.Endpoints(), members.Members[0].ClientURLs)
}
