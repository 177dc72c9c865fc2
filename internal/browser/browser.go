// Package browser lets tests drive real pages of a real node in a real Chromium.
//
// A test package calls [Main] from its TestMain. Tests open a [Profile], which is
// a browser of their own as far as pages can tell, and [Tab]s in it. What a page
// writes to its console as an error, an exception that nobody caught, and whatever
// the content security policy stopped, fails the test. Where there is no Chromium
// the tests are skipped, unless STREAMCOUNT_REQUIRE_ALL is set.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Patience is how long anything may take that a test waits for. Most takes
// milliseconds, but machines that test are busy.
const Patience = time.Minute

// shared is what the tests of one package have in common.
var shared struct {
	dir     string // removed by Main
	browser onceFor[context.Context]
	close   func() error // ends the browser
	binary  onceFor[string]
}

// onceFor is a value that is made when it is first asked for.
type onceFor[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (o *onceFor[T]) get(make func() (T, error)) (T, error) {
	o.once.Do(func() { o.value, o.err = make() })
	return o.value, o.err
}

// Main runs the tests, ends what they shared, and returns the exit code.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "streamcount-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared.dir = dir
	code := m.Run()
	if shared.close != nil {
		err = shared.close()
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "end the browser:", err)
		return max(code, 1)
	}
	return code
}

// chromiums are the names under which Chromium and its kin are installed.
var chromiums = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// need skips the test where there is no Chromium, and returns its path.
func need(tb testing.TB) string {
	tb.Helper()
	for _, name := range chromiums {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("STREAMCOUNT_REQUIRE_ALL") != "" {
		require.Fail(tb, "no Chromium: install chromium, or unset STREAMCOUNT_REQUIRE_ALL")
	}
	tb.Skip("no Chromium: install chromium to test the pages")
	return ""
}

// start starts the browser that the package's tests share. Nothing in it is
// kinder to hidden pages than what people use: chromedp's own defaults would be.
func start(path string) (context.Context, error) {
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless,
		chromedp.NoSandbox, // tests may run as root, and see no pages but our own
		chromedp.DisableGPU,
		chromedp.UserDataDir(filepath.Join(shared.dir, "profile")),
		chromedp.WindowSize(1280, 800),
		chromedp.Env("LANG=en_GB.UTF-8", "TZ=UTC"),
	}
	for _, flag := range []string{
		"disable-background-networking", "disable-component-update", "disable-sync", "disable-breakpad",
		"disable-dev-shm-usage", "disable-extensions", "disable-popup-blocking", "mute-audio",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	options = append(options,
		chromedp.Flag("force-color-profile", "srgb"),
		// Names for this machine that browsers do not take for a secure place.
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1"),
		// What Chromium does to the timers of pages that have been hidden for five
		// minutes, after two seconds.
		chromedp.Flag("enable-features", "IntensiveWakeUpThrottling:grace_period_seconds/2"),
	)
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	shared.close = func() error {
		ending, cancel := context.WithTimeout(ctx, Patience)
		defer cancel()
		return chromedp.Cancel(ending)
	}
	return ctx, nil
}

// A Profile is a browser with storage of its own, which its tabs share.
type Profile struct {
	tb  testing.TB
	ctx context.Context
}

// Open returns a new profile. It ends with the test.
func Open(tb testing.TB) *Profile {
	tb.Helper()
	path := need(tb)
	require.NotEmpty(tb, shared.dir, "TestMain has to call browser.Main")
	browser, err := shared.browser.get(func() (context.Context, error) { return start(path) })
	require.NoError(tb, err)
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	tb.Cleanup(cancel)
	require.NoError(tb, chromedp.Do(ctx), "open a profile")
	return &Profile{tb: tb, ctx: ctx}
}
