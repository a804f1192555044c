// Package doctor finds out what works and what does not: the types of checks
// and findings, the table of codes, the runner, and how a report reads.
//
// It knows no configuration and no room. Who uses it makes [Check] values, each a
// function that looks at one thing, gives them to [Run], and writes the [Report].
//
// A [Code] never changes its meaning: monitoring, tickets and the documentation name
// it. Its first two digits are the check, the third one is what was found; 0 is
// success.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Status is how bad a finding is. Larger is worse.
type Status int

const (
	Skip Status = iota // not looked at, and why
	OK
	Warn // works, and will not for ever or for everybody
	Fail
)

var statusNames = [...]string{"skip", "ok", "warn", "fail"}

func (s Status) String() string { return statusNames[s] }

// MarshalText writes "skip", "ok", "warn" or "fail".
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *Status) UnmarshalText(text []byte) error {
	i := slices.Index(statusNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("status %q", text)
	}
	*s = Status(i)
	return nil
}

// Group is the path that a finding belongs to.
type Group string

const (
	Access    Group = "access"    // name, certificate, port 443
	Signaling Group = "signaling" // wss through to the upstreams
	Logs      Group = "logs"      // log reports through to the upstreams
	Media     Group = "media"     // TURN
	Host      Group = "host"      // this machine
	Service   Group = "service"   // the running turngate and its configuration
)

// Groups are all groups in the order of a report.
var Groups = []Group{Access, Signaling, Logs, Media, Host, Service}

// Finding is one line of a report.
type Finding struct {
	Code   Code   `json:"code"`
	Status Status `json:"status"`
	Group  Group  `json:"group"`
	What   string `json:"what"`          // what was found; one line, no secrets
	Fix    string `json:"fix,omitempty"` // what to do about it, with warn and fail
	Who    Who    `json:"who,omitempty"` // who has to

	Measures []Measure `json:"measures,omitempty"` // for graphs of the monitoring
}

// Measure is a number that monitoring may draw.
type Measure struct {
	Name  string  `json:"name"` // [a-z_], the same in every release
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"` // "s", "%", or none for a count
}

// With adds a measure.
func (f Finding) With(name string, value float64, unit string) Finding {
	f.Measures = append(f.Measures[:len(f.Measures):len(f.Measures)], Measure{name, value, unit})
	return f
}

// As returns a finding of a code with its usual status, remedy and addressee.
func As(code Code, format string, args ...any) Finding {
	t := code.Topic()
	f := Finding{Code: code, Status: t.Status, Group: t.group(), What: oneLine(fmt.Sprintf(format, args...))}
	if f.Status >= Warn {
		f.Fix, f.Who = t.Fix, t.Who
	}
	return f
}

// Do replaces the remedy.
func (f Finding) Do(format string, args ...any) Finding {
	f.Fix = oneLine(fmt.Sprintf(format, args...))
	return f
}

// By replaces the addressee.
func (f Finding) By(who Who) Finding {
	f.Who = who
	return f
}

// At replaces the status; the remedy goes with one below [Warn].
func (f Finding) At(s Status) Finding {
	f.Status = s
	t := f.Code.Topic()
	if s < Warn {
		f.Fix, f.Who = "", ""
	} else {
		f.Fix, f.Who = cmp.Or(f.Fix, t.Fix), cmp.Or(f.Who, t.Who)
	}
	return f
}

// oneLine makes text safe for a terminal and for one line: it may quote what a
// server sent.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// Check looks at one thing. Run gets a context that ends at the deadline of the
// whole and returns what it found so far when it does.
type Check struct {
	Name  string // for the finding when it does not return
	Group Group
	Run   func(ctx context.Context) []Finding
}

// Report is what all checks found.
type Report struct {
	Subject  string    `json:"subject"` // what was looked at, and from where
	At       time.Time `json:"at"`
	Took     float64   `json:"seconds"`
	Version  string    `json:"version"`
	Status   Status    `json:"status"`
	Verdict  string    `json:"verdict"` // one sentence that tells signaling from media
	Paths    []Path    `json:"paths"`
	Findings []Finding `json:"findings"`
}

// grace is what a check gets to return after its context has ended.
const grace = time.Second

