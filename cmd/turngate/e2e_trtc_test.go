package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/turngate/turngate/internal/testnet/browser"
	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

type runCall func(*testing.T, *browser.Browser, *trtccloud.Cloud, trtccloud.Gateway) trtccloud.Result

// TestSDKsCallThroughTurngate makes whole calls with the real SDKs: join,
// publish a camera through the relay, lose the signaling and come back, report,
// leave. The browser may reach turngate only.
func TestSDKsCallThroughTurngate(t *testing.T) {
	s := setStage(t)
	// What clients configure, in the forms of the vendor's tutorial.
	documented := func(urls ...string) trtccloud.Gateway {
		g := trtccloud.Gateway{
			Websocket: "wss://" + s.host + "/ws/", Logger: "https://" + s.host + "/logger/", Schedule: s.host + "/schedule",
			Policy: "relay",
		}
		for _, u := range urls {
			g.TURN = append(g.TURN, trtccloud.TURNServer{URL: s.turnURLs().Replace(u), Username: s.gate.user, Credential: s.gate.password})
		}
		return g
	}
	shortPaths := documented("127.0.0.1:UDP")
	shortPaths.Websocket, shortPaths.Logger = "wss://"+s.host+"/ws", "https://"+s.host+"/logger"
	international := documented("127.0.0.1:UDP")
	international.SDKAppID = 1300000000
	scheduled := trtccloud.Gateway{Schedule: s.host + "/schedule", Logger: "https://" + s.host + "/logger"}
	unified := trtccloud.Gateway{Unified: s.host + "/u"}

	for _, tc := range []struct {
		name    string
		run     runCall
		gateway trtccloud.Gateway
		relay   string // the relay protocol, "" is any
		logHost string
	}{
		{"v5 with a TURN array", trtccloud.RunV5Call, documented("127.0.0.1:UDP", "127.0.0.1:TCP?transport=tcp", "turns:127.0.0.1:HTTPS?transport=tcp"), "", "yun.tim.qq.com"},
		{"v5 with the https port only", trtccloud.RunV5Call, documented("turns:" + proxyHost + ":HTTPS?transport=tcp"), "tls", "yun.tim.qq.com"},
		{"v5 with paths without a final slash", trtccloud.RunV5Call, shortPaths, "udp", "yun.tim.qq.com"},
		{"v5 with an international application", trtccloud.RunV5Call, international, "udp", "apisgp.my-imcloud.com"},
		{"v5 with unifiedProxy alone", trtccloud.RunV5Call, unified, "", "yun.tim.qq.com"},
		{"v5 with scheduleProxy and loggerProxy", trtccloud.RunV5Call, scheduled, "", "yun.tim.qq.com"},
		{"v4 with a TURN array", trtccloud.RunV4Call, documented("127.0.0.1:UDP", "127.0.0.1:TCP?transport=tcp", "127.0.0.1:HTTPS?transport=tcp"), "", "yun.tim.qq.com"},
		{"v4 with the https port only", trtccloud.RunV4Call, documented("127.0.0.1:HTTPS?transport=tcp"), "tcp", "yun.tim.qq.com"},
		{"v4 with unifiedProxy alone", trtccloud.RunV4Call, unified, "", "yun.tim.qq.com"},
		{"v4 with scheduleProxy and loggerProxy", trtccloud.RunV4Call, scheduled, "", "yun.tim.qq.com"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := s.cloud.State()
			r := tc.run(t, s.browser, s.cloud, tc.gateway)
			if diff := cmp.Diff([]string{s.host}, r.Hosts); diff != "" {
				t.Errorf("hosts the page asked (-want +got):\n%s", diff)
			}
			if err := r.Relayed(tc.relay); err != nil {
				t.Error(err)
			}
			app := r.State.Joins[len(r.State.Joins)-1].SDKAppID
			for _, rep := range r.State.Reports[len(before.Reports):] {
				// The page of the case before may still be closing its books.
				if rep.SDKAppID == app && rep.Host != tc.logHost {
					t.Errorf("report %s went to %s, want %s", rep.CmdType, rep.Host, tc.logHost)
				}
			}
			checkForwarded(t, r.State.Requests[len(before.Requests):])
		})
	}
}

