package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

const metricsDoc = "../../docs/metrics.md"

const metricsHead = `# Metrics

Every metric of turngate, in Prometheus' text format at ` + "`/metrics`" + ` of the admin socket and of ` + "`admin.metrics`" + `. Beside
them stand those of the Go runtime and of the process (` + "`go_*`, `process_*`" + `). Values of labels are words of ours, or
routes, listeners, upstreams and certificates from the configuration: no stranger chooses one. Histograms have ` + "`_bucket`, `_sum`" + `
and ` + "`_count`" + `. What to look at first stands in [operations.md](operations.md).

This file is made from the program: ` + "`go test ./cmd/turngate -run TestEveryMetricIsDocumented -update`" + `.

| metric | labels | what it says |
| --- | --- | --- |
`

// The names that describe a metric, as Desc.String writes them.
var descForm = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)"(?:, unit: "[^"]*")?, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func TestEveryMetricIsDocumented(t *testing.T) {
	g := startGate(t, "")
	rows := make(map[string]string)
	ch := make(chan *prometheus.Desc)
	go func() { g.registry.Describe(ch); close(ch) }()
	for d := range ch {
		m := descForm.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("the description of a metric is written in another way: %s", d)
		}
		name, help := m[1], m[2]
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		if !strings.HasPrefix(name, "turngate_") || help == "" {
			t.Errorf("%s: want a name that begins with turngate_, and a help text", name)
		}
		var labels []string
		for part := range strings.SplitSeq(m[3]+","+m[4], ",") {
			label, _, _ := strings.Cut(part, "=")
			if label = strings.Trim(label, "{} "); label != "" {
				labels = append(labels, "`"+label+"`")
			}
		}
		slices.Sort(labels)
		help = strings.NewReplacer("|", "\\|", `\"`, `"`).Replace(help)
		rows[name] = fmt.Sprintf("| `%s` | %s | %s |\n", name, strings.Join(labels, " "), help)
	}
	var b strings.Builder
	b.WriteString(metricsHead)
	names := make([]string, 0, len(rows))
	for name := range rows {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.WriteString(rows[name])
	}
	if *update {
		if err := os.WriteFile(metricsDoc, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), b.String()); diff != "" {
		t.Errorf("docs/metrics.md differs from what the program has (-have +want; -update rewrites it):\n%s", diff)
	}
}
