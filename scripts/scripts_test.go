// Package scripts holds no program: these tests run what is handed out beside
// the binary through the tools that will read it.
package scripts

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tool runs a program and returns all that it printed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestTheUnitIsHardened(t *testing.T) {
	testnet.Need(t, "systemd")
	out := tool(t, "systemd-analyze", "security", "--offline=true", "--threshold=20", "packaging/turngate.service")
	m := regexp.MustCompile(`Overall exposure level for turngate.service: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("no score in:\n%s", out)
	}
	if score, err := strconv.ParseFloat(m[1], 64); err != nil || score > 2 {
		t.Errorf("exposure: got %s, want at most 2.0\n%s", m[1], out)
	}
}

// systemd finds nothing to say about the units, with and without the drop-in,
// when the program stands where they expect it.
func TestUnitsAreVerified(t *testing.T) {
	testnet.Need(t, "systemd")
	for _, c := range []struct{ name, unit, dropIn string }{
		{"the unit", "packaging/turngate.service", ""},
		{"with the kernel packet path", "packaging/turngate.service", "packaging/kernel-path.conf"},
		{"of EL7", "packaging/turngate-el7.service", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			// Programs that the units name are not on this machine.
			text := strings.NewReplacer("/usr/bin/turngate", "/bin/true", "/sbin/sysctl", "/bin/true", "man:turngate.toml(5)", "", "man:turngate(8)", "")
			write := func(name, from string) {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text.Replace(read(t, from))), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("turngate.service", c.unit)
			if c.dropIn != "" {
				write("turngate.service.d/kernel-path.conf", c.dropIn)
			}
			out := tool(t, "systemd-analyze", "verify", "--man=no", filepath.Join(dir, "turngate.service"))
			for line := range strings.Lines(out) {
				if strings.Contains(line, dir) || strings.Contains(line, "turngate.service") {
					t.Errorf("systemd-analyze verify: %s", line)
				}
			}
		})
	}
}

// The order of the drain and of the unit's patience.
func TestTheUnitWaitsForTheDrain(t *testing.T) {
	m := regexp.MustCompile(`(?m)^turn = "([0-9]+)m"$`).FindStringSubmatch(read(t, "../config/turngate.toml"))
	if m == nil {
		t.Fatal("drain.turn is not found in the reference file")
	}
	drain, _ := strconv.Atoi(m[1])
	for _, unit := range []string{"packaging/turngate.service", "packaging/turngate-el7.service"} {
		m := regexp.MustCompile(`(?m)^TimeoutStopSec=([0-9]+)min$`).FindStringSubmatch(read(t, unit))
		if m == nil {
			t.Errorf("%s: no TimeoutStopSec in minutes", unit)
			continue
		}
		if patience, _ := strconv.Atoi(m[1]); patience <= drain {
			t.Errorf("%s: TimeoutStopSec is %d minutes, a drain takes %d", unit, patience, drain)
		}
	}
}

// Packages know the user that the system users file would make.
func TestSysusersAcceptsTheUser(t *testing.T) {
	testnet.Need(t, "systemd")
	root := t.TempDir()
	file, err := filepath.Abs("packaging/sysusers.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "systemd-sysusers", "--root="+root, file)
	if passwd := read(t, filepath.Join(root, "etc/passwd")); !regexp.MustCompile(`(?m)^turngate:.*:/var/lib/turngate:/usr/sbin/nologin$`).MatchString(passwd) {
		t.Errorf("passwd: %s", passwd)
	}
}

func TestFirewalldServiceHasThePortsOfTheDefaults(t *testing.T) {
	var service struct {
		Port []struct {
			Protocol string `xml:"protocol,attr"`
			Port     string `xml:"port,attr"`
		} `xml:"port"`
	}
	if err := xml.Unmarshal([]byte(read(t, "packaging/firewalld.xml")), &service); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range service.Port {
		got = append(got, p.Port+"/"+p.Protocol)
	}
	if want := "443/tcp 3478/tcp 3478/udp"; strings.Join(got, " ") != want {
		t.Errorf("ports: got %v, want %s", got, want)
	}
}

// name of a metric of ours, with what Prometheus adds to histograms.
var metricName = regexp.MustCompile(`turngate_[a-z_]+`)

func documentedMetrics(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(turngate_[a-z_]+)`").FindAllStringSubmatch(read(t, "../docs/metrics.md"), -1) {
		known[m[1]] = true
	}
	if len(known) < 50 {
		t.Fatalf("%d metrics found in docs/metrics.md", len(known))
	}
	return known
}

func checkMetrics(t *testing.T, where, expr string, known map[string]bool) {
	t.Helper()
	for _, name := range metricName.FindAllString(expr, -1) {
		if !known[name] && !known[strings.TrimSuffix(name, "_bucket")] {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
}

func TestAlertRules(t *testing.T) {
	known := documentedMetrics(t)
	rules := read(t, "prometheus/alerts.yaml")
	checkMetrics(t, "alerts.yaml", rules, known)
	alerts, runbooks := strings.Count(rules, "- alert: "), strings.Count(rules, "runbook: ")
	if alerts < 12 || runbooks != alerts {
		t.Errorf("%d alerts with %d runbooks, want at least 12 and one each", alerts, runbooks)
	}
	testnet.Need(t, "promtool")
	if out := tool(t, "promtool", "check", "rules", "prometheus/alerts.yaml"); !strings.Contains(out, strconv.Itoa(alerts)+" rules found") {
		t.Errorf("promtool: %s", out)
	}
	tool(t, "promtool", "test", "rules", "testdata/alerts_test.yaml")
}

type dashboard struct {
	Title  string
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

func TestDashboardQueries(t *testing.T) {
	known := documentedMetrics(t)
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "prometheus/dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	rules := strings.Builder{}
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	queries, ids, taken := 0, map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q: its id %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			queries++
			checkMetrics(t, p.Title, target.Expr, known)
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(target.Expr)
			quoted, err := json.Marshal(expr)
			if err != nil {
				t.Fatal(err)
			}
			rules.WriteString("  - record: query:" + "q" + strconv.Itoa(queries) + "\n    expr: " + string(quoted) + "\n")
		}
	}
	testnet.Need(t, "promtool")
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "promtool", "check", "rules", file); !strings.Contains(out, strconv.Itoa(queries)+" rules found") {
		t.Errorf("promtool parses not all of %d queries: %s", queries, out)
	}
}