// checkForwarded checks how turngate passed requests on. That Host and server
// name agree and are the cloud's is the cloud's own condition.
func checkForwarded(t *testing.T, requests []trtccloud.Request) {
	t.Helper()
	for _, r := range requests {
		for _, name := range []string{"Cookie", "Authorization"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("%s %s: the cloud sees %s %q", r.Method, r.Path, name, v)
			}
		}
		if xff := r.Header.Values("X-Forwarded-For"); !slices.Equal(xff, []string{"127.0.0.1"}) {
			t.Errorf("%s %s: X-Forwarded-For is %q, want the client alone", r.Method, r.Path, xff)
		}
		if r.Header.Get("Upgrade") != "" && !strings.Contains(r.Query, "userSig="+trtccloud.UserSig) {
			t.Errorf("%s: query %q does not carry the user's signature byte for byte", r.Path, r.Query)
		}
		if strings.Contains(r.Path, "//") {
			t.Errorf("%s %s: a double slash reached the cloud", r.Method, r.Path)
		}
	}
}

// TestSDKStaysInsideDuringASignalingOutage has the cloud refuse signaling for a
// while. After three failures trtc-sdk-v5 asks the scheduler although it has a
// websocketProxy, at its public names unless there is a scheduleProxy, and then
// believes what the answer says of logs and signaling.
func TestSDKStaysInsideDuringASignalingOutage(t *testing.T) {
	s := setStage(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("not within two minutes"))
	defer cancel()
	wait := func(what string, ok func(trtccloud.State) bool) {
		t.Helper()
		if _, err := s.cloud.Wait(ctx, what, ok); err != nil {
			t.Fatal(err)
		}
	}
	g := trtccloud.Gateway{Websocket: "wss://" + s.host + "/ws/", Logger: "https://" + s.host + "/logger", Schedule: s.host + "/schedule"}
	page := s.browser.OpenV5(t)
	if err := page.Call(ctx, nil, "call.enter", g.V5Args()); err != nil {
		t.Fatal(err)
	}
	before := s.cloud.State()
	s.cloud.Refuse(true)
	if n := s.cloud.Cut(); n != 1 {
		t.Fatalf("%d signaling connections to cut, want 1", n)
	}
	wait("a question to the scheduler", func(st trtccloud.State) bool { return len(st.Schedules) > len(before.Schedules) })
	refused := len(s.cloud.State().Signals()) - len(before.Signals())
	if refused < 3 {
		t.Errorf("%d handshakes before the scheduler was asked, want at least 3", refused)
	}
	s.cloud.Refuse(false)
	wait("the reconnection", func(st trtccloud.State) bool { return len(st.Reconnects) > 0 })
	if err := page.Call(ctx, nil, "call.leave"); err != nil {
		t.Fatal(err)
	}
	wait("the final report", func(st trtccloud.State) bool { return len(st.ReportsOf("jssdk_new_endreport")) > 0 })
	if diff := cmp.Diff([]string{s.host}, page.Hosts()); diff != "" {
		t.Errorf("hosts the page asked (-want +got):\n%s", diff)
	}
}

// TestReportsOutliveALogOutage has the log collector answer 503, with the CORS
// header that makes it readable. trtc-sdk-v5 drops a report whose answer it can
// read, so turngate must not let it.
func TestReportsOutliveALogOutage(t *testing.T) {
	s := setStage(t)
	s.cloud.SetLogStatus(http.StatusServiceUnavailable)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("not within two minutes"))
	defer cancel()
	g := trtccloud.Gateway{Websocket: "wss://" + s.host + "/ws/", Logger: "https://" + s.host + "/logger/"}
	page := s.browser.OpenV5(t)
	if err := page.Call(ctx, nil, "call.enter", g.V5Args()); err != nil {
		t.Fatal(err)
	}
	refused, err := s.cloud.Wait(ctx, "a refused report", func(st trtccloud.State) bool { return len(st.Reports) > 0 })
	if err != nil {
		t.Fatal(err)
	}
	lost := refused.Reports[0]
	s.cloud.SetLogStatus(0)
	_, err = s.cloud.Wait(ctx, "the same report again", func(st trtccloud.State) bool {
		return slices.ContainsFunc(st.ReportsOf(lost.CmdType), func(r trtccloud.Report) bool { return bytes.Contains(r.Body, logLine(lost.Body)) })
	})
	if err != nil {
		t.Error(err)
	}
}

// logLine is the part of a report that stays the same when it is sent again.
func logLine(body []byte) []byte {
	_, line, ok := bytes.Cut(body, []byte(`"log":`))
	if !ok {
		return body
	}
	return line[:min(len(line), 120)]
}
