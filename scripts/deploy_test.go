package scripts

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/testnet"
)

// object is what Kubernetes is given, as far as it is looked at here.
type object struct {
	Kind     string
	Metadata struct {
		Name        string
		Annotations map[string]string
	}
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		Replicas       int
		MaxUnavailable any `yaml:"maxUnavailable"`
		Template       struct{ Spec pod }
		pod            `yaml:",inline"`
	}
}

type pod struct {
	HostNetwork bool   `yaml:"hostNetwork"`
	DNSPolicy   string `yaml:"dnsPolicy"`
	Grace       int    `yaml:"terminationGracePeriodSeconds"`
	Affinity    map[string]any
	Containers  []struct {
		Args            []string
		SecurityContext struct {
			ReadOnly     bool `yaml:"readOnlyRootFilesystem"`
			Capabilities struct{ Drop, Add []string }
		} `yaml:"securityContext"`
	}
}

// render returns what the chart makes of some values, by kind.
func render(t *testing.T, set ...string) map[string]object {
	t.Helper()
	testnet.Need(t, "helm")
	args := []string{"template", "site", "helm/turngate", "--kube-version", "1.31.0"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	cmd := exec.Command("helm", args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	objects := map[string]object{}
	d := yaml.NewDecoder(strings.NewReader(string(out)))
	for {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if o.Kind != "" {
			objects[o.Kind] = o
		}
	}
}

func TestChart(t *testing.T) {
	testnet.Need(t, "helm")
	tool(t, "helm", "lint", "--strict", "helm/turngate")

	for _, c := range []struct {
		name   string
		set    []string
		kinds  string
		absent string
	}{
		{"as it is", nil, "DaemonSet Secret Service ServiceAccount PodDisruptionBudget", "Deployment ServiceMonitor Pod"},
		{"replicas", []string{"kind=Deployment"}, "Deployment Secret Service PodDisruptionBudget", "DaemonSet"},
		{"with the operator, and a test", []string{"serviceMonitor.enabled=true", "test.url=https://proxy.example.com/", "test.user=turn",
			"test.passwordFrom.name=turngate", "test.passwordFrom.key=password"}, "ServiceMonitor Pod", ""},
		{"with a configuration elsewhere", []string{"existingConfigSecret=ours", "stateHostPath=/var/lib/turngate", "podDisruptionBudget.enabled=false",
			"serviceAccount.create=false", "tls.secretName="}, "DaemonSet", "Secret PodDisruptionBudget ServiceAccount"},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects := render(t, c.set...)
			for _, k := range strings.Fields(c.kinds) {
				if objects[k].Kind == "" {
					t.Errorf("no %s", k)
				}
			}
			for _, k := range strings.Fields(c.absent) {
				if objects[k].Kind != "" {
					t.Errorf("a %s that was not asked for", k)
				}
			}
			workload, ok := objects["DaemonSet"]
			if !ok {
				workload = objects["Deployment"]
				if workload.Spec.Template.Spec.Affinity == nil {
					t.Error("two replicas may come to one node, where only one gets the ports")
				}
			}
			p := workload.Spec.Template.Spec
			if !p.HostNetwork || p.DNSPolicy != "ClusterFirstWithHostNet" || p.Grace <= 600 {
				t.Errorf("pod: host network %v, DNS %q, %d seconds for a drain of 600", p.HostNetwork, p.DNSPolicy, p.Grace)
			}
			s := p.Containers[0].SecurityContext
			if !s.ReadOnly || strings.Join(s.Capabilities.Drop, " ") != "ALL" || strings.Join(s.Capabilities.Add, " ") != "NET_BIND_SERVICE" {
				t.Errorf("container: %+v", s)
			}
		})
	}
}

// The configuration of the chart is one that turngate takes.
func TestChartConfigurationIsAccepted(t *testing.T) {
	text := render(t)["Secret"].StringData["turngate.toml"]
	env := config.Env{Lookup: func(name string) (string, bool) { return "long enough to be a secret", name == "TURNGATE_SECRET" }}
	if _, findings := config.LoadBytes("turngate.toml", []byte(text), env); findings.HasErrors() || text == "" {
		t.Errorf("%q: %v", text, findings)
	}
}

// helm test is turngate check, with flags that it has.
func TestChartTestIsTheCheck(t *testing.T) {
	args := render(t, "test.url=https://proxy.example.com/", "test.user=turn")["Pod"].Spec.Containers[0].Args
	if got, want := strings.Join(args, " "), "check --from-client=https://proxy.example.com/ --warnings-ok --turn-port=3478 --user=turn"; got != want {
		t.Errorf("arguments: got %q, want %q", got, want)
	}
}

func TestComposeFile(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Build       struct{ Context, Dockerfile string }
			NetworkMode string   `yaml:"network_mode"`
			CapDrop     []string `yaml:"cap_drop"`
			CapAdd      []string `yaml:"cap_add"`
			Grace       string   `yaml:"stop_grace_period"`
			ReadOnly    bool     `yaml:"read_only"`
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "container/compose.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	s := file.Services["turngate"]
	if s.NetworkMode != "host" || !s.ReadOnly || s.Grace != "11m" || strings.Join(s.CapDrop, "") != "ALL" || strings.Join(s.CapAdd, "") != "NET_BIND_SERVICE" {
		t.Errorf("service: %+v", s)
	}
	if _, err := os.Stat(filepath.Join("container", s.Build.Context, s.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
}

func TestKeepalivedReadsItsFile(t *testing.T) {
	testnet.Need(t, "netns")
	testnet.Need(t, "keepalived")
	// The program is not installed here: the rest is what keepalived has to like.
	text := read(t, "keepalived/keepalived.conf")
	if !strings.Contains(text, `"/usr/bin/turngate check --local `) {
		t.Error("the track script is not turngate check")
	}
	file := filepath.Join(t.TempDir(), "keepalived.conf")
	if err := os.WriteFile(file, []byte(strings.Replace(text, "/usr/bin/turngate", "/bin/true", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "unshare", "--net", "sh", "-c", "ip link add eth0 type veth peer name eth1 && ip link set eth0 up && keepalived -t -f "+file)
}
