package doctor

import (
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// Advisory is a published hole of a module that this program may be built from.
type Advisory struct {
	ID     string // of the Go vulnerability database
	Module string
	Fixed  string // the first good version, "v1.2.3"; empty: none
	About  string
	// Contained says why it does not reach this program; empty: it does.
	Contained string
}

// Advisories are those that were known when this program was released, for hosts
// without a way to a database. A release adds what govulncheck finds.
var Advisories = []Advisory{
	{"GO-2026-6163", "github.com/pion/stun/v2", "", "one datagram with an address attribute of a wrong length ends the process",
		"no message gets to that parser before turngate's own has accepted it"},
}

// Known returns the advisories that apply to the modules of a build.
func Known(deps []*debug.Module, list []Advisory) (found []Advisory) {
	for _, a := range list {
		if slices.ContainsFunc(deps, func(m *debug.Module) bool {
			if m.Replace != nil {
				m = m.Replace
			}
			return m.Path == a.Module && (a.Fixed == "" || older(m.Version, a.Fixed))
		}) {
			found = append(found, a)
		}
	}
	return found
}

// older compares versions. What comes before a release ("v1.2.3-rc.1", a commit)
// counts as older than it; two of these are equal, which is cautious enough.
func older(a, b string) bool {
	na, pre := numbers(a)
	nb, preB := numbers(b)
	if c := slices.Compare(na[:], nb[:]); c != 0 {
		return c < 0
	}
	return pre && !preB
}

func numbers(version string) (n [3]int, pre bool) {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "+")
	version, _, pre = strings.Cut(version, "-")
	for i, part := range strings.SplitN(version, ".", 3) {
		n[i], _ = strconv.Atoi(part) // what is no number is 0, and so older
	}
	return n, pre
}
