package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// titles of the groups in a report.
var titles = map[Group]string{
	Access: "Name, certificate, HTTPS", Signaling: "Signaling", Logs: "Log reports",
	Media: "Media (TURN)", Host: "This host", Service: "Service and configuration",
}

// WriteText writes the report for people: each finding on one line, grouped; quiet
// leaves out what is ok or skipped. At the end stands what works for a client.
func (r Report) WriteText(w io.Writer, quiet bool) error {
	var b strings.Builder
	if !quiet {
		fmt.Fprintf(&b, "turngate check: %s\n", r.Subject)
	}
	for _, g := range Groups {
		headed := false
		for _, f := range r.Findings {
			if f.Group != g || quiet && f.Status < Warn {
				continue
			}
			if !headed {
				fmt.Fprintf(&b, "\n%s\n", titles[g])
				headed = true
			}
			b.WriteString("  " + f.String() + "\n")
		}
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	if !quiet || r.Status > OK {
		for _, p := range r.Paths {
			fmt.Fprintf(&b, "%-10s %s\n", p.Name, p)
		}
		fmt.Fprintf(&b, "\n%s\n%s\n", r.Verdict, r.count())
	}
	_, err := io.WriteString(w, strings.TrimPrefix(b.String(), "\n"))
	return err
}

// String is the finding on one line: status, code, what; what to do [who].
func (f Finding) String() string {
	status := f.Status.String()
	if f.Status == Fail {
		status = "FAIL"
	}
	s := fmt.Sprintf("%-4s %s  %s", status, f.Code, f.What)
	if f.Fix != "" {
		s += " -> " + f.Fix
	}
	if f.Who != "" {
		s += " [" + string(f.Who) + "]"
	}
	return s
}

func (p Path) String() string {
	switch p.Status {
	case OK, Skip:
		return p.Why
	case Warn:
		return "works, but " + p.Why
	}
	return "DOES NOT WORK: " + p.Why
}

// tally counts findings by status.
func (r Report) tally() (n [4]int) {
	for _, f := range r.Findings {
		n[f.Status]++
	}
	return n
}

func (r Report) count() string {
	n := r.tally()
	return fmt.Sprintf("%d ok, %d warnings, %d failed, %d not tested, in %.1f s", n[OK], n[Warn], n[Fail], n[Skip], r.Took)
}

// WriteJSON writes the report for programs.
func (r Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// WriteNagios writes one line as monitoring plugins do: state, what is worst, and
// performance data behind the bar: counts, the paths (0 works, 1 with warnings, 2
// dead), and what the findings measured.
func (r Report) WriteNagios(w io.Writer) error {
	state := [...]string{"OK", "WARNING", "CRITICAL"}[r.ExitCode()]
	var bad []string
	for _, s := range []Status{Fail, Warn} {
		for _, f := range r.Findings {
			if f.Status == s {
				bad = append(bad, fmt.Sprintf("%s %s", f.Code, f.What))
			}
		}
	}
	n := r.tally()
	about := fmt.Sprintf("%d checks passed", n[OK])
	if len(bad) > 0 {
		about = strings.Join(bad[:min(3, len(bad))], "; ")
	}
	if more := len(bad) - 3; more > 0 {
		about += fmt.Sprintf("; and %d more", more)
	}
	var dead []string
	for _, p := range r.Paths {
		if p.Status == Fail {
			dead = append(dead, p.Name)
		}
	}
	if dead != nil {
		about += " (dead: " + strings.Join(dead, ", ") + ")"
	}
	about = strings.ReplaceAll(about, "|", "/") // the bar ends the text
	_, err := fmt.Fprintf(w, "TURNGATE %s - %s | %s\n", state, about, r.performance())
	return err
}

// performance is the part of the line for graphs: 'label'=value[unit];[warn];[crit].
func (r Report) performance() string {
	n := r.tally()
	list := []string{fmt.Sprintf("ok=%d warn=%d;0 fail=%d;;0 skip=%d time=%.3fs", n[OK], n[Warn], n[Fail], n[Skip], r.Took)}
	for _, p := range r.Paths {
		if p.Status != Skip {
			list = append(list, fmt.Sprintf("%s=%d;0;1", p.Name, p.Status-OK))
		}
	}
	// Several routes have one name for their times: the worst is shown.
	var names []string
	worst := make(map[string]Measure)
	for _, f := range r.Findings {
		for _, m := range f.Measures {
			have, known := worst[m.Name]
			if !known {
				names = append(names, m.Name)
			}
			if !known || m.Value > have.Value {
				worst[m.Name] = m
			}
		}
	}
	for _, name := range names {
		m := worst[name]
		list = append(list, name+"="+strconv.FormatFloat(m.Value, 'f', -1, 64)+m.Unit)
	}
	return strings.Join(list, " ")
}

// WriteTopic writes what is known about a code.
func (t Topic) WriteTopic(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n", t.Code, t.Title)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", name, text)
		}
	}
	row("usually", t.Status.String())
	row("cause", t.Cause)
	row("do", t.Fix)
	row("who", string(t.Who))
	_, err := io.WriteString(w, b.String())
	return err
}
