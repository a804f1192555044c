package doctor

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// report is one of each kind.
func report() Report {
	return NewReport("proxy.example.com, on the server itself", "1.2.3", time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), 1234*time.Millisecond, []Finding{
		As(NameOK, "proxy.example.com is 203.0.113.7"),
		As(CertEndsSoon, "the certificate ends on 2026-12-01: 8 days left"),
		As(WssBlocked, "/ws/: upstream signaling.rtc.qq.com:443: dial: timeout | 3 s"),
		As(LogOK, "/logger/: upstream https://yun.tim.qq.com:443 answers 200 in 41 ms, directly"),
		As(UDPOK, "UDP 3478: relay 203.0.113.7:20001 in 2 ms").With("udp_time", 0.002, "s"),
		As(LoopOK, "UDP 3478: 49 of 50 datagrams came back").With("udp_rtt", 0.0008, "s").With("udp_loss", 2, "%"),
		As(LoopOK, "plain TCP 443: 50 of 50 datagrams came back").With("udp_rtt", 0.0004, "s").With("udp_loss", 0, "%"),
		As(TCPSilent, "TCP 3478: no answer").Do("open it").By(Cloud),
		As(EgressUntested, "no STUN server was named"),
		As(ClockUnsynced, "no time service keeps the clock"),
	})
}

func TestReportsReadTheSame(t *testing.T) {
	r := report()
	for name, write := range map[string]func(b *bytes.Buffer) error{
		"report.txt":  func(b *bytes.Buffer) error { return r.WriteText(b, false) },
		"quiet.txt":   func(b *bytes.Buffer) error { return r.WriteText(b, true) },
		"report.json": func(b *bytes.Buffer) error { return r.WriteJSON(b) },
		"nagios.txt":  func(b *bytes.Buffer) error { return r.WriteNagios(b) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
	}
	if r.ExitCode() != 2 {
		t.Errorf("exit code: got %d, want 2", r.ExitCode())
	}
	good := NewReport("x", "1", time.Now(), 0, []Finding{As(WebOK, "it answers"), As(EgressUntested, "no")})
	var b bytes.Buffer
	if err := good.WriteText(&b, true); err != nil || b.Len() != 0 || good.ExitCode() != 0 {
		t.Errorf("a good report, quiet: %q, code %d", b.String(), good.ExitCode())
	}
}

// Codes are an interface: the file changes by additions only.
func TestCodesKeepTheirMeaning(t *testing.T) {
	var b bytes.Buffer
	last := Code("")
	for _, topic := range Topics() {
		if topic.Code <= last {
			t.Errorf("%s stands after %s", topic.Code, last)
		}
		last = topic.Code
		if topic.Status >= Warn && (topic.Fix == "" || topic.Who == Nobody) {
			t.Errorf("%s says neither what to do nor who has to", topic.Code)
		}
		fmt.Fprintf(&b, "%s %-4v %-9s %s\n", topic.Code, topic.Status, topic.group(), topic.Title)
		for _, spelled := range []string{string(topic.Code), strings.ToLower(string(topic.Code)), strings.TrimPrefix(string(topic.Code), "TG-")} {
			if found, ok := Lookup(spelled); !ok || found.Code != topic.Code {
				t.Errorf("Lookup(%q): %v", spelled, found.Code)
			}
		}
	}
	golden(t, "codes.txt", b.Bytes())
}

func TestEveryCodeHasATopic(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		lit, ok := node.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		if text, _ := strconv.Unquote(lit.Value); len(text) == 6 && strings.HasPrefix(text, "TG-") {
			n++
			if _, ok := Lookup(text); !ok {
				t.Errorf("%s has no topic", text)
			}
		}
		return true
	})
	if n != len(Topics()) {
		t.Errorf("%d codes and %d topics", n, len(Topics()))
	}
}

func TestACheckThatDoesNotEndIsAFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		began := time.Now()
		found := Run(t.Context(), 5*time.Second, []Check{
			{"good", Access, func(context.Context) []Finding { return []Finding{As(WebOK, "fine")} }},
			{"stuck", Media, func(context.Context) []Finding { <-release; return []Finding{As(UDPOK, "too late")} }},
			{"patient", Logs, func(ctx context.Context) []Finding {
				<-ctx.Done()
				return []Finding{As(LogBlocked, "found until then")}
			}},
		})
		if took := time.Since(began); took != 6*time.Second {
			t.Errorf("took %v, want the limit and a second", took)
		}
		var codes []Code
		for _, f := range found {
			codes = append(codes, f.Code)
		}
		if diff := cmp.Diff([]Code{WebOK, LogBlocked, CheckUnfinished}, codes); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
		if f := found[2]; f.Group != Media || !strings.Contains(f.What, "stuck") {
			t.Errorf("the finding about it: %v", f)
		}
		close(release)
		synctest.Wait()
	})
}

