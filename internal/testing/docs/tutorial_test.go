package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/freeport"
	"streamcount/internal/testing/longtest"
)

// patience is the timeout of one block. The first one builds the service.
const patience = 5 * time.Minute

// A block is a fenced block of a page, or a comment with a key that the reader presses.
type block struct {
	line       int
	kind, mark string // of "```sh background=node": sh, background=node
	text       string
}

var (
	fence = regexp.MustCompile("^```(\\w+) ?(.*)$")
	ctrlC = regexp.MustCompile(`^<!-- ctrl-c: (\w+) -->$`)
)

func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	content, err := os.ReadFile(page)
	require.NoError(t, err)
	var blocks []block
	open := false
	for n, line := range strings.Split(string(content), "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case open && line == "```":
			open = false
		case open:
			blocks[len(blocks)-1].text += line + "\n"
		case m != nil:
			open = true
			blocks = append(blocks, block{line: n + 1, kind: m[1], mark: m[2]})
		default:
			if m := ctrlC.FindStringSubmatch(line); m != nil {
				blocks = append(blocks, block{line: n + 1, kind: "ctrl-c", mark: m[1]})
			}
		}
	}
	return blocks
}

// TestTutorial runs the commands of the tutorial in order, and checks that they print what the
// page shows. They run with an empty home directory and with free ports.
func TestTutorial(t *testing.T) {
	longtest.Require(t, "bash", "curl", "go")
	newReader(t, "film-site").read("tutorial.md")
}

// TestEdgeProxies does the same with the setup of nginx.
func TestEdgeProxies(t *testing.T) {
	longtest.Require(t, "bash", "curl", "go", "ffmpeg", "openssl", "awk")
	longtest.Program(t, "nginx", "/usr/sbin/nginx")
	r := newReader(t, "film-edge")
	for dir := r.home; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755), "the workers of nginx have another user if the test runs as root")
	}
	r.read("edge-proxies.md")
}

// A reader has a terminal, and further terminals with programs that keep running.
type reader struct {
	t        *testing.T
	page     string
	home     string
	dir      string // in which the further terminals start
	terminal *terminal
	others   map[string]*terminal
	ports    *strings.Replacer
}

// newReader returns a reader whose page uses a directory in its home directory.
func newReader(t *testing.T, dir string) *reader {
	t.Helper()
	home := t.TempDir()
	r := &reader{t: t, home: home, dir: filepath.Join(home, dir), others: map[string]*terminal{}}
	var ports []string
	for _, port := range []string{"3000", "3001", "3002", "8080", "2379", "2380"} {
		free := freePort(t)
		ports = append(ports, ":"+port, ":"+free, "at "+port, "at "+free)
	}
	r.ports = strings.NewReplacer(ports...)
	root, err := filepath.Abs("../../..")
	require.NoError(t, err)
	r.terminal = open(t, root, r.environ(), "exec bash 2>&1")
	r.terminal.send("trap 'failed=$?' ERR; set -E")
	return r
}

// read runs the commands of a page.
func (r *reader) read(page string) {
	r.t.Helper()
	r.page = page
	blocks := blocksOf(r.t, "../../../docs/"+page)
	require.Greater(r.t, len(blocks), 10)
	for i, b := range blocks {
		want := ""
		if i+1 < len(blocks) && blocks[i+1].kind == "text" {
			want = blocks[i+1].text
		}
		name, background := strings.CutPrefix(b.mark, "background=")
		switch {
		case b.kind == "ctrl-c":
			r.interrupt(b.mark)
		case b.kind != "sh":
		case b.mark == "ffmpeg":
			r.writeFilm()
		case background:
			r.start(name, b, want)
		default:
			r.run(b, want)
		}
	}
}

// environ returns the environment of the reader's shell. It has an empty home directory, the
// caches of Go, and free ports for etcd in place of the default ports on the page.
func (r *reader) environ() []string {
	cached, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOPATH", "GOFLAGS", "GOPROXY").Output()
	require.NoError(r.t, err)
	goes := strings.Split(string(cached), "\n")
	client, peer := r.ports.Replace("http://127.0.0.1:2379"), r.ports.Replace("http://127.0.0.1:2380")
	return []string{
		"HOME=" + r.home, "PATH=" + os.Getenv("PATH") + ":/usr/sbin", "GOTOOLCHAIN=local", "LC_ALL=C",
		"GOCACHE=" + goes[0], "GOMODCACHE=" + goes[1], "GOPATH=" + goes[2],
		"GOFLAGS=" + strings.TrimSpace(goes[3]+" -buildvcs=false"), "GOPROXY=" + goes[4],
		"STREAMCOUNT_SERVER=" + r.ports.Replace("http://127.0.0.1:3000"),
		"ETCD_LISTEN_CLIENT_URLS=" + client, "ETCD_ADVERTISE_CLIENT_URLS=" + client, "ETCD_LISTEN_PEER_URLS=" + peer,
		"ETCD_INITIAL_ADVERTISE_PEER_URLS=" + peer, "ETCD_INITIAL_CLUSTER=default=" + peer,
	}
}

// run runs a block in the terminal and compares its output.
func (r *reader) run(b block, want string) {
	r.t.Helper()
	r.terminal.clear()
	r.terminal.send("failed=0\n" + r.ports.Replace(b.text) + "printf '<status %d>' $failed")
	ended := regexp.MustCompile(`<status (\d+)>$`)
	where := fmt.Sprintf("%s:%d", r.page, b.line)
	require.Eventually(r.t, func() bool { return ended.MatchString(r.terminal.printed()) }, patience,
		20*time.Millisecond, "%s did not end; it printed:\n%s", where, r.terminal)
	got := r.terminal.printed()
	assert.Contains(r.t, got, "<status 0>", "%s failed", where)
	got = strings.TrimSpace(ended.ReplaceAllString(got, ""))
	assert.Regexp(r.t, "^"+r.pattern(want)+"$", got, "output of %s", where)
}

// start starts a block in a further terminal and waits until it has printed what is shown.
func (r *reader) start(name string, b block, want string) {
	r.t.Helper()
	other := open(r.t, r.dir, r.environ(), "exec "+r.ports.Replace(b.text))
	r.others[name] = other
	shown := regexp.MustCompile(r.pattern(want))
	require.Eventually(r.t, func() bool { return shown.MatchString(other.printed()) }, patience,
		20*time.Millisecond, "%s:%d did not print what is shown; it printed:\n%s", r.page, b.line, other)
}

// interrupt presses Ctrl-C.
func (r *reader) interrupt(name string) {
	r.t.Helper()
	require.Contains(r.t, r.others, name)
	require.NoError(r.t, r.others[name].end(syscall.SIGINT), "%s exits with success", name)
}

// writeFilm writes placeholders for the files that ffmpeg would write.
func (r *reader) writeFilm() {
	r.t.Helper()
	dir := filepath.Join(r.dir, "films")
	require.NoError(r.t, os.MkdirAll(dir, 0o755))
	playlist := "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4,\nfilm0.m4s\n#EXT-X-ENDLIST\n"
	for name, content := range map[string]string{"film.m3u8": playlist, "init.mp4": "i", "film0.m4s": "s"} {
		require.NoError(r.t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
}

// varying are patterns of what differs from run to run: as the page shows it, and as a command
// may print it.
var varying = []struct{ shown, printed string }{
	{`eyJ\w+…`, `eyJ[\w.-]+`},
	{`\n…\n`, `\n(?s:.*)`},
	{`…`, `.*`},
	{`AQ[\w-]{50}`, `AQ[\w-]{50}`},
	{`\d{4}-\d\d-\d\dT[\d:.]+Z`, `\d{4}-\d\d-\d\dT[\d:.]+Z`},
	{`\b\d+s ago`, `(\d+s ago|now|\d{4}-\d\d-\d\d [\d:]+)`},
	{`\b\d+s +local`, `\d+s +local`},
	{` +`, ` +`},
}

// pattern returns a regular expression for what a page shows.
func (r *reader) pattern(shown string) string {
	var alternatives []string
	for _, v := range varying {
		alternatives = append(alternatives, "("+v.shown+")")
	}
	each := regexp.MustCompile(strings.Join(alternatives, "|"))
	text, pattern := r.ports.Replace(strings.TrimSpace(shown)), ""
	for text != "" {
		at := each.FindStringSubmatchIndex(text)
		if at == nil {
			return pattern + regexp.QuoteMeta(text)
		}
		pattern += regexp.QuoteMeta(text[:at[0]])
		for i, v := range varying {
			if at[2*i+2] >= 0 {
				pattern += v.printed
				break
			}
		}
		text = text[at[1]:]
	}
	return pattern
}

func freePort(t *testing.T) string {
	t.Helper()
	port, err := freeport.Find()
	require.NoError(t, err)
	return strconv.Itoa(port)
}
