package browser

import (
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// serve serves a page with a policy and the given body.
func serve(t *testing.T, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Security-Policy", "script-src 'unsafe-inline'; img-src 'none'; style-src 'none'")
		_, _ = w.Write([]byte("<!doctype html><html lang=en><meta name=viewport content=width=device-width>" +
			"<title>x</title><main>" + body + "</main>"))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestTab(t *testing.T) {
	p := Open(t)
	tab := p.Tab(serve(t, `<h1>Film</h1><label>Name <input id=name></label><button id=go>Go</button><p id=said></p>
		<script>document.querySelector("#go").onclick = () => {
			document.querySelector("#said").textContent = document.querySelector("#name").value }</script>`))
	tab.Fill("#name", "<b>maya</b>")
	tab.Click("#go")
	tab.WaitText("#said", "<b>maya</b>")
	assert.Equal(t, "Film", tab.Text("h1"))
	assert.Equal(t, 3, Eval[int](tab, `Promise.resolve(3)`))
	tab.Size(390, 844)
	assert.Equal(t, 390, Eval[int](tab, `innerWidth`))
	tab.Theme("dark")
	assert.True(t, Eval[bool](tab, `matchMedia("(prefers-color-scheme: dark)").matches`))
	tab.Screenshot("tab")

	other := p.NewWindow(tab, func() { Eval[*struct{}](tab, `window.open(location.href), null`) })
	assert.Equal(t, "Film", other.Text("h1"))
	Eval[*struct{}](other, `localStorage.setItem("a", "1"), null`)
	assert.Equal(t, "1", Eval[string](tab, `localStorage.getItem("a")`), "tabs of a profile share storage")
	other.Close()
	stranger := Open(t).Tab(Eval[string](tab, `location.href`))
	assert.Equal(t, "-", Eval[string](stranger, `localStorage.getItem("a") ?? "-"`), "profiles do not")
}

// ConsoleErrors returns exceptions, console errors and policy violations.
func TestTab_ConsoleErrors(t *testing.T) {
	for name, page := range map[string]struct{ body, want string }{
		"exception": {`<script>throw new Error("oh no")</script>`, "oh no"},
		"rejection": {`<script>Promise.reject(new Error("nobody"))</script>`, "nobody"},
		"error":     {`<script>console.error("dear", {})</script>`, "dear"},
		"policy":    {`<img src="/pixel.png" alt="">`, "Content Security Policy"},
		"style":     {`<p style="color:red">red</p>`, "Content Security Policy"},
	} {
		t.Run(name, func(t *testing.T) {
			tab := Open(t).Tab(serve(t, page.body))
			var got []string
			assert.Eventually(t, func() bool { got = append(got, tab.ConsoleErrors()...); return len(got) > 0 }, Timeout, 5*time.Millisecond)
			assert.Contains(t, got[0], page.want)
		})
	}
	tab := Open(t).Tab(serve(t, `<script>console.log("fine"); console.warn("fine")</script>`))
	Eval[*struct{}](tab, `fetch("/gone").then(() => null)`)
	assert.Empty(t, tab.ConsoleErrors())
}
