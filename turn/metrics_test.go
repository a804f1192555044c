package turn_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

// series lists every series of the server as name{label=value,...}.
func series(t testing.TB, s *turn.Server) (all []string) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(s.Collectors()...)
	families, err := r.Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += fmt.Sprintf("%s=%s,", l.GetName(), l.GetValue())
			}
			all = append(all, f.GetName()+"{"+labels+"}")
		}
	}
	return all
}

// TestStrangersAddNoSeries sends names, realms, methods and attributes of its
// own choice, and counts what Prometheus would have to keep.
func TestStrangersAddNoSeries(t *testing.T) {
	s, addr := start(t, twoUsers)
	c := site{server: s, network: "udp", addr: addr}.dial(t)
	ask := func(i int) {
		must(t, c.Learn(within(t)))
		c.SetAuth(tc.Auth{User: fmt.Sprintf("stranger%d", i), Password: "x"})
		for _, method := range []uint16{tc.MethodAllocate, tc.MethodRefresh, tc.MethodCreatePermission, tc.MethodChannelBind} {
			b := tc.NewBuilder(method, tc.ClassRequest).Add(tc.Bytes(uint16(0x4000+i), nil))
			c.Sign(b)
			raw(t, c, b)
		}
		must(t, c.SendRaw(within(t), tc.NewBuilder(uint16(0x100+i), tc.ClassRequest).Bytes()))
		must(t, c.SendRaw(within(t), []byte(fmt.Sprintf("GET /%d", i))))
		must(t, errOnly(c.Binding(within(t))))
	}
	ask(0)
	before := series(t, s)
	for i := range 50 {
		ask(1 + i)
	}
	after := series(t, s)
	if len(after) != len(before) {
		t.Errorf("%d series, %d before strangers had their say:\n%s", len(after), len(before), strings.Join(after, "\n"))
	}
	for _, name := range after {
		if strings.Contains(name, "stranger") {
			t.Errorf("a stranger's name is in %s", name)
		}
	}
}

// TestEveryDropReasonIsThereFromTheStart, or an alert misses the first of its
// kind.
func TestEveryDropReasonIsThereFromTheStart(t *testing.T) {
	s, _ := start(t, nil)
	have := strings.Join(series(t, s), "\n")
	entries, err := os.ReadDir(".")
	must(t, err)
	found := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		text, err := os.ReadFile(e.Name())
		must(t, err)
		for _, m := range regexp.MustCompile(`metrics\.dropped\.WithLabelValues\("([^"]+)"\)`).FindAllStringSubmatch(string(text), -1) {
			found++
			if !strings.Contains(have, "turngate_turn_dropped_total{reason="+m[1]+",}") {
				t.Errorf("%s counts the reason %q, which is not there from the start (see dropReasons)", e.Name(), m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("found %d reasons only: the test does not see the sources", found)
	}
}
