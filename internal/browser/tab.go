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

// A Tab is one page. Its methods fail the test where they cannot do what they say.
type Tab struct {
	tb  testing.TB
	ctx context.Context

	mu    sync.Mutex
	wrong []string // what the page wrote to its console as errors
}

// Tab opens a page in a window of its own, as if it were looked at.
func (p *Profile) Tab(url string) *Tab {
	p.tb.Helper()
	tab := p.attach()
	tab.Go(url)
	return tab
}

// attach makes a Tab of a new page, or of the one that an option names.
func (p *Profile) attach(options ...chromedp.ContextOption) *Tab {
	p.tb.Helper()
	tab := &Tab{tb: p.tb}
	ctx, cancel := chromedp.NewContext(p.ctx, append(options, chromedp.WithListener(tab.listen))...)
	tab.ctx = ctx
	p.tb.Cleanup(func() {
		cancel()
		assert.Empty(p.tb, tab.Complaints(), "the page's console")
	})
	require.NoError(p.tb, chromedp.Do(ctx), "open a tab")
	return tab
}

// Opened does what makes the page open another one, and returns that.
func (p *Profile) Opened(from *Tab, do func()) *Tab {
	p.tb.Helper()
	id := chromedp.WaitNewTarget(from.ctx, func(i *target.Info) bool { return i.Type == "page" })
	do()
	select {
	case id := <-id:
		tab := p.attach(chromedp.WithTargetID(id))
		tab.Wait("it has loaded", `document.readyState === "complete"`)
		return tab
	case <-time.After(Patience):
		require.Fail(p.tb, "no page was opened")
		return nil
	}
}

// listen notes what a page complains about. Requests that were answered with an
// error or not at all are the network's business, and tests have them on purpose.
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
		t.wrong = append(t.wrong, text)
	}
}

// Complaints returns what the page wrote to its console as errors since it was
// asked last. What nobody asks for fails the test.
func (t *Tab) Complaints() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	wrong := t.wrong
	t.wrong = nil
	return wrong
}

// do runs steps within Patience.
func (t *Tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, Patience)
	defer cancel()
	require.NoError(t.tb, chromedp.Do(ctx, steps...), what)
}

// call runs a command of the browser's protocol on a tab.
func call[P, R any](t *Tab, command cdp.Command[P, R], params P) R {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, Patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	require.NoError(t.tb, err, command.Method)
	return result
}

// Go opens an address in the tab and waits until it has loaded.
func (t *Tab) Go(url string) { t.tb.Helper(); t.do("open "+url, chromedp.Navigate(url)) }

// Reload does what the button of that name does.
func (t *Tab) Reload() { t.tb.Helper(); t.do("reload", chromedp.Reload()) }

// Click clicks on what a CSS selector finds, once it can be seen.
func (t *Tab) Click(css string) {
	t.tb.Helper()
	t.do("click on "+css, chromedp.Click(chromedp.CSS(css), chromedp.NodeVisible))
}

// Fill replaces what is in a field by typing.
func (t *Tab) Fill(css, text string) {
	t.tb.Helper()
	t.do("focus "+css, chromedp.Focus(chromedp.CSS(css), chromedp.NodeVisible))
	Eval[*struct{}](t, `document.activeElement.select(), null`)
	t.do("type into "+css, chromedp.KeyEvent(kb.Delete+text, asKeyboards))
}

// Press sends keys to whatever has the focus.
func (t *Tab) Press(keys string) {
	t.tb.Helper()
	t.do("press keys", chromedp.KeyEvent(keys, asKeyboards))
}

// asKeyboards makes a key what a keyboard makes of it: where a page prevents what
// its going down would do, no character comes after it.
func asKeyboards(k *input.DispatchKeyEventParams) {
	if k.Type == input.DispatchKeyEventTypeKeyDown {
		k.Type = input.DispatchKeyEventTypeRawKeyDown
	}
}

// Text is what can be read in the first element that a CSS selector finds.
func (t *Tab) Text(css string) string {
	t.tb.Helper()
	return Eval[string](t, fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, css))
}

// Eval is the value of a JavaScript expression in the page, of the promise if it
// is one.
func Eval[T any](t *Tab, expression string) T {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, Patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(t.tb, err, expression)
	return value
}

// Wait waits until a JavaScript expression is true in the page. It does not
// depend on the page's timers or on being seen.
func (t *Tab) Wait(what, expression string) {
	t.tb.Helper()
	t.WaitFor(Patience, what, expression)
}

// WaitFor is Wait with a patience of its own.
func (t *Tab) WaitFor(patience time.Duration, what, expression string) {
	t.tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		value, err := t.holds(expression)
		if value {
			return
		}
		if time.Now().After(deadline) {
			body, _ := t.text("body")
			require.Fail(t.tb, "not within "+patience.String()+": "+what,
				"%s is not true (%v); the page reads:\n%s", expression, err, body)
		}
	}
}

// WaitText waits until an element has a text in it.
func (t *Tab) WaitText(css, text string) {
	t.tb.Helper()
	t.Wait(fmt.Sprintf("%q in %s", text, css),
		fmt.Sprintf(`(document.querySelector(%q)?.innerText ?? "").includes(%q)`, css, text))
}

// holds evaluates a condition; while a page loads that may fail.
func (t *Tab) holds(expression string) (bool, error) {
	ctx, cancel := context.WithTimeout(t.ctx, Patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
}

func (t *Tab) text(css string) (string, error) {
	ctx, cancel := context.WithTimeout(t.ctx, Patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, css)))
}

// Close closes the tab as its x does: the page hears that it is going.
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
	case <-time.After(Patience):
		require.Fail(t.tb, "the tab did not close")
	}
}

// Size gives the page a width and height in CSS pixels; phones are touched, and
// narrower than 600.
func (t *Tab) Size(width, height int) {
	t.tb.Helper()
	var options []chromedp.EmulateViewportOption
	if width < 600 {
		options = append(options, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(2))
	}
	t.do("resize", chromedp.EmulateViewport(int64(width), int64(height), options...))
}

// Theme makes the system's theme "light" or "dark".
func (t *Tab) Theme(name string) {
	t.tb.Helper()
	call(t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
}

// Freeze stops the page, as systems do with pages that have been hidden for long, or
// lets it run again.
func (t *Tab) Freeze(frozen bool) {
	t.tb.Helper()
	state := page.SetWebLifecycleStateStateActive
	if frozen {
		state = page.SetWebLifecycleStateStateFrozen
	}
	call(t, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: state})
}
