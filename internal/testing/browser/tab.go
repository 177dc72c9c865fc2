package browser

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A Tab is one page. Its methods fail the test on an error.
type Tab struct {
	tb  testing.TB
	ctx context.Context

	mu            sync.Mutex
	consoleErrors []string // of the page
}

// Tab opens a page in a new window, which counts as visible.
func (p *Profile) Tab(url string) *Tab {
	p.tb.Helper()
	tab := p.attach()
	tab.Go(url)
	return tab
}

// attach returns a Tab for a new page, or for the page that an option names.
func (p *Profile) attach(options ...chromedp.ContextOption) *Tab {
	p.tb.Helper()
	tab := &Tab{tb: p.tb}
	ctx, cancel := chromedp.NewContext(p.ctx, append(options, chromedp.WithListener(tab.listen))...)
	tab.ctx = ctx
	p.tb.Cleanup(func() {
		cancel()
		assert.Empty(p.tb, tab.ConsoleErrors(), "errors in the page's console")
	})
	require.NoError(p.tb, chromedp.Do(ctx), "open a tab")
	return tab
}

// NewWindow calls do, which makes the page open a window, and returns the new window.
func (p *Profile) NewWindow(from *Tab, do func()) *Tab {
	p.tb.Helper()
	opener := chromedp.FromContext(from.ctx).Target.TargetID
	id := chromedp.WaitNewTarget(from.ctx, func(i *target.Info) bool { // tests that run in parallel open pages too
		return i.Type == "page" && i.OpenerID == opener
	})
	do()
	select {
	case id := <-id:
		tab := p.attach(chromedp.WithTargetID(id))
		tab.Wait("it has loaded", `document.readyState === "complete"`)
		return tab
	case <-time.After(Timeout):
		require.Fail(p.tb, "no page was opened")
		return nil
	}
}

// listen records the errors of a page. It ignores failed requests, which tests cause on
// purpose.
func (t *Tab) listen(event any) {
	text := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text = e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "assert" {
			for _, arg := range e.Args {
				text += string(arg.Value) + arg.Description + " "
			}
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" && e.Entry.Source != "network" {
			text = fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	}
	if text != "" {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.consoleErrors = append(t.consoleErrors, text)
	}
}

// ConsoleErrors returns the errors in the page's console since the last call. Errors that
// no call returns fail the test.
func (t *Tab) ConsoleErrors() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	wrong := t.consoleErrors
	t.consoleErrors = nil
	return wrong
}

// do runs steps within Timeout.
func (t *Tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, Timeout)
	defer cancel()
	require.NoError(t.tb, chromedp.Do(ctx, steps...), what)
}

// call runs a command of the browser's protocol on a tab.
func call[P, R any](t *Tab, command cdp.Command[P, R], params P) R {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, Timeout)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	require.NoError(t.tb, err, command.Method)
	return result
}

// Go opens a URL in the tab and waits until the page has loaded.
func (t *Tab) Go(url string) { t.tb.Helper(); t.do("open "+url, chromedp.Navigate(url)) }

// Reload reloads the page.
func (t *Tab) Reload() { t.tb.Helper(); t.do("reload", chromedp.Reload()) }

// Click clicks on the element of a CSS selector when it is visible.
func (t *Tab) Click(css string) {
	t.tb.Helper()
	t.do("click on "+css, chromedp.Click(chromedp.CSS(css), chromedp.NodeVisible))
}

// Fill replaces the value of a field by typing.
func (t *Tab) Fill(css, text string) {
	t.tb.Helper()
	t.do("focus "+css, chromedp.Focus(chromedp.CSS(css), chromedp.NodeVisible))
	Eval[*struct{}](t, `document.activeElement.select(), null`)
	t.do("type into "+css, chromedp.KeyEvent(kb.Delete+text, asKeyboards))
}

// Press sends keys to the focused element.
func (t *Tab) Press(keys string) {
	t.tb.Helper()
	t.do("press keys", chromedp.KeyEvent(keys, asKeyboards))
}

// asKeyboards sends keys like a keyboard: if the page prevents the default of keydown, no
// character follows.
func asKeyboards(k *input.DispatchKeyEventParams) {
	if k.Type == input.DispatchKeyEventTypeKeyDown {
		k.Type = input.DispatchKeyEventTypeRawKeyDown
	}
}

// Text returns the visible text of the first element of a CSS selector.
func (t *Tab) Text(css string) string {
	t.tb.Helper()
	return Eval[string](t, fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, css))
}

// Eval returns the value of a JavaScript expression in the page. It awaits a promise.
func Eval[T any](t *Tab, expression string) T {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, Timeout)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(t.tb, err, expression)
	return value
}

// Wait waits until a JavaScript expression is true in the page. It does not depend on the
// page's timers or visibility.
func (t *Tab) Wait(what, expression string) {
	t.tb.Helper()
	t.WaitFor(Timeout, what, expression)
}

// WaitFor is like Wait, with another timeout.
func (t *Tab) WaitFor(timeout time.Duration, what, expression string) {
	t.tb.Helper()
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		value, err := t.isTrue(expression)
		if value {
			return
		}
		if time.Now().After(deadline) {
			body, _ := t.text("body")
			require.Fail(t.tb, "not within "+timeout.String()+": "+what,
				"%s is not true (%v); the page reads:\n%s", expression, err, body)
		}
	}
}

// WaitText waits until an element contains a text.
func (t *Tab) WaitText(css, text string) {
	t.tb.Helper()
	t.Wait(fmt.Sprintf("%q in %s", text, css),
		fmt.Sprintf(`(document.querySelector(%q)?.innerText ?? "").includes(%q)`, css, text))
}

// isTrue evaluates a condition. It returns false on errors, which occur while a page loads.
func (t *Tab) isTrue(expression string) (bool, error) {
	ctx, cancel := context.WithTimeout(t.ctx, Timeout)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
}

func (t *Tab) text(css string) (string, error) {
	ctx, cancel := context.WithTimeout(t.ctx, Timeout)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, css)))
}

// Close closes the tab like a user does: the page receives pagehide.
func (t *Tab) Close() {
	t.tb.Helper()
	gone, err := chromedp.Detached(t.ctx)
	require.NoError(t.tb, err)
	_, err = chromedp.Call(t.ctx, page.Close, cdp.Empty{})
	if err != nil && !strings.Contains(err.Error(), "detached") {
		require.NoError(t.tb, err, "close the tab")
	}
	select {
	case <-gone:
	case <-time.After(Timeout):
		require.Fail(t.tb, "the tab did not close")
	}
}

// Size sets the page's width and height in CSS pixels. Below a width of 600, the device has
// a touch screen.
func (t *Tab) Size(width, height int) {
	t.tb.Helper()
	var options []chromedp.EmulateViewportOption
	if width < 600 {
		options = append(options, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(2))
	}
	t.do("resize", chromedp.EmulateViewport(int64(width), int64(height), options...))
}

// Theme sets the theme of the system: "light" or "dark".
func (t *Tab) Theme(name string) {
	t.tb.Helper()
	call(t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
}

// Freeze freezes the page, as systems do with pages that have been hidden for a long time,
// or resumes it.
func (t *Tab) Freeze(frozen bool) {
	t.tb.Helper()
	state := page.SetWebLifecycleStateStateActive
	if frozen {
		state = page.SetWebLifecycleStateStateFrozen
	}
	call(t, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: state})
}
