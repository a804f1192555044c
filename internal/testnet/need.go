// Package testnet holds what tests of several packages need: peers to talk to
// (fake upstreams, a TURN client, a fake TRTC cloud), and the rule by which a
// test may skip when a peer program is missing.
//
// Nothing outside tests imports it.
package testnet

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// peers maps the name of a need to the programs that satisfy it; each of the
// outer list must be present in one of its spellings.
var peers = map[string][][]string{
	"coturn":   {{"turnserver"}, {"turnutils_uclient"}, {"turnutils_peer"}, {"turnutils_stunclient"}},
	"nginx":    {{"nginx"}},
	"chromium": {{"chromium", "chromium-browser", "google-chrome"}},
	"npm":      {{"npm"}},
	"postgres": {{"initdb"}, {"postgres"}},
	"redis":    {{"redis-server"}},

	"tinyproxy":  {{"tinyproxy"}},
	"microsocks": {{"microsocks"}},
	"pebble":     {{"pebble"}},
	"openssl":    {{"openssl"}},

	"clang": {{"clang"}, {"llvm-strip"}},

	"nftables":  {{"nft"}},
	"iptables":  {{"iptables"}, {"ip6tables"}, {"iptables-restore"}},
	"firewalld": {{"firewalld"}, {"firewall-cmd"}, {"firewall-offline-cmd"}, {"dbus-daemon"}},

	"systemd":  {{"systemd-analyze"}, {"systemd-sysusers"}},
	"promtool": {{"promtool"}},
	"helm":     {{"helm"}},

	"keepalived": {{"keepalived"}},
	"logrotate":  {{"logrotate"}},
	"curl":       {{"curl"}, {"unshare"}, {"setpriv"}, {"bash"}},
}

// Need skips the test when the named peer is not on this machine, with the
// reason. When the environment variable TURNGATE_TEST_MUST lists the name,
// the test fails instead: a gate that skips checks nothing.
//
// Known names: coturn, nginx, chromium, npm, postgres, redis, pebble, openssl, tinyproxy, microsocks, systemd, promtool, helm, keepalived, logrotate, curl (with bash and util-linux), netns (root on Linux with ip),
// nftables, iptables, firewalld (with its programs and dbus-daemon), xdp (netns with ethtool, and a kernel with BPF), clang and ipv6 (its loopback).
func Need(t testing.TB, name string) {
	t.Helper()
	if reason := missing(name); reason != "" {
		Lacks(t, name, reason)
	}
}

// Lacks is [Need] for what a test has found out by itself: it skips the test with the reason, or
// fails it when TURNGATE_TEST_MUST lists name.
//
// Names beside those of Need: linux, slow (tests that -short leaves out), newcomer (what
// .ci/newcomer prepares), strictbind (a host that binds only addresses it has), clock (the layout
// of time.Time), and ports (enough of them for a fuzzer).
func Lacks(t testing.TB, name, reason string) {
	t.Helper()
	if Must(name) {
		t.Fatalf("%s: TURNGATE_TEST_MUST names it, but %s", name, reason)
	}
	t.Skipf("%s: %s", name, reason)
}

// Must reports whether TURNGATE_TEST_MUST lists name.
func Must(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("TURNGATE_TEST_MUST"), ","), name)
}

// Program returns the path of the first of the named programs that is
// installed, or "".
func Program(names ...string) string {
	for _, n := range names {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
		// Debian keeps the programs of PostgreSQL's server out of the path.
		if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + n); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	return ""
}

func missing(name string) string {
	if name == "ipv6" {
		l, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			return "this host has no IPv6 loopback"
		}
		l.Close()
		return ""
	}
	switch name {
	case "netns", "xdp":
		if os.Geteuid() != 0 {
			return "network namespaces need root"
		}
		if Program("ip") == "" {
			return "the program ip is not installed"
		}
		if name == "netns" {
			return ""
		}
		if Program("ethtool") == "" {
			return "the program ethtool is not installed"
		}
		if _, err := os.Stat("/proc/sys/kernel/unprivileged_bpf_disabled"); err != nil {
			return "this kernel runs no BPF programs"
		}
		return ""
	}
	needs, ok := peers[name]
	if !ok {
		return "no such need is known"
	}
	for _, spellings := range needs {
		if Program(spellings...) == "" {
			return "the program " + spellings[0] + " is not installed"
		}
	}
	return ""
}
