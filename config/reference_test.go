package config

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// uncommented is the reference file with the keys that are not set by default.
func uncommented() string {
	return regexp.MustCompile(`(?m)^#(\[|[a-z0-9_]+ = )`).ReplaceAllString(Reference, "$1")
}

func TestTheReferenceFileNamesEveryKeyAndNoOther(t *testing.T) {
	cfg, findings := LoadBytes("turngate.toml", []byte(uncommented()), machine(map[string]string{"TURN_PASSWORD": "correct horse"}, nil))
	if len(findings) > 0 {
		t.Fatalf("findings:\n%v", findings)
	}
	pos, _ := scan(uncommented())
	walk(reflect.ValueOf(cfg).Elem(), "", byIndex, func(l leaf) {
		if _, ok := pos[l.key]; !ok {
			t.Errorf("%s is not documented", l.key)
		}
	})
}

func TestTheReferenceFileShowsTheDefaults(t *testing.T) {
	for name, text := range map[string]string{"live keys": Reference, "all keys": uncommented()} {
		t.Run(name, func(t *testing.T) {
			env := machine(map[string]string{"TURN_PASSWORD": "correct horse"}, nil)
			got, findings := LoadBytes("turngate.toml", []byte(text), env)
			if len(findings) > 0 {
				t.Fatalf("findings:\n%v", findings)
			}
			want, _ := LoadBytes("turngate.toml", nil, env)
			got.TURN.User, got.TURN.Database = nil, nil // what is only an example
			if changes := Changes(want, got); len(changes) > 0 {
				t.Errorf("the file differs from an empty one:\n%s", cmp.Diff(nil, changes))
			}
		})
	}
}

func TestTheReferenceFileSaysWhatNeedsARestart(t *testing.T) {
	lines := strings.Split(uncommented(), "\n")
	pos, _ := scan(uncommented())
	walk(reflect.ValueOf(base()).Elem(), "", byIndex, func(l leaf) {
		if l.reload != Live && l.reload != Restart {
			t.Errorf("%s: reload class %q", l.key, l.reload)
		}
		n, ok := pos[l.key]
		if !ok {
			return // a list of tables
		}
		doc := ""
		for i := n - 2; i >= 0 && strings.HasPrefix(lines[i], "# "); i-- {
			doc += lines[i]
		}
		if got := strings.Contains(doc, "(restart)"); got != (l.reload == Restart) {
			t.Errorf("%s: documented as restart: %v, tagged %q", l.key, got, l.reload)
		}
	})
}
