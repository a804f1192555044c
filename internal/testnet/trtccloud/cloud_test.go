package trtccloud_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"

	"github.com/turngate/turngate/internal/testnet/trtccloud"
)

const query = "?sdkAppId=1400000001&userId=bert&userSig=x*y-z_"

func TestSchedulerAnswersTheForm(t *testing.T) {
	cloud := trtccloud.Start(t)
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	form.WriteField("sdkAppId", "1400000001")
	form.WriteField("userSig", "x*y-z_")
	form.Close()
	res, err := client(cloud).Post("https://schedule.cloud-rtc.com"+trtccloud.SchedulePath, form.FormDataContentType(), &body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got struct {
		Code int
		Data struct {
			Domains []string
			Config  struct{ LoggerDomain string }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Code != 0 || len(got.Data.Domains) != 2 || got.Data.Config.LoggerDomain != "https://yun.tim.qq.com" {
		t.Errorf("answer is %+v, want code 0, two domains and the log domain", got)
	}
	if origin := res.Header.Get("Access-Control-Allow-Origin"); origin != "*" {
		t.Errorf("Access-Control-Allow-Origin is %q, want *", origin)
	}
	if s := cloud.State().Schedules; len(s) != 1 || s[0].Form.Get("userSig") != "x*y-z_" || s[0].Host != "schedule.cloud-rtc.com" {
		t.Errorf("recorded %+v, want the one form", s)
	}
}

func TestLogCollectorRecordsReports(t *testing.T) {
	cloud := trtccloud.Start(t)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(`{"packed":true}`))
	z.Close()
	for _, tc := range []struct {
		name, url, body, want string
		status                int
	}{
		{"a plain report is taken", trtccloud.LogPath + "?random=1&sdkappid=1400000001&cmdtype=jssdk_log", "{}", "{}", 200},
		{"a packed report is unpacked", trtccloud.LogPath + "?random=1&sdkappid=1400000001&cmdtype=jssdk_new_endreport&gzip=1", packed.String(), `{"packed":true}`, 200},
		{"a report without its kind is refused", trtccloud.LogPath + "?sdkappid=1400000001", "{}", "{}", 400},
		{"a double slash is not repaired", "/" + trtccloud.LogPath + "?sdkappid=1400000001&cmdtype=jssdk_log", "{}", "", 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(cloud.State().Reports)
			res, err := client(cloud).Post("https://yun.tim.qq.com"+tc.url, "text/plain", strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != tc.status {
				t.Errorf("status %d, want %d", res.StatusCode, tc.status)
			}
			reports := cloud.State().Reports[before:]
			switch {
			case tc.want == "" && len(reports) != 0:
				t.Errorf("recorded %+v, want nothing", reports)
			case tc.want != "" && (len(reports) != 1 || string(reports[0].Body) != tc.want || reports[0].Status != tc.status):
				t.Errorf("recorded %+v, want %q with %d", reports, tc.want, tc.status)
			}
		})
	}
}

func TestServerNameAndHostMustAgree(t *testing.T) {
	cloud := trtccloud.Start(t)
	for _, tc := range []struct {
		name, sni, host string
		want            int
	}{
		{"the same name is served", "yun.tim.qq.com", "yun.tim.qq.com", 400},
		{"another Host is misdirected", "yun.tim.qq.com", "proxy.example.com", 421},
		{"another server name is misdirected", "signaling.rtc.qq.com", "yun.tim.qq.com", 421},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodPost, "https://"+tc.sni+trtccloud.LogPath, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = tc.host
			res, err := client(cloud).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != tc.want {
				t.Errorf("status %d, want %d", res.StatusCode, tc.want)
			}
		})
	}
}

