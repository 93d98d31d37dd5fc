package report_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/jouleml/joule/report"
)

// browser starts Chromium, or skips.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless-shell"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium to open the page with")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// The page opens from a file in a real browser, on a phone and on a desk, in light and dark: nothing is fetched, nothing is complained about, every picture shows, and nothing is
// wider than the window. JOULE_SCREENSHOTS names a folder that pictures of it are written to.
func TestBrowser(t *testing.T) {
	ctx := browser(t)
	file := filepath.Join(t.TempDir(), "report.html")
	p := trainedPage(t)
	m, set := writer(t)
	answers, err := report.Answers(ctx, m, set, 5)
	if err != nil {
		t.Fatal(err)
	}
	p.Sections = append(p.Sections, answers)
	if err := p.Save(file); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var complaints []string
	err = chromedp.Listen(ctx, func(e any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := e.(type) {
		case *network.EventRequestWillBeSent:
			if u := e.Request.URL; u != "file://"+file && !strings.HasPrefix(u, "data:") {
				complaints = append(complaints, "fetches "+u)
			}
		case *runtime.EventConsoleAPICalled:
			complaints = append(complaints, fmt.Sprintf("console: %s", e.Type))
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, "exception: "+e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			complaints = append(complaints, "log: "+e.Entry.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, width := range []int64{390, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(fmt.Sprintf("%d %s", width, scheme), func(t *testing.T) {
				err := chromedp.Do(ctx, watched, chromedp.EmulateViewport(width, 900), emulate(scheme), chromedp.Navigate("file://"+file))
				if err != nil {
					t.Fatal(err)
				}
				if curves, pictures := count(t, ctx, `document.querySelectorAll("path.curve[d^=M]")`), count(t, ctx, `document.images`); curves < 4 || pictures < 10 {
					t.Errorf("%d curves and %d pictures", curves, pictures)
				}
				// Maps of attention: each cell says what it is, and the darkest of a map differs from its lightest.
				const tones = `[...document.querySelectorAll(".shares")].filter(m => new Set([...m.querySelectorAll("td")].map(d => getComputedStyle(d).backgroundColor)).size < 3 || m.querySelector("td:not([title])"))`
				if maps, dull := count(t, ctx, `document.querySelectorAll(".shares")`), count(t, ctx, tones); maps != 4 || dull > 0 {
					t.Errorf("%d maps of attention, %d without tones", maps, dull)
				}
				if n := count(t, ctx, `[...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt)`); n > 0 {
					t.Errorf("%d pictures do not show or have no text", n)
				}
				if n := count(t, ctx, `[...document.querySelectorAll("figure > svg")].filter(s => !s.getAttribute("aria-label") || !s.querySelector("title"))`); n > 0 {
					t.Errorf("%d charts have no name", n)
				}
				if n := count(t, ctx, `[...document.querySelectorAll("th")].filter(h => !h.scope)`); n > 0 {
					t.Errorf("%d headings of tables have no scope", n)
				}
				const overflow = `[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, figure > svg") && e.getBoundingClientRect().right > innerWidth + 1)`
				if n := count(t, ctx, overflow); n > 0 {
					t.Errorf("%d elements are wider than the window, such as %s", n, ask[string](t, ctx, overflow+`[0].outerHTML.slice(0, 300)`))
				}
				if paper := ask[string](t, ctx, `getComputedStyle(document.body).backgroundColor`); (paper == "rgb(20, 23, 26)") != (scheme == "dark") {
					t.Errorf("the paper is %s", paper)
				}
				if dir := os.Getenv("JOULE_SCREENSHOTS"); dir != "" {
					shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("report-%d-%s.png", width, scheme)), shot, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, c := range complaints {
		t.Error(c)
	}
}

// watched makes the browser tell what it fetches and complains about.
var watched = chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
	_, e1 := cdp.Call(ctx, tab, network.Enable, network.EnableParams{})
	_, e2 := cdp.Call(ctx, tab, log.Enable, cdp.Empty{})
	_, e3 := cdp.Call(ctx, tab, runtime.Enable, cdp.Empty{})
	return errors.Join(e1, e2, e3)
})

// emulate sets whether the reader likes light or dark pages.
func emulate(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	})
}

func ask[T any](t *testing.T, ctx context.Context, js string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	if err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return v
}

func count(t *testing.T, ctx context.Context, js string) int {
	t.Helper()
	return ask[int](t, ctx, js+".length")
}
