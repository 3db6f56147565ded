package notify

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/ledger"
)

var update = flag.Bool("update", false, "rewrite the expected requests")

// A case is the message of an entry, or two states of the holds, beside the
// files that are newest, and what is sent for it in each format.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := map[string]string{}
			before, after := fstest.MapFS{}, fstest.MapFS{}
			for _, f := range a.Files {
				in[f.Name] = string(f.Data)
				if name, ok := strings.CutPrefix(f.Name, "before/"); ok {
					before[name] = &fstest.MapFile{Data: f.Data}
				} else if strings.Contains(f.Name, "/") {
					after[f.Name] = &fstest.MapFile{Data: f.Data}
				}
			}
			const commit = "4f1c2aa90b7e4f1c2aa90b7e4f1c2aa90b7e0001"
			newest := readRepository(t, after)
			var all []Notification
			if in["entry"] != "" {
				e, err := ledger.ParseMessage(in["entry"], noon)
				if err != nil {
					t.Fatal(err)
				}
				all = OfEntry(e, Reference{ledger.Branch(e.Environment), commit}, newest)
			} else {
				all = OfHolds(Change{Before: readRepository(t, before).Holds, After: newest.Holds, At: Reference{"main", commit}, When: noon, By: ledger.Person{Name: "On Call", Email: "on-call@example.com"}})
				if in["ends"] != "" {
					until, err := time.Parse(time.RFC3339, strings.TrimSpace(in["ends"]))
					if err != nil {
						t.Fatal(err)
					}
					all = OfEnds(newest.Holds, noon, until, Reference{"main", commit})
				}
			}
			got := sent(t, all)
			if *update {
				kept := slices.DeleteFunc(a.Files, func(f txtar.File) bool { return f.Name == "sent" })
				a.Files = append(kept, txtar.File{Name: "sent", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(in["sent"], got); d != "" {
				t.Error(d)
			}
		})
	}
}

func readRepository(t *testing.T, tree fstest.MapFS) *desired.Repository {
	t.Helper()
	repo, err := desired.Read(desired.Hashed(tree), nil)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// sent writes the requests for news, the JSON of their bodies one key a line.
func sent(t *testing.T, all []Notification) string {
	t.Helper()
	var b strings.Builder
	for _, f := range Formats {
		for _, n := range all {
			m, err := Write(f, n)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s %s\n", f, m.ID)
			for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
				fmt.Fprintf(&b, "%s: %s\n", name, m.Headers[name])
			}
			var body bytes.Buffer
			if err := json.Indent(&body, m.Body, "", "  "); err != nil {
				t.Fatal(err)
			}
			if bytes.ContainsRune(m.Body, '\n') {
				t.Errorf("the body has more than one line: %s", m.Body)
			}
			fmt.Fprintf(&b, "%s\n\n", &body)
		}
	}
	return b.String()
}