// TestPublishedVideoIsCounted publishes as v4 does, from Go.
func TestPublishedVideoIsCounted(t *testing.T) {
	cloud := trtccloud.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ws := dial(t, cloud, "/"+query)
	expect(t, ws, 19)
	send(t, ws, "join", 1, map[string]any{"roomId": "7", "trtcRole": 20, "version": "4.15.22"})
	expect(t, ws, 20)

	pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.GracefulClose()
	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "camera", "camera")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pc.AddTrack(track); err != nil {
		t.Fatal(err)
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	send(t, ws, "publish", 2, map[string]any{"type": "offer", "sdp": pc.LocalDescription().SDP})
	var answer struct{ SDP string }
	if err := json.Unmarshal(expect(t, ws, 4098), &answer); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(answer.SDP, "a=ice-lite") {
		t.Error("the answer does not say a=ice-lite")
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer.SDP}); err != nil {
		t.Fatal(err)
	}

	// A key frame (the low bit of the first byte is 0), again and again.
	frame := append([]byte{0x10, 0, 0, 0x9d, 0x01, 0x2a}, make([]byte, 3000)...)
	flowing := make(chan struct{})
	go func() {
		defer close(flowing)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				track.WriteSample(media.Sample{Data: frame, Duration: 10 * time.Millisecond})
			}
		}
	}()
	state, err := cloud.Wait(ctx, "video", func(s trtccloud.State) bool {
		return len(s.Media) == 1 && s.Media[0].Video.Keyframes >= 3
	})
	cancel()
	<-flowing
	if err != nil {
		t.Fatal(err)
	}
	m := state.Media[0]
	if m.User != "bert" || m.Room != "7" || m.Video.Codec != webrtc.MimeTypeVP8 || m.Video.Packets < 3*m.Video.Keyframes-2 || len(state.Sources) == 0 {
		t.Errorf("media is %+v, want VP8 of bert in room 7, three packets to a frame, and where it came from: %v", m, state.Sources)
	}
}

func TestCutClientsFindTheirSeat(t *testing.T) {
	cloud := trtccloud.Start(t)
	ws := dial(t, cloud, "/"+query)
	expect(t, ws, 19)
	send(t, ws, "join", 1, map[string]any{"roomId": 7})
	expect(t, ws, 20)
	if n := cloud.Cut(); n != 1 {
		t.Errorf("cut %d connections, want 1", n)
	}
	if _, _, err := ws.ReadMessage(); websocket.IsCloseError(err, websocket.CloseNormalClosure) || err == nil {
		t.Errorf("reading after the cut: %v, want a broken connection", err)
	}

	again := dial(t, cloud, trtccloud.SignalPath+query)
	expect(t, again, 19)
	send(t, again, "reconnect", 1, map[string]any{"roomId": "7"})
	expect(t, again, 514)
	resumed := dial(t, cloud, "/"+query+"&rc=1&roomId=7")
	expect(t, resumed, 514)
	if n := len(cloud.State().Reconnects); n != 2 {
		t.Errorf("%d reconnects recorded, want 2", n)
	}

	send(t, again, "reconnect", 2, map[string]any{"roomId": "another"})
	var a struct{ Code int }
	if err := again.ReadJSON(&a); err != nil || a.Code == 0 {
		t.Errorf("a reconnect to a room never joined: code %d, error %v, want a code", a.Code, err)
	}
}

func client(c *trtccloud.Cloud) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(c.CA())
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		DialContext:       dialer(c),
		DisableKeepAlives: true,
	}}
}

func dialer(c *trtccloud.Cloud) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, c.Addr().String())
	}
}

func dial(t *testing.T, c *trtccloud.Cloud, target string) *websocket.Conn {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(c.CA())
	d := websocket.Dialer{NetDialContext: dialer(c), TLSClientConfig: &tls.Config{RootCAs: pool}}
	u, err := url.Parse("wss://signaling.rtc.qq.com" + target)
	if err != nil {
		t.Fatal(err)
	}
	ws, res, err := d.DialContext(t.Context(), u.String(), nil)
	if err != nil {
		if res != nil {
			b, _ := io.ReadAll(res.Body)
			t.Logf("answer: %s %s", res.Status, b)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	return ws
}

func send(t *testing.T, ws *websocket.Conn, cmd string, seq int, data any) {
	t.Helper()
	if err := ws.WriteJSON(map[string]any{"cmd": cmd, "seq": seq, "data": data}); err != nil {
		t.Fatal(err)
	}
}

// expect reads until the command comes and returns its data; its code must be 0.
func expect(t *testing.T, ws *websocket.Conn, cmd int) json.RawMessage {
	t.Helper()
	for {
		var m struct {
			Cmd, Code int
			Message   string
			Data      json.RawMessage
		}
		ws.SetReadDeadline(time.Now().Add(20 * time.Second))
		if err := ws.ReadJSON(&m); err != nil {
			t.Fatalf("waiting for command %d: %v", cmd, err)
		}
		if m.Cmd == cmd {
			if m.Code != 0 {
				t.Fatalf("command %d has code %d: %s", cmd, m.Code, m.Message)
			}
			return m.Data
		}
	}
}
