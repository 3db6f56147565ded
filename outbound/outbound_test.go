package outbound

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestMetadataAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"169.254.169.254": true, "169.254.0.1": true, "::ffff:169.254.169.254": true, "64:ff9b::a9fe:a9fe": true,
		"fe80::1": true, "fe80::1%eth0": true, "fd00:ec2::254": true, "fd20:ce::254": true, "168.63.129.16": true, "100.100.100.200": true,
		"fd00:42::42": true, "fd00:c1::a9fe:a9fe": true, "192.0.0.192": true, "64:ff9b:1::a9fe:a9fe": true, "2002:a9fe:a9fe::1": true, "::169.254.169.254": true,
		"2002:a00:1::1": false, "192.0.0.193": false, "64:ff9b:1::a00:1": false,
		"127.0.0.1": false, "::1": false, "10.96.0.10": false, "fd00:1234::1": false, "168.63.129.17": false, "64:ff9b::a00:1": false,
	} {
		if got := isMetadata(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

func TestAllow(t *testing.T) {
	list := []string{"status.shop.example", "*.ci.example", "Prometheus.shop.example:9090", "10.0.0.0/8", "127.0.0.1:8080", "::1", "[fd00::5]:80"}
	a, err := ParseAllow(list)
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{ // who is refused, as it would be listed
		"https://status.shop.example/x":       "",
		"http://STATUS.shop.example.:81/":     "",
		"http://a.status.shop.example/":       "a.status.shop.example",
		"http://eu.ci.example/":               "",
		"http://ci.example/":                  "ci.example",
		"http://notci.example/":               "notci.example",
		"http://prometheus.shop.example:9090": "",
		"http://prometheus.shop.example":      "prometheus.shop.example",
		"http://10.2.3.4:5/":                  "",
		"http://[::ffff:10.2.3.4]/":           "",
		"http://11.2.3.4/":                    "11.2.3.4",
		"http://10.2.3.4.evil.example/":       "10.2.3.4.evil.example",
		"http://127.0.0.1:8080/":              "",
		"http://127.0.0.1/":                   "127.0.0.1",
		"http://[::1]:9/":                     "",
		"http://[fd00::5]/":                   "",
		"https://[fd00::5]/":                  "[fd00::5]",
		"http://user:secret@x.example:5/":     "x.example:5",
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if e, ok := errors.AsType[*ForbiddenError](a.Check(u)); ok {
			got = e.Host
		}
		if got != want {
			t.Errorf("%s: refuses %q, want %q", address, got, want)
		}
		if (Allow{}).Check(u) == nil {
			t.Errorf("%s: the zero list admits it", address)
		}
		if err := Any().Check(u); err != nil {
			t.Error(err)
		}
	}
	for _, text := range []string{"", "http://x.example", "x.example/path", "*", "**.example", "a b", "x:port", "x:123456", "10.0.0.0/33", "*x.example", "::ffff:10.0.0.0/104"} {
		if _, err := ParseAllow([]string{text}); (err == nil) != (text == "*") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What is shown as refused admits the address when it is listed.
func FuzzAllow(f *testing.F) {
	for _, s := range []string{"http://x.example:80/", "https://[fd00::5%25eth0]:443", "http://10.2.3.4", "http://[::ffff:1.2.3.4]:7/", "http://a_b.example."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			return
		}
		e, ok := errors.AsType[*ForbiddenError](Allow{}.Check(u))
		if !ok {
			t.Fatalf("the zero list admits %q", address)
		}
		a, err := ParseAllow([]string{e.Host})
		if err != nil {
			return // no name that there is
		}
		if err := a.Check(u); err != nil {
			t.Errorf("%q: %v, and it was listed", address, err)
		}
	})
}

func serve(t *testing.T, h http.HandlerFunc) *url.URL {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRedirects(t *testing.T) {
	asked := false
	other := serve(t, func(http.ResponseWriter, *http.Request) { asked = true })
	other.Host = strings.Replace(other.Host, "127.0.0.1", "localhost", 1)
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{"/metadata": "http://169.254.169.254/latest", "/other": other.String(), "/file": "file:///etc/passwd", "/round": "/round"}[r.URL.Path]
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	})
	near, err := ParseAllow([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		options Options
		path    string
		status  int
		problem string
	}{
		{Options{Allow: Any(), Redirects: Listed}, "/metadata", 0, "169.254.169.254 is an address at which clouds hand out credentials"},
		{Options{Allow: Any(), Redirects: Listed}, "/other", 200, ""},
		{Options{Allow: near, Redirects: Listed}, "/other", 0, other.Host + " is not asked"},
		{Options{Allow: Any()}, "/other", 307, ""},
		{Options{Allow: Any(), Redirects: None}, "/round", 307, ""},
		{Options{Allow: Any(), Redirects: Listed}, "/file", 307, ""},
		{Options{Allow: Any()}, "/round", 0, "more than 5 redirects"},
	} {
		asked = false
		response, err := NewClient(test.options).Post(at.JoinPath(test.path).String(), "text/plain", strings.NewReader("pins"))
		status := 0
		if err == nil {
			status = response.StatusCode
			response.Body.Close()
		} else {
			err = Cause(err)
		}
		if status != test.status || (test.problem != "") != (err != nil) || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: %d, %v", test.path, status, err)
		}
		if asked != (test.status == 200) {
			t.Errorf("%s: the other host was asked: %v", test.path, asked)
		}
	}
}

// Neither a name nor an address of the network comes into a log with the cause.
func TestCauseNamesNoAddress(t *testing.T) {
	client := NewClient(Options{Allow: Any(), Timeout: 5 * time.Second})
	_, err := client.Get("http://user:secret@hooks.nowhere.invalid/T0/B0/secret")
	if err == nil {
		t.Fatal("it was found")
	}
	if got := Cause(err).Error(); strings.Contains(got, "nowhere") || strings.Contains(got, "secret") || !strings.Contains(got, "name") {
		t.Error(got)
	}
	at := serve(t, func(http.ResponseWriter, *http.Request) {})
	free := *at
	free.Host = "127.0.0.1:1"
	if _, err = client.Get(free.String()); err == nil || strings.Contains(Cause(err).Error(), "127.0.0.1") || !strings.Contains(Cause(err).Error(), "refused") {
		t.Error(Cause(err))
	}
}

func TestNoAnswerInTime(t *testing.T) {
	at := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	_, err := NewClient(Options{Allow: Any(), Timeout: 10 * time.Millisecond}).Get(at.String())
	if err == nil || Cause(err).Error() != "no answer in time" {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if _, err = NewClient(Options{Allow: Any(), Timeout: -1}).Do(r); err == nil || Cause(err).Error() != "no answer in time" {
		t.Error(err)
	}
}
