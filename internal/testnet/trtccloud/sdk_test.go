package trtccloud_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/turngate/turngate/internal/testnet/browser"
	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

// The SDKs call the cloud directly here, without turngate between: what fails
// here is the cloud's or the harness's fault.

func TestSDKsCallTheCloud(t *testing.T) {
	cloud := trtccloud.Start(t)
	cert, key := cloud.Issue("relay.test", "127.0.0.1")
	relay := browser.StartCoturn(t, cert, key)
	b := startBrowser(t, cloud)

	direct := trtccloud.Gateway{Websocket: "wss://signaling.rtc.qq.com/", Logger: "https://yun.tim.qq.com"}
	turn := func(urls ...string) trtccloud.Gateway {
		g := direct
		g.Policy = "relay"
		for _, u := range urls {
			g.TURN = append(g.TURN, trtccloud.TURNServer{URL: u, Username: relay.User, Credential: relay.Password})
		}
		return g
	}
	plain, tls := relay.Plain.String(), relay.TLS.String()

	for _, tc := range []struct {
		name    string
		run     func(*testing.T, *browser.Browser, *trtccloud.Cloud, trtccloud.Gateway) trtccloud.Result
		gateway trtccloud.Gateway
		hosts   []string
		relay   string // the relay protocol; "" is a direct call
	}{
		{"v5 finds signaling by the scheduler", trtccloud.RunV5Call, trtccloud.Gateway{}, []string{
			"backup.rtc.qq.com", "main.rtc.qq.com", "schedule.cloud-rtc.com", "schedule.cloud-rtc.net", "yun.tim.qq.com"}, ""},
		{"v5 takes a websocketProxy and TURN over UDP", trtccloud.RunV5Call, turn(plain), []string{
			"signaling.rtc.qq.com", "yun.tim.qq.com"}, "udp"},
		{"v5 takes TURN over TLS", trtccloud.RunV5Call, turn("turns:" + tls + "?transport=tcp"), []string{
			"signaling.rtc.qq.com", "yun.tim.qq.com"}, "tls"},
		{"v4 finds signaling by the scheduler", trtccloud.RunV4Call, trtccloud.Gateway{}, []string{
			"backup.rtc.qq.com", "main.rtc.qq.com", "schedule.cloud-rtc.com", "schedule.rtc.qcloud.com", "yun.tim.qq.com"}, ""},
		{"v4 takes a websocketProxy and TURN over TCP", trtccloud.RunV4Call, turn(plain + "?transport=tcp"), []string{
			"signaling.rtc.qq.com", "yun.tim.qq.com"}, "tcp"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(cloud.State().Requests)
			r := tc.run(t, b, cloud, tc.gateway)
			if diff := cmp.Diff(tc.hosts, r.Hosts); diff != "" {
				t.Errorf("hosts the page asked (-want +got):\n%s", diff)
			}
			if err := r.Relayed(tc.relay); (tc.relay != "") != (err == nil) {
				t.Errorf("relayed over %q: %v", tc.relay, err)
			}
			for _, req := range r.State.Requests[before:] {
				if c := req.Header.Get("Cookie"); c != "" {
					t.Errorf("%s carries the cookie %q", req.Path, c)
				}
				if req.Header.Get("Upgrade") != "" && !strings.Contains(req.Query, "userSig="+trtccloud.UserSig) {
					t.Errorf("query %q does not carry the user's signature byte for byte", req.Query)
				}
			}
		})
	}
}

// TestSchedulerHandsOutTURN shows that an answer of the scheduler alone makes
// both SDKs relay, which turngate's one-parameter mode rests on.
func TestSchedulerHandsOutTURN(t *testing.T) {
	cloud := trtccloud.Start(t)
	cert, key := cloud.Issue("relay.test", "127.0.0.1")
	relay := browser.StartCoturn(t, cert, key)
	b := startBrowser(t, cloud)

	sched := trtccloud.DefaultSchedule()
	sched.ICETransportPolicy = "relay"
	sched.ICEServers = []trtccloud.ICEServer{{
		URLs:     []string{"turn:" + relay.Plain.String() + "?transport=udp", "turns:" + relay.TLS.String() + "?transport=tcp"},
		Username: relay.User, Credential: relay.Password,
	}}
	cloud.SetSchedule(sched)
	for name, run := range map[string]func(*testing.T, *browser.Browser, *trtccloud.Cloud, trtccloud.Gateway) trtccloud.Result{
		"v5": trtccloud.RunV5Call, "v4": trtccloud.RunV4Call,
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, b, cloud, trtccloud.Gateway{})
			if err := r.Relayed(""); err != nil {
				t.Error(err)
			}
		})
	}
}

func startBrowser(t *testing.T, cloud *trtccloud.Cloud) *browser.Browser {
	t.Helper()
	hosts := map[string]string{}
	for _, name := range trtccloud.Names {
		hosts[name] = cloud.Addr().String()
	}
	return browser.Start(t, browser.Options{Trust: []*x509.Certificate{cloud.CA()}, Hosts: hosts})
}