// There is news of each kind, and a filter tells it.
func TestFilters(t *testing.T) {
	n := Notification{Event: desired.NewsFailed, Environment: "staging", Service: "web"}
	asked := &desired.Repository{Environments: map[desired.EnvironmentName]*desired.Environment{
		"staging": {Notify: []desired.Notify{{Sink: "chat", Events: []desired.News{desired.NewsFailed}, Services: []desired.ServiceName{"web"}}}},
		"dev":     {},
	}}
	held := Notification{Event: desired.NewsHeld, Hold: &Hold{Name: "x", Environments: []desired.EnvironmentName{"staging"}}}
	for _, c := range []struct {
		name   string
		sink   Sink
		n      Notification
		newest *desired.Repository
		want   bool
	}{
		{"all", Sink{}, n, nil, true},
		{"another event", Sink{Events: []desired.News{desired.NewsVerified}}, n, nil, false},
		{"the event", Sink{Events: []desired.News{desired.NewsVerified, desired.NewsFailed}}, n, nil, true},
		{"another environment", Sink{Environments: []desired.EnvironmentName{"dev"}}, n, nil, false},
		{"another service", Sink{Services: []desired.ServiceName{"api"}}, n, nil, false},
		{"its service", Sink{Services: []desired.ServiceName{"api", "web"}}, n, nil, true},
		{"on request, nothing known", Sink{Name: "chat", OnRequest: true}, n, nil, false},
		{"on request", Sink{Name: "chat", OnRequest: true}, n, asked, true},
		{"on request, another sink", Sink{Name: "board", OnRequest: true}, n, asked, false},
		{"on request, bounded", Sink{Name: "chat", OnRequest: true, Environments: []desired.EnvironmentName{"dev"}}, n, asked, false},
		{"on request, another environment", Sink{Name: "chat", OnRequest: true}, Notification{Event: desired.NewsFailed, Environment: "dev", Service: "web"}, asked, false},
		{"on request, another event", Sink{Name: "chat", OnRequest: true}, Notification{Event: desired.NewsStarted, Environment: "staging", Service: "web"}, asked, false},
		{"a hold", Sink{Environments: []desired.EnvironmentName{"staging"}}, held, nil, true},
		{"a hold elsewhere", Sink{Environments: []desired.EnvironmentName{"dev"}}, held, nil, false},
		{"a hold of everything", Sink{Environments: []desired.EnvironmentName{"dev"}, Services: []desired.ServiceName{"web"}}, Notification{Event: desired.NewsHeld, Hold: &Hold{}}, nil, true},
		{"a hold, on request", Sink{Name: "chat", OnRequest: true}, held, asked, false}, // it asks for failed alone
	} {
		if got := c.sink.Wants(c.n, c.newest); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Every event of a ledger is news.
func TestAllEntriesAreNews(t *testing.T) {
	for _, e := range []ledger.Event{
		ledger.EventPinned, ledger.EventStarted, ledger.EventCompleted, ledger.EventVerified, ledger.EventFailed, ledger.EventSuperseded,
		ledger.EventCheck, ledger.EventApproved, ledger.EventOffered, ledger.EventDrifted, ledger.EventRetired, ledger.EventRerun,
	} {
		all := OfEntry(ledger.Entry{Event: e, Environment: "dev", Service: "web", Time: time.Unix(0, 0)}, Reference{}, nil)
		if len(all) != 1 || string(all[0].Event) != string(e) || !slices.Contains(desired.AllNews, all[0].Event) {
			t.Errorf("%s is %v", e, all)
		}
	}
}

// No text of a repository is mark-up of a chat.
func TestTextIsEscaped(t *testing.T) {
	m, err := Write(FormatSlack, Notification{Summary: "failed(dev): web", Reason: "<!channel> a & b <https://evil.example|ok> @all [ok](https://evil.example)"})
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Text string }
	if err := json.Unmarshal(m.Body, &body); err != nil {
		t.Fatal(err)
	}
	if want := "*failed(dev): web*\n&lt;!channel&gt; a &amp; b &lt;https://evil.example|ok&gt; @\u200ball [ok]\u200b(https://evil.example)"; body.Text != want {
		t.Errorf("%q, want %q", body.Text, want)
	}
	long, err := Write(FormatSlack, Notification{Reason: strings.Repeat("é", 5000)})
	if err != nil || len(long.Body) > 4000 || bytes.ContainsRune(long.Body, '\uFFFD') {
		t.Errorf("a long text makes %d bytes: %v", len(long.Body), err)
	}
}

// What CDEvents asks of the types of events, and CloudEvents of the headers.
func TestCDEventsAreValid(t *testing.T) {
	custom := regexp.MustCompile(`^dev\.cdeventsx\.pinion-[a-z]+\.[a-z]+\.[0-9]\.[0-9]\.[0-9]$`) // as its own SDKs read it
	service := regexp.MustCompile(`^dev\.cdevents\.service\.(deployed|upgraded|rolledback|removed)\.0\.2\.0$`)
	bare := desired.NewsCompleted + " without pins"
	for _, event := range append(slices.Clone(desired.AllNews), "test", bare) {
		n := Notification{ID: "x", Event: event, Time: noon, Environment: "dev", Service: "web"}
		if n.Event == bare {
			n.Event = desired.NewsCompleted
		} else {
			n.Pins = []ledger.Pin{{Artifact: "web", Image: "ghcr.io/acme/web:1.4.2"}}
		}
		if event == desired.NewsHeld || event == desired.NewsReleased {
			n.Environment, n.Service, n.Hold = "", "", &Hold{Name: "freeze"}
		}
		m, err := Write(FormatCDEvents, n)
		if err != nil {
			t.Fatal(err)
		}
		var e cdevent
		if err := json.Unmarshal(m.Body, &e); err != nil {
			t.Fatal(err)
		}
		is := event == desired.NewsCompleted || event == desired.NewsRetired
		if _, has := e.Subject.Content["artifactId"]; has != (event == desired.NewsCompleted) {
			t.Errorf("%s has an artifact: %v", event, has)
		}
		if kind := m.Headers["Ce-Type"]; is != service.MatchString(kind) || is == custom.MatchString(kind) || kind != e.Context.Type {
			t.Errorf("%s has the type %s, and %s in the body", event, kind, e.Context.Type)
		}
		for _, name := range []string{"Ce-Id", "Ce-Source", "Ce-Specversion", "Ce-Subject", "Ce-Time"} {
			if m.Headers[name] == "" {
				t.Errorf("%s has no %s", event, name)
			}
		}
		if e.Subject.ID == "" || e.Subject.Type == "" || e.Subject.Content == nil {
			t.Errorf("%s has the subject %+v", event, e.Subject)
		}
	}
}
