package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

// process is a turngate in a process of its own.
type process struct {
	t      *testing.T
	config string
	https  string
	cmd    *exec.Cmd
	log    *bytes.Buffer
	ended  chan struct{}
}

// start starts the program and waits until it serves.
func (b *process) start() {
	b.t.Helper()
	b.log = new(bytes.Buffer)
	b.cmd = exec.Command("turngate", "serve", "--config", b.config)
	b.cmd.Stderr = b.log
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { defer close(ended); _ = cmd.Wait() }(b.cmd, b.ended)
	eventually(b.t, func() string {
		select {
		case <-b.ended:
			b.t.Fatalf("turngate ended:\n%s", b.log)
		default:
		}
		resp, err := b.client().Get("https://" + b.https + "/healthz")
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		return ""
	})
}

// kill ends it as a crash does.
func (b *process) kill() {
	_ = b.cmd.Process.Kill() // SIGKILL
	<-b.ended
}

func (b *process) client() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
}

// The program is killed while reports come in, and again while they are sent: every one that was
// answered arrives, in order, and at most the one on its way at a kill arrives twice.
func TestKilledProcessesLoseNoAnsweredReport(t *testing.T) {
	collector := fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t)) // away
	dir := t.TempDir()
	b := &process{t: t, config: filepath.Join(dir, "turngate.toml"), https: fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t))}
	text := fmt.Sprintf(`
external_ip = "127.0.0.1"
state_dir = %q
[https]
listen = [%q]
[turn]
listen = []
[[signaling]]
preset = "trtc"
[[logger]]
preset = "trtc"
upstream = ["http://%s/"]
spool = "16MiB"
[admin]
socket = %q
`, filepath.Join(dir, "state"), b.https, collector, filepath.Join(dir, "admin.sock"))
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.kill()
		if t.Failed() {
			t.Logf("log of the last process:\n%s", b.log)
		}
	})

	// Each client posts one report after the other and notes which were answered.
	const clients = 8
	answered := make([][]string, clients)
	for round := range 3 {
		b.start()
		stop := make(chan struct{})
		var enough, all sync.WaitGroup
		for c := range clients {
			enough.Add(1)
			all.Go(func() {
				client, n := b.client(), 0
				defer func() {
					if n < 5 {
						enough.Done()
					}
				}()
				for {
					select {
					case <-stop:
						return
					default:
					}
					report := fmt.Sprintf("client %d round %d report %03d %s", c, round, n, strings.Repeat("x", n*37%4000))
					resp, err := client.Post("https://"+b.https+"/logger//v5/x?sdkappid=1400000001", "text/plain", strings.NewReader(report))
					if err != nil {
						return
					}
					body, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if err != nil {
						return
					}
					if resp.StatusCode != 200 || string(body) != "ok" {
						t.Errorf("%s: got %d %q", report[:25], resp.StatusCode, body)
						return
					}
					answered[c] = append(answered[c], report)
					if n++; n == 5 {
						enough.Done()
					}
				}
			})
		}
		enough.Wait()
		b.kill()
		close(stop)
		all.Wait()
	}

	// The collector is back, and turngate is killed while it sends.
	var mu sync.Mutex // guards the fields below
	var arrived []string
	killAt := map[int]bool{7: true, 40: true}
	kills := make(chan struct{})
	ln, err := net.Listen("tcp", collector)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		arrived = append(arrived, string(body))
		kill := killAt[len(arrived)]
		mu.Unlock()
		if kill {
			kills <- struct{}{} // before it is answered
			<-r.Context().Done()
		}
	})}
	go srv.Serve(ln)
	defer srv.Close()
	for range killAt {
		b.start()
		<-kills
		b.kill()
	}
	b.start()

	total := 0
	for _, list := range answered {
		total += len(list)
	}
	if total < 3*5*clients {
		t.Fatalf("only %d reports were answered", total)
	}
	missing := func() (list []string) {
		mu.Lock()
		defer mu.Unlock()
		seen := make(map[string]bool)
		for _, r := range arrived {
			seen[r] = true
		}
		for _, of := range answered {
			for _, r := range of {
				if !seen[r] {
					list = append(list, r[:25])
				}
			}
		}
		return list
	}
	eventually(t, func() string {
		if m := missing(); len(m) > 0 {
			return fmt.Sprintf("%d of %d answered reports are missing, the first: %s", len(m), total, m[0])
		}
		return ""
	})
	mu.Lock()
	defer mu.Unlock()
	count := make(map[string]int)
	twice := 0
	for _, r := range arrived {
		if count[r]++; count[r] > 1 {
			twice++
		}
	}
	if twice != len(killAt) {
		t.Errorf("%d reports came again, want %d: the ones that were not answered at a kill", twice, len(killAt))
	}
	for c, list := range answered {
		last := -1
		for i, r := range list {
			at := slices.Index(arrived, r)
			if at < last {
				t.Errorf("client %d: report %d came before an older one", c, i)
			}
			last = at
		}
	}
	t.Logf("%d reports answered, %d arrived", total, len(arrived))
}
