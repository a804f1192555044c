package main

import (
	"encoding/json"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What strangers send is never in the log as it is, and credentials not at all.
func TestLogHoldsNoSecretAndNoControlByte(t *testing.T) {
	for _, level := range []string{"info", "debug"} {
		t.Run(level, func(t *testing.T) {
			access := filepath.Join(t.TempDir(), "access.log")
			tg := attacked(t, "", fmt.Sprintf("access = %q\n", access))
			if level == "info" {
				tg.level.Set(slog.LevelInfo)
			}
			const secret = "S3CRETVALUE"
			query := "?sdkAppId=1400000001&userId=u&userSig=" + secret + "&token=" + secret + "&" + secret
			fields := "Referer: https://" + secret + "/\r\nCookie: a=" + secret + "\r\nAuthorization: Bearer " + secret + "\r\nProxy-Authorization: Basic " + secret +
				"\r\nSec-WebSocket-Protocol: " + secret + "\r\nX-Token: " + secret + "\r\n"
			form := "sdkAppId=1400000001&userId=u%0a%1b&userSig=" + secret
			var requests []string
			for _, path := range append([]string{"/", "/nowhere/", "/healthz", "/schedule/", "/u/"}, plainPaths...) {
				for _, method := range []string{"GET", "POST", "TRACE"} {
					requests = append(requests, method+" "+path+query+" HTTP/1.1\r\nHost: localhost\r\n"+fields+"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "+strconv.Itoa(len(form))+"\r\n\r\n"+form)
				}
			}
			for _, path := range []string{"/ws/", "/schedule/s1.rtc.test/", "/u/v2/ws", "/schedule/evil.test/", "/logger/", "/ws/%2e%2e/" + secret} {
				requests = append(requests, "GET "+path+query+" HTTP/1.1\r\nHost: localhost\r\n"+fields+upgradeFields+"\r\n")
			}
			for _, wrong := range []string{"?userId=u;userSig=", "?userId=u%26userSig%3D", "%3fuserSig=", ";userSig=", "&userSig=", "%3BuserSig=", "?sdkAppId=1?userSig="} {
				requests = append(requests, "GET /logger/a"+wrong+secret+" HTTP/1.1\r\nHost: localhost\r\n\r\n",
					"GET /ws/a"+wrong+secret+" HTTP/1.1\r\nHost: localhost\r\n"+upgradeFields+"\r\n")
			}
			for _, odd := range []string{"%0a", "%1b%5b2J", "%22", "%09", "%0d%0aX:y", `"`, "\x1b[2J", "\xff", "\t", "\x00"} {
				requests = append(requests,
					"GET /logger/a"+odd+"?"+odd+"&userSig="+secret+" HTTP/1.1\r\nHost: localhost\r\n\r\n",
					"GET /logger/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "+odd+"\r\nReferer: "+odd+secret+"\r\nOrigin: "+odd+"\r\n\r\n",
					"GET /logger/ HTTP/1.1\r\nHost: "+odd+"\r\n\r\n",
					odd+secret+" / HTTP/1.1\r\n\r\n",
					"GET /u/v2/ws?userSig="+secret+"&signalDomain="+odd+" HTTP/1.1\r\nHost: localhost\r\n"+upgradeFields+"\r\n",
				)
			}
			for _, up := range []bool{true, false} {
				if !up { // errors on the way to the upstream name what failed
					tg.CloseConnections()
					tg.SetCertificate(tg.ca.Issue(t, "other.test"))
				}
				for _, request := range requests {
					tg.first(t, request)
				}
			}
			tg.SetCertificate(tg.certificate(t))
			log := tg.logs.String()
			if strings.Contains(log, secret) {
				t.Errorf("the secret is in the log: %s", tg.logs.line(secret))
			}
			if level == "debug" && !strings.Contains(log, "other.test") {
				t.Error("the log does not say why the upstream cannot be reached")
			}
			for line := range strings.Lines(log) {
				if !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %q", line)
				}
				if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Errorf("control byte: %q", line)
				}
			}
			checkAccessLog(t, tg, access, secret, 2*len(requests))
			if lines := strings.Count(log, "\n"); level == "info" && lines > 120 {
				t.Errorf("%d lines in the log for %d requests of strangers", lines, 2*len(requests))
			}
			tg.control(t)
			tg.blameless(t)
		})
	}
}

// checkAccessLog holds what is true of every line of an access log, and that there
// is about one for each request.
func checkAccessLog(t *testing.T, tg *target, name, secret string, requests int) {
	t.Helper()
	var log string
	eventually(t, func() string {
		b, err := os.ReadFile(name)
		if err != nil {
			return err.Error()
		}
		// Requests that net/http refuses by itself never get here.
		if log = string(b); strings.Count(log, "\n") < requests*2/3 {
			return fmt.Sprintf("%d lines for %d requests", strings.Count(log, "\n"), requests)
		}
		return ""
	})
	if strings.Contains(log, secret) {
		i := strings.Index(log, secret)
		t.Errorf("the secret is in the access log: ...%s", log[max(0, i-300):i+20])
	}
	for line := range strings.Lines(log) {
		if !json.Valid([]byte(line)) || !strings.HasSuffix(line, "}\n") {
			t.Errorf("no line of JSON: %q", line)
		}
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("a byte that is not printable ASCII: %q", line)
		}
	}
}

// A library that logs by itself does so through our log.
func TestLibrariesLogThroughOurs(t *testing.T) {
	defer func(flags int) {
		stdlog.SetFlags(flags)
		stdlog.SetOutput(os.Stderr)
	}(stdlog.Flags())
	logs := &logBuffer{}
	adoptLibraries(slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	stdlog.Print("received \x1b[2J\nsecond line")
	if got := logs.String(); strings.Count(got, "\n") != 1 || strings.Contains(got, "\x1b") || !strings.Contains(got, `"level":"DEBUG"`) {
		t.Errorf("got %q, want one escaped line at Debug", got)
	}
}
