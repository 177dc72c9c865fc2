package containers

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// etcdctl is the module of etcdctl, which only this test needs.
const etcdctl = "go.etcd.io/etcd/etcdctl/v3"

// images builds an image for each service of docker-compose.yml with the same program, without
// those of the edge, and returns the names by service. The names differ from those in
// docker-compose.yml. A name ends in a hash of the content, and an image that exists is not
// built again.
func images(t *testing.T) map[string]string {
	t.Helper()
	of := map[string]string{
		"lb": debianImage(t, "lb", "haproxy", "/usr/local/sbin/haproxy",
			`CMD ["/usr/local/sbin/haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]`,
			"STOPSIGNAL SIGUSR1", "USER 99:99"),
		"prometheus": debianImage(t, "prometheus", "prometheus", "/bin/prometheus",
			`CMD ["/bin/prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]`),
	}
	addImage(of, etcdImage(t), etcds...)
	addImage(of, nodeImage(t), nodes...)
	return of
}

// edgeImages builds images of the services of the edge and of those that they need.
func edgeImages(t *testing.T) map[string]string {
	t.Helper()
	of := map[string]string{}
	addImage(of, etcdImage(t), etcds...)
	addImage(of, nodeImage(t), "node-eu", "node-edge")
	addImage(of, nginxImage(t), "media", "edge")
	return of
}

func addImage(of map[string]string, image string, services ...string) {
	for _, service := range services {
		of[service] = image
	}
}

// nginxImage builds an image with nginx, and with the parts of the official image that
// docker-compose.yml depends on: the templates, the server on port 80, the user of the workers,
// and the directories that nginx writes to.
func nginxImage(t *testing.T) string {
	t.Helper()
	context := programContext(t, longtest.Program(t, "nginx", "/usr/sbin/nginx"), "/usr/sbin/nginx")
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0::/:\nnginx:x:101:101::/:\n",
		"etc/group":  "root:x:0:\nnginx:x:101:\n",
		"etc/nginx/nginx.conf": `user nginx;
pid /run/nginx.pid;
events {}
http {
    include mime.types;
    access_log off;
    client_body_temp_path /var/cache/nginx/client_temp;
    proxy_temp_path /var/cache/nginx/proxy_temp;
    fastcgi_temp_path /var/cache/nginx/fastcgi_temp;
    uwsgi_temp_path /var/cache/nginx/uwsgi_temp;
    scgi_temp_path /var/cache/nginx/scgi_temp;
    include conf.d/*.conf;
}
`,
		"etc/nginx/mime.types":          "types { application/vnd.apple.mpegurl m3u8; video/mp4 mp4 m4s; }\n",
		"etc/nginx/conf.d/default.conf": "server { listen 80; root /usr/share/nginx/html; }\n",
		"run/.keep":                     "",
		"var/cache/nginx/.keep":         "",
	} {
		file := filepath.Join(context, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	}
	buildGo(t, root, filepath.Join(context, "entrypoint"), "./internal/testing/containers/entrypoint")
	return image(t, "nginx", context, `FROM scratch
COPY . /
ENV PATH=/usr/sbin
ENTRYPOINT ["/entrypoint"]
CMD ["nginx", "-e", "stderr", "-g", "daemon off;"]
STOPSIGNAL SIGQUIT
`)
}

// nodeImage builds the image of the Dockerfile without the builder's image: it runs the command
// that builds the binary on this machine, and the last stage copies from a directory.
func nodeImage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	stages := regexp.MustCompile(`(?m)^FROM `).Split(string(b), -1)
	require.Len(t, stages, 3, "Dockerfile: a header and two stages")
	build := regexp.MustCompile(`(?m)^RUN (.*go build .*)$`).FindStringSubmatch(stages[1])
	require.NotNil(t, build, "Dockerfile: the command that builds the binary")
	final := "FROM " + stages[2]
	require.True(t, strings.HasPrefix(final, "FROM scratch\n"))
	require.NotContains(t, final, "\nRUN ", "the image has no program that could run it")

	context := t.TempDir()
	out := filepath.Join(context, "out")
	require.NoError(t, os.MkdirAll(filepath.Join(out, "data"), 0o755))
	cmd := exec.Command("sh", "-c", strings.ReplaceAll(build[1], "/out/", out+"/"))
	cmd.Dir, cmd.Env = root, append(os.Environ(), "VERSION=containers", "GOFLAGS=-buildvcs=false")
	command(t, cmd)
	authorities := "/etc/ssl/certs/ca-certificates.crt"
	copyFile(t, authorities, filepath.Join(context, authorities))
	return image(t, "node", context, strings.ReplaceAll(final, "--from=build ", ""))
}

