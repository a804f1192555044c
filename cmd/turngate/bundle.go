package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/doctor/machine"
)

func newBundleCommand(s streams) *cobra.Command {
	var file, socket string
	o := checkOptions{timeout: 20 * time.Second}
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Pack what somebody needs who helps you: configuration without secrets, status, check, log",
		Long: `Packs what somebody needs who helps you into a tar.gz: the effective
configuration, status, metrics, the result of "turngate check", the last lines
of the log, the goroutines, versions and sockets. Passwords, keys and tokens are
not in it, neither are queries of URLs; names and addresses of this network and
of clients are.`,
		Args: usageArgs(cobra.NoArgs),
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", `file to write, "-" for standard output (default: turngate-bundle-TIME.tar.gz)`)
	cmd.Flags().StringVar(&socket, "socket", "", "admin socket of the running turngate (default: that of the configuration)")
	cmd.Flags().BoolVar(&o.local, "local", false, "let the check ask nobody but this host")
	configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		o.socket = socket
		b := newBundle(time.Now())
		b.collect(ctx, s, cmd, &o)
		data, err := b.pack()
		if err != nil {
			return err
		}
		if file == "-" {
			_, err := s.out.Write(data)
			return err
		}
		file = cmp.Or(file, "turngate-bundle-"+b.at.UTC().Format("20060102-150405")+".tar.gz")
		err = writeNew(file, 0o600, func(w io.Writer) error { _, err := w.Write(data); return err })
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s exists already and is left as it is; name another with -o", file)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s: %d files, no password, key or token in them\n", file, len(b.files))
		return nil
	}
	return cmd
}

// bundle is what is packed, in memory until it is clean.
type bundle struct {
	at      time.Time
	files   []bundled
	secrets []string // that must not be in any file
}

type bundled struct {
	name string
	data []byte
}

func newBundle(at time.Time) *bundle { return &bundle{at: at} }

func (b *bundle) add(name string, write func(io.Writer) error) {
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		fmt.Fprintf(&buf, "\n%s: %v\n", name, err)
	}
	b.files = append(b.files, bundled{name, buf.Bytes()})
}

// collect gathers all it can: what cannot be had is a line in its file.
func (b *bundle) collect(ctx context.Context, s streams, cmd *cobra.Command, o *checkOptions) {
	cfg, socket := b.configuration(ctx, configPath(cmd, nil), o.socket)
	b.add("version.txt", func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "turngate %s\n%s %s/%s, %d CPUs\nmade at %s\n", fullVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), b.at.Format(time.RFC3339))
		return err
	})
	b.running(ctx, socket)
	b.add("check.txt", func(w io.Writer) error {
		report, err := o.report(ctx, s, cmd)
		if err != nil {
			return err
		}
		b.add("check.json", report.WriteJSON)
		return report.WriteText(w, false)
	})
	b.system(cfg)
}

// configuration adds the masked configuration and learns what is secret.
func (b *bundle) configuration(ctx context.Context, file, socket string) (cfg *config.Config, admin string) {
	cfg = config.Default()
	var findings config.Findings
	if file == "" {
		file, _ = runningConfig(ctx, cmp.Or(socket, cfg.Admin.Socket), cfg)
	}
	if file != "" {
		cfg, findings = config.Load(file)
	}
	b.add("config.toml", func(w io.Writer) error {
		for _, f := range findings {
			fmt.Fprintf(w, "# %s\n", strings.ReplaceAll(f.String(), "\n", " "))
		}
		if cfg == nil {
			return errors.New("the file has errors and is not shown: it may hold secrets in places that are not known")
		}
		fmt.Fprintf(w, "# effective values of %s\n", cmp.Or(file, "a start without a file"))
		return cfg.WriteTOML(w)
	})
	if cfg == nil {
		return nil, cmp.Or(socket, config.Default().Admin.Socket)
	}
	for _, secret := range withKeptSecret(cfg).Secrets() {
		b.secrets = append(b.secrets, secret.Reveal())
	}
	if made, err := os.ReadFile(cfg.StateDir + "/credential"); err == nil {
		b.secrets = append(b.secrets, strings.TrimSpace(string(made)))
	}
	return cfg, cmp.Or(socket, cfg.Admin.Socket)
}

