package trtccloud_test

import (
	"crypto/x509"
	"net/netip"
	"testing"

	"github.com/turngate/turngate/internal/testnet/browser"
	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

// The SDKs call the cloud directly here, without any proxy between: what fails
// here is the cloud's or the harness's fault.

func TestSDKsCallTheCloud(t *testing.T) {
	cloud := trtccloud.Start(t)
	b := startBrowser(t, cloud)
	for _, tc := range []struct {
		name    string
		run     func(*testing.T, *browser.Browser, *trtccloud.Cloud, trtccloud.Gateway) trtccloud.Result
		gateway trtccloud.Gateway
	}{
		{"v5 finds signaling by the scheduler", trtccloud.RunV5Call, trtccloud.Gateway{}},
		{"v5 takes a websocketProxy", trtccloud.RunV5Call, trtccloud.Gateway{Websocket: "wss://signaling.rtc.qq.com/", Logger: "https://yun.tim.qq.com"}},
		{"v4 finds signaling by the scheduler", trtccloud.RunV4Call, trtccloud.Gateway{}},
		{"v4 takes a websocketProxy", trtccloud.RunV4Call, trtccloud.Gateway{Websocket: "wss://signaling.rtc.qq.com/", Logger: "https://yun.tim.qq.com"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := tc.run(t, b, cloud, tc.gateway)
			t.Logf("hosts %q", r.Hosts)
			t.Logf("events %v", r.Events)
			t.Logf("connections %+v", r.Connections)
			t.Logf("cloud: %s", r.State.Summary())
		})
	}
}

func startBrowser(t *testing.T, cloud *trtccloud.Cloud) *browser.Browser {
	t.Helper()
	hosts := map[string]string{}
	for _, name := range trtccloud.Names {
		hosts[name] = netip.AddrPort(cloud.Addr()).String()
	}
	return browser.Start(t, browser.Options{Trust: []*x509.Certificate{cloud.CA()}, Hosts: hosts})
}
