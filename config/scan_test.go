package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScanFindsTheLineOfEveryKey(t *testing.T) {
	pos, tooDeep := scan(`a = 1 # b = 2
"q.x" = """
c = 3
""" # d
e.f = [ 1,
  2, { g = "]" }, # ] h
]

[t]
i = '''x'''
'j' = 1979-05-27 07:32:00
[[l]]
k = { m = 1, n.o = [ "#" ] }
[[l]]
k = 2
[[l.p]]
[l.p.r]
s = "\"" `)
	want := positions{
		"a": 1, `"q.x"`: 2, "e": 5, "e.f": 5, "e.f[0]": 5, "e.f[1]": 6, "e.f[2]": 6, "e.f[2].g": 6,
		"t": 9, "t.i": 10, "t.j": 11,
		"l": 12, "l[0]": 12, "l[0].k": 13, "l[0].k.m": 13, "l[0].k.n": 13, "l[0].k.n.o": 13, "l[0].k.n.o[0]": 13,
		"l[1]": 14, "l[1].k": 15, "l[1].p": 16, "l[1].p[0]": 16, "l[1].p[0].r": 17, "l[1].p[0].r.s": 18,
	}
	if diff := cmp.Diff(want, pos); diff != "" || tooDeep != 0 {
		t.Errorf("too deep: %d; positions (-want +got):\n%s", tooDeep, diff)
	}
	for path, want := range map[string]int{"l[1].p[0].r.none": 17, `"q.x".y`: 2, "none": 0, "e.f[9]": 5} {
		if got := pos.line(path); got != want {
			t.Errorf("line of %s: got %d, want %d", path, got, want)
		}
	}
}
