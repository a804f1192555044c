package doctor

import (
	"runtime/debug"
	"testing"
)

func TestAdvisoriesAreComparedWithTheBuild(t *testing.T) {
	list := []Advisory{{ID: "A", Module: "example.com/m", Fixed: "v1.10.2"}, {ID: "B", Module: "example.com/never"}}
	for _, tt := range []struct {
		name string
		dep  debug.Module
		want string
	}{
		{"older", debug.Module{Path: "example.com/m", Version: "v1.9.9"}, "A"},
		{"older by the last number", debug.Module{Path: "example.com/m", Version: "v1.10.1"}, "A"},
		{"a candidate of the good one", debug.Module{Path: "example.com/m", Version: "v1.10.2-rc.1"}, "A"},
		{"a commit before the first release", debug.Module{Path: "example.com/m", Version: "v0.0.0-20260101000000-abcdefabcdef"}, "A"},
		{"the good one", debug.Module{Path: "example.com/m", Version: "v1.10.2"}, ""},
		{"the good one, odd", debug.Module{Path: "example.com/m", Version: "v1.10.2+incompatible"}, ""},
		{"newer", debug.Module{Path: "example.com/m", Version: "v2.0.0"}, ""},
		{"another module", debug.Module{Path: "example.com/m/v2", Version: "v1.0.0"}, ""},
		{"replaced by a good one", debug.Module{Path: "example.com/m", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/m", Version: "v1.11.0"}}, ""},
		{"replaced by a fork", debug.Module{Path: "example.com/m", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.0.0"}}, ""},
		{"never repaired", debug.Module{Path: "example.com/never", Version: "v9.9.9"}, "B"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			for _, a := range Known([]*debug.Module{&tt.dep}, list) {
				got += a.ID
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
