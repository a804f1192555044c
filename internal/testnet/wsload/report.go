package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is one figure of every proxy, and what is wanted of turngate's.
type row struct {
	what   string
	format string               // of one value
	rounds map[string][]float64 // by proxy
	target *target              // nil: for information
}

// A target is a bound on turngate's value, or on its ratio to another proxy's.
type target struct {
	than  string  // proxy of the ratio; empty: the value itself
	bound float64 // at most
	least bool    // at least instead
	best  bool    // of the best round of each: others' work on the machine only ever adds
}

// add enters a value of a round.
func (b *bench) add(what, format string, t *target, name string, value float64) {
	i := slices.IndexFunc(b.table, func(r row) bool { return r.what == what })
	if i < 0 {
		i = len(b.table)
		b.table = append(b.table, row{what, format, make(map[string][]float64), t})
	}
	b.table[i].rounds[name] = append(b.table[i].rounds[name], value)
}

// value is what the table shows of the rounds.
func (r row) value(name string) float64 {
	if r.target != nil && r.target.best {
		return slices.Min(r.rounds[name])
	}
	return median(r.rounds[name])
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// ratio is the median over the rounds of turngate's value by another's in the same round.
func (r row) ratio(than string) (float64, bool) {
	ours, theirs := r.rounds["turngate"], r.rounds[than]
	if r.target.best && len(ours) > 0 && len(theirs) > 0 {
		return slices.Min(ours) / slices.Min(theirs), true
	}
	var all []float64
	for i := range min(len(ours), len(theirs)) {
		if theirs[i] != 0 {
			all = append(all, ours[i]/theirs[i])
		}
	}
	return median(all), len(all) > 0
}

// verdict returns what was wanted, what was reached, and whether that is enough.
func (r row) verdict() (want, got string, ok bool) {
	if r.target == nil || len(r.rounds["turngate"]) == 0 {
		return "", "", true
	}
	sign, value, format := "<=", median(r.rounds["turngate"]), r.format
	if r.target.least {
		sign = ">="
	}
	what := ""
	if r.target.than != "" {
		var measured bool
		if value, measured = r.ratio(r.target.than); !measured {
			return "", "", true
		}
		format, what = "%.2f", " x "+r.target.than
	}
	ok = value <= r.target.bound
	if r.target.least {
		ok = value >= r.target.bound
	}
	return sign + " " + fmt.Sprintf(format, r.target.bound) + what, fmt.Sprintf(format, value), ok
}

func (b *bench) missed() bool {
	return slices.ContainsFunc(b.table, func(r row) bool { _, _, ok := r.verdict(); return !ok })
}

// print writes the table in Markdown: each value is the median of its rounds, or their best.
func (b *bench) print(out io.Writer) {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Fprintf(out, "%s, Linux %s, %s, %d cores; proxy on core %d\n", time.Now().UTC().Format("2 January 2006 15:04 MST"),
		strings.TrimSpace(string(kernel)), runtime.Version(), runtime.NumCPU(), b.core)
	names := []string{}
	for _, r := range b.chosen {
		fmt.Fprintf(out, "%s: %s\n", r.name, r.about())
		names = append(names, r.name)
	}
	if b.fixed != nil {
		names = append(names, b.fixed.name)
	}
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		fmt.Printf("commit: %s", out)
	}
	fmt.Fprintln(out)
	names = append(names, "direct")
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintf(w, "| \t| %s\t| wanted\t| reached\t|\n", strings.Join(names, "\t| "))
	fmt.Fprintf(w, "| ---\t%s| ---\t| ---\t|\n", strings.Repeat("| ---\t", len(names)))
	for _, r := range b.table {
		fmt.Fprintf(w, "| %s\t", r.what)
		for _, name := range names {
			if v := r.rounds[name]; len(v) > 0 {
				fmt.Fprintf(w, "| "+r.format+"\t", r.value(name))
			} else {
				fmt.Fprint(w, "| \t")
			}
		}
		want, got, ok := r.verdict()
		switch {
		case got == "":
		case ok:
			got += " pass"
		default:
			got += " MISS"
		}
		fmt.Fprintf(w, "| %s\t| %s\t|\n", want, got)
	}
	w.Flush()
}
