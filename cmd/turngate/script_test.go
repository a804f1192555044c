package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/turngate/turngate/internal/admin"
	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"turngate": main})
}

// TestScripts runs the program as an operator does: testdata/script/*.txtar.
//
// Each script finds free ports in $HTTPS, $TURN, $OTHER and $ANOTHER, and everything that
// turngate writes goes below $WORK. Commands beside those of testscript:
//
//	fill FILE...                 put the variables into files, as $NAME
//	exits CODE PROGRAM ARGS...   run it, and it must end with CODE
//	up                           wait until the turngate of $SOCKET answers
//	signal NAME                  send TERM, HUP or INT to it
//	draining                     wait until it says that it drains
//	get STATUS PATH              ask it over HTTPS
//	allocate USER PASSWORD       make a relay, which is held until the script ends
//	listen PORT                  take a TCP port
//	certificate CERT KEY         write a new pair of files
func TestScripts(t *testing.T) { runScripts(t, "testdata/script") }

// TestScriptsInANetwork runs what takes the ports that a start without a file
// takes, in a network of its own.
func TestScriptsInANetwork(t *testing.T) {
	testnet.Need(t, "netns")
	if _, err := os.Stat(defaultConfig); err == nil {
		testnet.Lacks(t, "netns", "this host has a "+defaultConfig+", so there is no start without a file")
	}
	runScripts(t, "testdata/script-netns")
}

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"HTTPS", "TURN", "OTHER", "ANOTHER"} {
				e.Setenv(name, fmt.Sprint(testnet.FreePort(t)))
			}
			e.Setenv("HOME", e.WorkDir+"/home")
			e.Setenv("STATE_DIRECTORY", e.WorkDir+"/state")
			e.Setenv("RUNTIME_DIRECTORY", e.WorkDir+"/run")
			e.Setenv("SOCKET", e.WorkDir+"/run/admin.sock")
			e.Setenv("TURNGATE_CONFIG", "")
			e.Values[testingT{}] = t
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fill":        scriptFill,
			"exits":       scriptExits,
			"up":          scriptUp,
			"signal":      scriptSignal,
			"draining":    scriptDraining,
			"get":         scriptGet,
			"allocate":    scriptAllocate,
			"listen":      scriptListen,
			"certificate": scriptCertificate,
		},
	})
}

func arguments(ts *testscript.TestScript, neg bool, args []string, n int) {
	if neg || len(args) != n {
		ts.Fatalf("want %d arguments and no !", n)
	}
}

func scriptFill(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// poll asks until it is told to stop: what it waits for happens in another
// process, which announces it nowhere.
func poll(ts *testscript.TestScript, what string, done func() bool) {
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s: not within two minutes", what)
		}
	}
}

func status(ts *testscript.TestScript) (Status, error) {
	var s Status
	c, err := admin.Dial(ts.Getenv("SOCKET"))
	if err == nil {
		err = c.Do(context.Background(), "GET", admin.PathStatus, nil, &s)
	}
	return s, err
}

func scriptUp(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 0)
	poll(ts, "turngate answers", func() bool {
		_, err := status(ts)
		return err == nil
	})
}

func scriptDraining(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 0)
	poll(ts, "turngate drains", func() bool {
		s, err := status(ts)
		ts.Check(err)
		return s.Draining
	})
}

func scriptSignal(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1)
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "INT": syscall.SIGINT}
	s, err := status(ts)
	ts.Check(err)
	before := s.LastReload.At
	ts.Check(syscall.Kill(s.PID, signals[args[0]]))
	if args[0] == "HUP" {
		poll(ts, "turngate has reloaded", func() bool {
			s, err := status(ts)
			ts.Check(err)
			return s.LastReload.At.After(before)
		})
	}
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	res, err := client.Get("https://127.0.0.1:" + ts.Getenv("HTTPS") + args[1])
	ts.Check(err)
	res.Body.Close()
	if fmt.Sprint(res.StatusCode) != args[0] {
		ts.Fatalf("%s: got %d, want %s", args[1], res.StatusCode, args[0])
	}
}

func scriptAllocate(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := tc.Dial(ctx, "udp", "127.0.0.1:"+ts.Getenv("TURN"), tc.Auth{User: args[0], Password: args[1]})
	ts.Check(err)
	ts.Defer(func() { c.Close() })
	_, err = c.Allocate(ctx)
	ts.Check(err)
}

func scriptListen(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1)
	l, err := net.Listen("tcp", "127.0.0.1:"+args[0])
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}

func scriptCertificate(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2)
	t := ts.Value(testingT{}).(testing.TB)
	cert := testnet.NewCA(t, "an authority").Issue(t, "proxy.example.com")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	ts.Check(err)
	var chain strings.Builder
	for _, der := range cert.Certificate {
		ts.Check(pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(chain.String()), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
}

type testingT struct{} // key of the test in a script's values
