// Package browser lets tests use the pages of a node in Chromium.
//
// A test package calls [Main] from its TestMain. Tests open a [Profile], which has its own
// storage, and [Tab]s in it. A test fails if a page logs an error to its console, has an
// uncaught exception, or violates the content security policy. Tests with a browser are
// long tests and require Chromium: see package longtest.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// Timeout bounds each wait of a test. Most waits take milliseconds, but the machine may be
// busy.
const Timeout = time.Minute

// shared is the state that the tests of one package share.
var shared struct {
	dir     string // removed by Main
	browser lazyValue[context.Context]
	close   func() error // ends the browser
	binary  lazyValue[string]
}

// lazyValue is a value that is computed on first use.
type lazyValue[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (o *lazyValue[T]) get(make func() (T, error)) (T, error) {
	o.once.Do(func() { o.value, o.err = make() })
	return o.value, o.err
}

// Main runs the tests, closes the shared browser, and returns the exit code.
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
		fmt.Fprintln(os.Stderr, "close the browser:", err)
		return max(code, 1)
	}
	return code
}

// requireChromium returns the path of Chromium. It skips the test if long tests are off or
// Chromium is missing.
func requireChromium(tb testing.TB) string {
	tb.Helper()
	return longtest.Program(tb, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
}

// start starts the browser that the package's tests share. It throttles hidden pages like
// the browsers of users, which chromedp's default options would not.
func start(path string) (context.Context, error) {
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless,
		chromedp.NoSandbox, // tests may run as root, and open pages of this repository only
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
		// Names of this machine that are not secure contexts.
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1"),
		// Throttle the timers of hidden pages after two seconds instead of five minutes.
		chromedp.Flag("enable-features", "IntensiveWakeUpThrottling:grace_period_seconds/2"),
	)
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	shared.close = func() error {
		ending, cancel := context.WithTimeout(ctx, Timeout)
		defer cancel()
		return chromedp.Cancel(ending)
	}
	return ctx, nil
}

// A Profile is a browser context with its own storage, which its tabs share.
type Profile struct {
	tb  testing.TB
	ctx context.Context
}

// Open returns a new profile. It ends with the test.
func Open(tb testing.TB) *Profile {
	tb.Helper()
	path := requireChromium(tb)
	require.NotEmpty(tb, shared.dir, "TestMain must call browser.Main")
	browser, err := shared.browser.get(func() (context.Context, error) { return start(path) })
	require.NoError(tb, err)
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	tb.Cleanup(cancel)
	require.NoError(tb, chromedp.Do(ctx), "open a profile")
	return &Profile{tb: tb, ctx: ctx}
}