func TestPathsAreToldApart(t *testing.T) {
	fail, ok := func(c Code) Finding { return As(c, "x").At(Fail) }, func(c Code) Finding { return As(c, "x").At(OK) }
	for _, tt := range []struct {
		name                   string
		found                  []Finding
		signaling, logs, media Status
	}{
		{"nothing looked at", nil, Skip, Skip, Skip},
		{"a dead upstream", []Finding{ok(WebOK), fail(WssBlocked), ok(LogOK), ok(UDPOK)}, Fail, OK, OK},
		{"blocked media", []Finding{ok(WebOK), ok(WssOK), ok(LogOK), fail(BlockedMedia)}, OK, OK, Fail},
		{"blocked UDP in its group", []Finding{ok(WebOK), ok(WssOK), ok(LogOK), fail(UDPSilent)}, OK, OK, Fail},
		{"a closed 443 stops wss and logs", []Finding{fail(WebRefused), As(WssUntested, "x"), As(LogUntested, "x"), ok(UDPOK)}, Fail, Fail, OK},
		{"a host with trouble stops nothing by itself", []Finding{ok(WssOK), ok(LogOK), ok(UDPOK), fail(LimitsFiles)}, OK, OK, OK},
		{"an access that is fine is not a path that works", []Finding{ok(WebOK), As(WssUntested, "x"), ok(LogOK)}, Skip, OK, Skip},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]Status{}
			for _, p := range paths(tt.found) {
				got[p.Name] = p.Status
			}
			if diff := cmp.Diff(map[string]Status{"signaling": tt.signaling, "logs": tt.logs, "media": tt.media}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The sentence is what the SDK's one error for both cannot say.
func TestAVerdictTellsSignalingFromMedia(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		signaling, logs, media Status
		want                   string
	}{
		{"all good", OK, OK, Warn, "The signaling path and the media path work."},
		{"dead signaling", Fail, Fail, OK, "The signaling path is dead and the media path works: nobody can join, though a call would have sound and picture."},
		{"blocked media", Warn, OK, Fail, "The signaling path works and the media path is blocked: users can join, and have neither sound nor picture."},
		{"both", Fail, Fail, Fail, "The signaling path and the media path are both dead: nobody can join, and a call would have neither sound nor picture."},
		{"dead signaling, no credential", Fail, OK, Skip, "The signaling path is dead: nobody can join. Media was not tested."},
		{"blocked media, no route", Skip, Skip, Fail, "The media path is blocked: a call has neither sound nor picture. Signaling was not tested."},
		{"good signaling, no credential", OK, Fail, Skip, "The signaling path works; media was not tested. Log reports do not arrive."},
		{"good media, no route", Skip, Skip, OK, "The media path works; signaling was not tested."},
		{"nothing", Skip, Skip, Skip, "Neither signaling nor media was tested."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := verdict([]Path{{"signaling", tt.signaling, ""}, {"logs", tt.logs, ""}, {"media", tt.media, ""}}, false)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestOneDeadRouteIsNotAllOfSignaling(t *testing.T) {
	for _, tt := range []struct {
		name  string
		found []Finding
		want  string
	}{
		{"another works", []Finding{As(WssOK, "/a/"), As(WssBlocked, "/b/"), As(UDPOK, "x")}, "One signaling route is dead"},
		{"none works, the scheduler does", []Finding{As(ScheduleOK, "x"), As(WssBlocked, "/b/"), As(UDPOK, "x")}, "The signaling path is dead"},
		{"the certificate is dead for all", []Finding{As(CertEnded, "x"), As(WssOK, "/a/"), As(UDPOK, "x")}, "The signaling path is dead"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := NewReport("x", "1", time.Now(), 0, tt.found).Verdict; !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWhatServersSendCannotHarmATerminal(t *testing.T) {
	f := As(WebForeign, "%s", "a\x1b[2Jb\nc\u202ed\xffe\u009bf")
	if f.What != "a[2Jb cd?ef" {
		t.Errorf("got %q", f.What)
	}
}