// running adds what the running turngate tells.
func (b *bundle) running(ctx context.Context, socket string) {
	client, err := admin.Dial(socket)
	if err != nil {
		b.add("status.json", func(io.Writer) error { return err })
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	get := func(name, path string, limit int64) {
		b.add(name, func(w io.Writer) error {
			body, err := client.Get(ctx, path)
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(w, io.LimitReader(body, limit))
			return err
		})
	}
	get("status.json", admin.PathStatus, 4<<20)
	get("metrics.txt", admin.PathMetrics, 16<<20)
	get("goroutines.txt", admin.PathPprof+"goroutine?debug=1", 16<<20)
	get("heap.txt", admin.PathPprof+"heap?debug=1", 16<<20)
	b.add("log.jsonl", func(w io.Writer) error {
		var lines []json.RawMessage
		err := client.Do(ctx, "GET", admin.PathLog, nil, &lines)
		for _, l := range lines {
			fmt.Fprintf(w, "%s\n", l)
		}
		return err
	})
}

// systemFiles say what kind of host it is. None of them is private.
var systemFiles = []string{
	"/etc/os-release", "/proc/version", "/proc/loadavg", "/proc/meminfo", "/proc/net/snmp", "/proc/net/netstat", "/proc/net/softnet_stat",
	"/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/net/ipv4/ip_local_reserved_ports", "/proc/sys/net/core/rmem_max",
	"/proc/sys/net/core/wmem_max", "/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max",
}

func (b *bundle) system(cfg *config.Config) {
	b.add("system.txt", func(w io.Writer) error {
		for _, name := range systemFiles {
			if text, err := os.ReadFile(name); err == nil {
				fmt.Fprintf(w, "== %s\n%s\n", name, text)
			}
		}
		return nil
	})
	b.add("sockets.txt", func(w io.Writer) error {
		sockets, err := machine.This().Sockets()
		for _, s := range sockets {
			if cfg == nil || s.Network == "tcp" || s.Local.Port() < cfg.TURN.MinPort || s.Local.Port() > cfg.TURN.MaxPort {
				fmt.Fprintf(w, "%s %s drops=%d\n", s.Network, s.Local, s.Drops)
			}
		}
		return err
	})
}

// shortest is the length below which a secret is not looked for: replacing every
// "turn" in the text would hide more than a password that everybody knows.
const shortest = 6

var (
	urlQuery = regexp.MustCompile(`([a-z]+://[^\s"'?\\]*)\?[^\s"'\\]*`)
	urlLogin = regexp.MustCompile(`([a-z0-9]+://)[^\s"'/@]+@`)
)

// clean takes out what is secret, wherever it may stand: the writers mask secrets
// already, and this is the second look.
func (b *bundle) clean(data []byte) []byte {
	text := string(data)
	longest := slices.Clone(b.secrets)
	slices.SortFunc(longest, func(x, y string) int { return len(y) - len(x) })
	for _, secret := range longest {
		if len(secret) < shortest {
			continue
		}
		text = strings.ReplaceAll(text, secret, "[secret]")
		if quoted, err := json.Marshal(secret); err == nil {
			text = strings.ReplaceAll(text, string(quoted[1:len(quoted)-1]), "[secret]")
		}
	}
	text = urlLogin.ReplaceAllString(text, "${1}[login]@")
	return []byte(urlQuery.ReplaceAllString(text, "${1}?[query]"))
}

// pack writes the archive.
func (b *bundle) pack() ([]byte, error) {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	archive := tar.NewWriter(zip)
	for _, f := range b.files {
		data := b.clean(f.data)
		err := archive.WriteHeader(&tar.Header{Name: "turngate-bundle/" + f.name, Mode: 0o600, Size: int64(len(data)), ModTime: b.at, Format: tar.FormatPAX})
		if err == nil {
			_, err = archive.Write(data)
		}
		if err != nil {
			return nil, err
		}
	}
	err := errors.Join(archive.Close(), zip.Close())
	return out.Bytes(), err
}