// etcdImage builds an image with the etcd release in go.mod.
func etcdImage(t *testing.T) string {
	t.Helper()
	version := strings.TrimSpace(output(t, "go", "list", "-m", "-f", "{{.Version}}", "go.etcd.io/etcd/server/v3"))
	compose, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	require.Contains(t, string(compose), "/etcd:"+version+"\n", "docker-compose.yml and go.mod name the same etcd")
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	bin := filepath.Join(cache, "streamcount-ci", "etcd-"+version)
	require.NoError(t, os.MkdirAll(bin, 0o755))
	buildGo(t, root, filepath.Join(bin, "etcd"), "go.etcd.io/etcd/server/v3")
	if _, err := os.Stat(filepath.Join(bin, "etcdctl")); err != nil {
		module := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(module, "go.mod"), []byte("module etcdctl\n"), 0o600))
		get := exec.Command("go", "get", etcdctl+"@"+version)
		get.Dir = module
		command(t, get)
		buildGo(t, module, filepath.Join(bin, "etcdctl"), etcdctl)
	}
	context := t.TempDir()
	for _, name := range []string{"etcd", "etcdctl"} {
		copyFile(t, filepath.Join(bin, name), filepath.Join(context, "bin", name))
	}
	return image(t, "etcd", context, "FROM scratch\nCOPY bin /usr/local/bin\nCMD [\"/usr/local/bin/etcd\"]\n")
}

// buildGo builds a static program, unless it exists.
func buildGo(t *testing.T, dir, to, what string) {
	t.Helper()
	if _, err := os.Stat(to); err == nil {
		return
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", to+".new", what)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	command(t, cmd)
	require.NoError(t, os.Rename(to+".new", to))
}

// debianImage builds an image with a program of this machine and its libraries.
func debianImage(t *testing.T, name, program, at string, instructions ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	require.NoError(t, err)
	context := programContext(t, path, at)
	return image(t, name, context, "FROM scratch\nCOPY . /\n"+strings.Join(instructions, "\n")+"\n")
}

// programContext returns a build context with a program of this machine and its libraries.
func programContext(t *testing.T, path, at string) string {
	t.Helper()
	context := t.TempDir()
	copyFile(t, path, filepath.Join(context, at))
	for _, library := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(output(t, "ldd", path), -1) {
		copyFile(t, library[1], filepath.Join(context, library[1]))
	}
	return context
}

// image builds an image, unless it exists, and removes images of other content with the same
// name.
func image(t *testing.T, name, context, dockerfile string) string {
	t.Helper()
	repository := "streamcount-test/" + name
	tag := repository + ":" + digest(t, context, dockerfile)
	if exec.Command("docker", "image", "inspect", tag).Run() == nil {
		return tag
	}
	old := strings.Fields(output(t, "docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository))
	for _, o := range old {
		_ = exec.Command("docker", "image", "rm", o).Run() // another run may use it
	}
	file := filepath.Join(t.TempDir(), "Dockerfile")
	require.NoError(t, os.WriteFile(file, []byte(dockerfile), 0o600))
	output(t, "docker", "build", "--quiet", "--tag", tag, "--file", file, context)
	return tag
}

func digest(t *testing.T, dir, extra string) string {
	t.Helper()
	h := sha256.New()
	_, err := io.WriteString(h, extra)
	require.NoError(t, err)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, _ = fmt.Fprintf(h, "\n%s\n", strings.TrimPrefix(path, dir)) // a hash takes everything
		_, err = io.Copy(h, f)
		return err
	}))
	return fmt.Sprintf("%x", h.Sum(nil))[:16]
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
	require.NoError(t, os.WriteFile(to, b, 0o755)) //nolint:gosec // programs and libraries
}