// Run runs the checks at once and returns when all have, at the latest a moment
// after limit: a check that does not return is a finding. Findings stand in the
// order of their groups and codes.
func Run(ctx context.Context, limit time.Duration, checks []Check) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var mu sync.Mutex // guards the next two
	var found []Finding
	running := make(map[int]bool)
	for i := range checks {
		running[i] = true
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			list := c.Run(ctx)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, list...)
			delete(running, i)
		})
	}
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(grace):
		}
	}
	mu.Lock()
	defer mu.Unlock()
	result := slices.Clone(found)
	for i := range running {
		f := As(CheckUnfinished, "%s: no result within %s", checks[i].Name, limit.Round(time.Second))
		f.Group = checks[i].Group
		result = append(result, f)
	}
	slices.SortStableFunc(result, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(slices.Index(Groups, a.Group), slices.Index(Groups, b.Group)), cmp.Compare(a.Code, b.Code), cmp.Compare(a.What, b.What))
	})
	return result
}

// NewReport draws the conclusions of findings.
func NewReport(subject, version string, at time.Time, took time.Duration, found []Finding) Report {
	list := paths(found)
	return Report{
		Subject: subject, At: at.Truncate(time.Second), Took: took.Round(time.Millisecond).Seconds(), Version: version,
		Status: Worst(found), Verdict: verdict(list, partly(found)), Paths: list, Findings: append([]Finding{}, found...),
	}
}

// partly reports whether some signaling works although some does not: there is
// nothing wrong with the host itself, and a route or an upstream answers.
func partly(found []Finding) bool {
	access := slices.ContainsFunc(found, func(f Finding) bool { return f.Group == Access && f.Status == Fail })
	return !access && slices.ContainsFunc(found, func(f Finding) bool { return f.Code == WssOK && f.Status == OK })
}

// verdict says in one sentence what the SDK's 5501 does not: which of the two
// paths of a call is the dead one.
func verdict(list []Path, partly bool) string {
	var signaling, logs, media Status
	for _, p := range list {
		switch p.Name {
		case "signaling":
			signaling = p.Status
		case "logs":
			logs = p.Status
		case "media":
			media = p.Status
		}
	}
	works := func(s Status) bool { return s == OK || s == Warn }
	var text string
	switch {
	case signaling == Fail && media == Fail:
		text = "The signaling path and the media path are both dead: nobody can join, and a call would have neither sound nor picture."
	case signaling == Fail && works(media) && partly:
		text = "One signaling route is dead, others work; the media path works."
	case signaling == Fail && works(media):
		text = "The signaling path is dead and the media path works: nobody can join, though a call would have sound and picture."
	case signaling == Fail:
		text = "The signaling path is dead: nobody can join. Media was not tested."
	case media == Fail && works(signaling):
		text = "The signaling path works and the media path is blocked: users can join, and have neither sound nor picture."
	case media == Fail:
		text = "The media path is blocked: a call has neither sound nor picture. Signaling was not tested."
	case works(signaling) && works(media):
		text = "The signaling path and the media path work."
	case works(signaling):
		text = "The signaling path works; media was not tested."
	case works(media):
		text = "The media path works; signaling was not tested."
	default:
		text = "Neither signaling nor media was tested."
	}
	if logs == Fail && signaling != Fail {
		text += " Log reports do not arrive."
	}
	return text
}

// Worst is the worst status, [Skip] for no finding.
func Worst(found []Finding) (worst Status) {
	for _, f := range found {
		worst = max(worst, f.Status)
	}
	return worst
}

// ExitCode is 0 when all is well, 1 with warnings, 2 with failures, as Nagios has it.
func (r Report) ExitCode() int { return max(0, int(r.Status)-int(OK)) }

// Path is the conclusion about what a client needs.
type Path struct {
	Name   string `json:"name"` // "signaling", "logs" or "media"
	Status Status `json:"status"`
	Why    string `json:"why"` // what decides, one line
}

// paths tells a dead signaling path from a blocked media path. What stops access
// to the host stops the first two as well; media over UDP it does not.
func paths(found []Finding) []Path {
	var out []Path
	for _, p := range []struct {
		name   string
		groups []Group
	}{{"signaling", []Group{Access, Signaling}}, {"logs", []Group{Access, Logs}}, {"media", []Group{Media}}} {
		status, why := Skip, "not looked at"
		// The group of the path itself is what decides between equals.
		for _, g := range slices.Backward(p.groups) {
			own := g == p.groups[len(p.groups)-1]
			for _, f := range found {
				if f.Group == g && (f.Status > status && (own || f.Status > OK) || status == Skip && own && f.Status == OK) {
					status, why = f.Status, fmt.Sprintf("%s: %s", f.Code, f.What)
				}
			}
		}
		if status == OK {
			why = "works"
		}
		out = append(out, Path{p.name, status, why})
	}
	return out
}
