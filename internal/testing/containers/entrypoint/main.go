// Command entrypoint prepares and starts nginx in a test's image, as the entrypoint of nginx's
// official image does. In the templates of /etc/nginx/templates it replaces the variables whose
// names match NGINX_ENVSUBST_FILTER, writes the results to /etc/nginx/conf.d, and executes its
// arguments.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

const (
	templates = "/etc/nginx/templates"
	results   = "/etc/nginx/conf.d"
)

func main() {
	fmt.Fprintln(os.Stderr, "entrypoint:", run(os.Args[1:])) // it returns errors only
	os.Exit(1)
}

func run(command []string) error {
	files, err := filepath.Glob(filepath.Join(templates, "*.template"))
	if err != nil {
		return err
	}
	filter, err := regexp.Compile(os.Getenv("NGINX_ENVSUBST_FILTER"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		to := filepath.Join(results, strings.TrimSuffix(filepath.Base(file), ".template"))
		if err := os.WriteFile(to, []byte(substitute(string(text), filter)), 0o644); err != nil { //nolint:gosec // the workers read it
			return err
		}
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, command, os.Environ()) //nolint:gosec // the command is that of the image
}

var variable = regexp.MustCompile(`\$\w+|\$\{\w+\}`)

// substitute replaces variables of the environment that match the filter. All others, such as
// nginx's own, remain.
func substitute(text string, filter *regexp.Regexp) string {
	return variable.ReplaceAllStringFunc(text, func(found string) string {
		name := strings.Trim(found, "${}")
		value, set := os.LookupEnv(name)
		if !set || !filter.MatchString(name) {
			return found
		}
		return value
	})
}
