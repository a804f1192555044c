package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A proxy is a running process, or one that drive named.
type proxy struct {
	name    string
	addr    string // host:port of wss and https
	pid     int
	cmd     *exec.Cmd // nil: not ours
	control string    // turngate's admin socket
}

// A recipe says how to start a proxy. The files it writes are in dir.
type recipe struct {
	name    string
	binary  string
	version []string
	prepare func(dir, addr, upstream string) (args []string, err error)
}

// recipes are what is compared. All serve wss on /ws/ and reports on /logger/
// of one TLS listener with the same ECDSA certificate, and reach the upstream by TLS.
func recipes(turngate string) []recipe {
	return []recipe{
		{"turngate", turngate, []string{"version"}, turngateFiles},
		{"nginx", "nginx", []string{"-v"}, func(dir, addr, upstream string) ([]string, error) {
			return nginxFiles(dir, addr, upstream, false)
		}},
		{"nginx-careful", "nginx", []string{"-v"}, func(dir, addr, upstream string) ([]string, error) {
			return nginxFiles(dir, addr, upstream, true)
		}},
		{"haproxy", "haproxy", []string{"-v"}, haproxyFiles},
	}
}

// turngate with its defaults, but for the limits per address: all clients are one here.
func turngateFiles(dir, addr, upstream string) ([]string, error) {
	turn, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "turngate.toml")
	return []string{"serve", "--config", file}, os.WriteFile(file, fmt.Appendf(nil, `
external_ip = "127.0.0.1"
state_dir = %[1]q
[tls]
cert = "%[2]s/cert.pem"
key = "%[2]s/key.pem"
[https]
listen = [%[3]q]
max_connections_per_address = 0
max_connections = 0
[turn]
listen = [%[4]q]
[[turn.user]]
name = "turn"
password = "not used by anybody"
[upstream]
ca = "%[2]s/ca.pem"
[[signaling]]
path = "/ws/"
upstream = ["https://%[5]s/"]
[[logger]]
path = "/logger/"
upstream = ["https://%[5]s/"]
[admin]
socket = %[6]q
`, dir, filepath.Dir(dir), addr, turn, "localhost:"+portOf(upstream), filepath.Join(dir, "admin.sock")), 0o600)
}

// nginx as the recipe has it: HTTP/1.0 and a new upstream connection for each
// report, no verification of the upstream, its sessions resumed. The careful one keeps upstream
// connections and does towards the upstream what turngate does: it names and verifies it each
// time, over TLS 1.3.
func nginxFiles(dir, addr, upstream string, careful bool) ([]string, error) {
	target, backend, report, verify := "https://"+upstream, "", "", ""
	if careful {
		backend = fmt.Sprintf("upstream backend { server %s; keepalive 64; }", upstream)
		target = "https://backend"
		report = `proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;`
		verify = fmt.Sprintf(`proxy_ssl_verify on; proxy_ssl_trusted_certificate %s/ca.pem; proxy_ssl_server_name on;
  proxy_ssl_name localhost; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;`, filepath.Dir(dir))
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // its files are ours
	}
	file := filepath.Join(dir, "nginx.conf")
	return []string{"-p", dir, "-c", file, "-e", "error.log"}, os.WriteFile(file, fmt.Appendf(nil, `
daemon off; pid nginx.pid; error_log error.log; %[1]s
worker_processes 1; worker_rlimit_nofile 65536;
events { worker_connections 60000; }
http {
  access_log access.log;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  %[2]s
  %[7]s
  server {
    server_name localhost;
    listen %[3]s ssl;
    ssl_certificate %[4]s/cert.pem; ssl_certificate_key %[4]s/key.pem;
    location /ws/ {
      proxy_pass %[5]s/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_read_timeout 1h;
    }
    location /logger/ { proxy_pass %[5]s/; %[6]s }
  }
}
`, user, backend, addr, filepath.Dir(dir), target, report, verify), 0o600)
}

func haproxyFiles(dir, addr, upstream string) ([]string, error) {
	file := filepath.Join(dir, "haproxy.cfg")
	return []string{"-db", "-f", file}, os.WriteFile(file, fmt.Appendf(nil, `
global
  nbthread 1
  maxconn 9000
  ssl-server-verify required
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  http-reuse always
frontend front
  bind %[1]s ssl crt %[2]s/both.pem alpn http/1.1
  default_backend back
backend back
  http-request replace-path /[a-z]+/(.*) /\1
  server one %[3]s ssl verify required ca-file %[2]s/ca.pem sni str(localhost) verifyhost localhost
`, addr, filepath.Dir(dir), upstream), 0o600)
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// start runs a fresh process of a recipe and waits until it serves.
func (b *bench) start(r recipe) (*proxy, error) {
	dir, err := os.MkdirTemp(b.dir, r.name)
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args, err := r.prepare(dir, addr, b.up.addr())
	if err != nil {
		return nil, err
	}
	args = append([]string{r.binary}, args...)
	if b.core >= 0 {
		args = append([]string{"taskset", "-c", strconv.Itoa(b.core)}, args...)
	}
	p := &proxy{name: r.name, addr: addr, control: filepath.Join(dir, "admin.sock")}
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.pid = p.cmd.Process.Pid
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		c, err := b.connect(addr)
		if err == nil {
			c.conn.Close()
			return p, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			p.stop()
			text, _ := os.ReadFile(out.Name())
			return nil, fmt.Errorf("%s does not serve: %w\n%s", r.name, err, text)
		}
	}
}

// stop ends the process at once: nothing of it is needed any more.
func (p *proxy) stop() {
	if p.cmd == nil {
		return
	}
	pids, _ := family(p.pid)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = p.cmd.Wait()
}

// about returns the first line a program says about its version.
func (r recipe) about() string {
	out, err := exec.Command(r.binary, r.version...).CombinedOutput()
	if err != nil {
		return r.name + ": " + err.Error()
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}
