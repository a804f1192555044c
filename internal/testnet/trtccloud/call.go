package trtccloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet/browser"
)

// UserSig looks like a real one: the SDK's own base64 alphabet, in which "*"
// and "-" are left alone by encodeURIComponent and nobody may encode them.
const UserSig = "eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwomlKZl5UInilOzEgoLMFCUrQxMDAwMzE0MzI4hM" +
	"akVBZlEqUNzU1NTIwMAAIlqSmQsSszAzNDEwsDCHmpKZDjTUIMTbOCIq0zTdMaOkLMnDrDKjLCK8tMJT38Ut1NnN3T" +
	"y0OCi3oDLPOMXL1MXI1Nw9wtVWqRYA*XswTg__-KwA5Ns8-2a*Q4T0bV1kZ3hKd2VQcmV0dHlsb25n"

// Gateway is how a page is configured. Empty fields are left out; an entirely
// empty Gateway makes a page without any proxy.
type Gateway struct {
	Websocket string // wss://host:port/ws/
	Logger    string // https://host:port/logger
	Schedule  string // host:port/schedule, without a scheme
	Unified   string // host:port/u, without a scheme
	TURN      []TURNServer
	Policy    string // iceTransportPolicy

	SDKAppID int // 0 is DefaultSDKAppID
}

// DefaultSDKAppID is a mainland application; international ones are below
// 1400000000.
const DefaultSDKAppID = 1400000001

// TURNServer is an element of the SDKs' turnServer parameter.
type TURNServer struct {
	URL            string `json:"url"` // host:port[?transport=tcp], v5 also turns:...
	Username       string `json:"username"`
	Credential     string `json:"credential"`
	CredentialType string `json:"credentialType"` // "" becomes "password"
}

// CookieName is a cookie that the page sets for example.com before each call,
// as a company's single sign-on does. A cloud that sees it has learned too much.
const CookieName = "company-sso"

// Result is a call that came about.
type Result struct {
	State       State                  // of the cloud, after the call
	Connections []browser.Connection   // of the page, while the camera was flowing, closed ones too
	Sources     map[netip.AddrPort]int // datagrams at the media server during the call, by origin
	Hosts       []string               // the page asked for, by HTTP and WebSocket
	Events      []Event                // the SDK raised
	Page        *browser.Page
}

// Event is an event of the SDK's.
type Event struct {
	Type   string `json:"type"` // error, kicked, connection, publish
	Detail string `json:"detail"`
}

// Relayed returns an error unless all media went through a relay that was
// reached over the protocol (udp, tcp or tls; "" is any): the one connected peer
// connection of the page uses such a candidate, no connection gathered another
// kind, and every datagram at the media server came from one of the relays.
func (r Result) Relayed(protocol string) error {
	connected := 0
	relays := map[netip.AddrPort]bool{}
	for _, c := range r.Connections {
		for _, line := range c.Side.Gathered {
			f := strings.Fields(line) // candidate:foundation component transport priority address port typ kind
			if len(f) < 8 || f[7] != "relay" {
				return fmt.Errorf("the page gathered %q, want relays only", line)
			}
			relay, err := netip.ParseAddrPort(net.JoinHostPort(f[4], f[5]))
			if err != nil {
				return err
			}
			relays[relay] = true
		}
		if c.State != "connected" {
			continue
		}
		connected++
		if l := c.Side.Local; l.Type != "relay" || protocol != "" && l.RelayProtocol != protocol {
			return fmt.Errorf("the local candidate is %+v, want a relay over %q", l, protocol)
		}
	}
	if connected != 1 {
		return fmt.Errorf("%d connected peer connections, want 1: %+v", connected, r.Connections)
	}
	if len(r.Sources) == 0 {
		return errors.New("nothing reached the media server")
	}
	for from, n := range r.Sources {
		if !relays[from] {
			return fmt.Errorf("%d datagrams came from %v, which is none of the relays %v", n, from, slices.Collect(maps.Keys(relays)))
		}
	}
	return nil
}

// RunV5Call makes a whole call with trtc-sdk-v5: enter the room, publish the
// camera until key frames arrive, lose every signaling connection and come
// back, media still flowing, and leave with the final report. It fails the
// test where the call stops.
func RunV5Call(t *testing.T, b *browser.Browser, c *Cloud, g Gateway) Result {
	t.Helper()
	return c.run(t, b.OpenV5(t), true, g.V5Args())
}

// RunV4Call is RunV5Call with trtc-js-sdk.
func RunV4Call(t *testing.T, b *browser.Browser, c *Cloud, g Gateway) Result {
	t.Helper()
	return c.run(t, b.OpenV4(t), false, g.V4Args())
}

const step = 40 * time.Second // a step of a call on a loaded machine

func (c *Cloud) run(t *testing.T, page *browser.Page, v5 bool, args map[string]any) Result {
	t.Helper()
	do := func(name string, fn func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeoutCause(t.Context(), step, fmt.Errorf("not within %v", step))
		defer cancel()
		if err := fn(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	wait := func(what string, ok func(State) bool) State {
		t.Helper()
		var got State
		do(what, func(ctx context.Context) (err error) {
			got, err = c.Wait(ctx, what, ok)
			return err
		})
		return got
	}
	script := func(name string, out any, fn string, args ...any) {
		t.Helper()
		do(name, func(ctx context.Context) error { return page.Call(ctx, out, fn, args...) })
	}
	script("cookie", nil, "turngate.setCookie", CookieName+"=secret; Domain=example.com; Path=/; Secure; SameSite=Lax")

	before := c.State()
	user := args["userId"].(string)
	media := func(s State) (m Media) {
		for _, one := range s.Media[len(before.Media):] {
			if one.User == user && one.State == "connected" {
				m = one
			}
		}
		return m
	}

	script("enter the room", nil, "call.enter", args)
	wait("the join", func(s State) bool {
		n := len(s.Joins)
		return n > len(before.Joins) && s.Joins[n-1].User == user && s.Joins[n-1].V5 == v5
	})
	script("publish the camera", nil, "call.publish")
	wait("the camera", func(s State) bool {
		m := media(s)
		return m.Video.Packets >= 50 && m.Video.Keyframes >= 1
	})
	wait("log reports", func(s State) bool { return len(s.ReportsOf("jssdk_log")) > len(before.ReportsOf("jssdk_log")) })

	atCut := c.State()
	if n := c.Cut(); n == 0 {
		t.Fatalf("nothing to cut: no signaling connection is left; seen: %s", atCut.Summary())
	}
	wait("the reconnection", func(s State) bool { return len(s.Reconnects) > len(atCut.Reconnects) })
	wait("a command after the reconnection", func(s State) bool { return len(s.Commands) > len(atCut.Commands)+1 })
	wait("the camera after the reconnection", func(s State) bool { return media(s).Video.Packets >= media(atCut).Video.Packets+50 })

	r := Result{Page: page}
	do("peer connections", func(ctx context.Context) (err error) {
		r.Connections, err = page.Connections(ctx)
		return err
	})

	script("leave the room", nil, "call.leave")
	wait("the leave", func(s State) bool { return len(s.Leaves) > len(before.Leaves) })
	r.State = wait("the final report", func(s State) bool {
		return len(s.ReportsOf("jssdk_new_endreport")) > len(before.ReportsOf("jssdk_new_endreport"))
	})
	r.Sources = map[netip.AddrPort]int{}
	for from, n := range r.State.Sources {
		if n -= before.Sources[from]; n > 0 {
			r.Sources[from] = n
		}
	}
	script("events", &r.Events, "call.events")
	r.Hosts = page.Hosts()
	if e := page.Exceptions(); len(e) > 0 {
		t.Errorf("uncaught exceptions: %q", e)
	}
	for _, rep := range r.State.Reports[len(before.Reports):] {
		if rep.Status != http.StatusOK {
			t.Errorf("report %s was answered with %d", rep.CmdType, rep.Status)
		}
	}
	return r
}

// V5Args is the argument of call.enter on the page of OpenV5, for tests that go
// through a call by themselves: page.Call(ctx, nil, "call.enter", g.V5Args()), then
// "call.publish" and "call.leave".
func (g Gateway) V5Args() map[string]any {
	args := g.params()
	p := g.proxy()
	if turn := g.turn(); len(turn) > 0 {
		p["turnServer"] = turn
	}
	if g.Policy != "" {
		p["iceTransportPolicy"] = g.Policy
	}
	args["proxy"] = orNil(p)
	return args
}

// V4Args is V5Args for the page of OpenV4.
func (g Gateway) V4Args() map[string]any {
	args := g.params()
	args["proxy"] = orNil(g.proxy())
	args["turn"] = orNil(g.turn())
	args["policy"] = g.Policy
	return args
}

func (g Gateway) params() map[string]any {
	app := cmp.Or(g.SDKAppID, DefaultSDKAppID)
	return map[string]any{"sdkAppId": app, "userId": "anna", "userSig": UserSig, "roomId": 4711}
}

// proxy is the part that both SDKs take in the same form.
func (g Gateway) proxy() map[string]any {
	p := map[string]any{}
	for key, value := range map[string]string{
		"websocketProxy": g.Websocket, "loggerProxy": g.Logger, "scheduleProxy": g.Schedule, "unifiedProxy": g.Unified,
	} {
		if value != "" {
			p[key] = value
		}
	}
	return p
}

func (g Gateway) turn() []TURNServer {
	turn := slices.Clone(g.TURN)
	for i := range turn {
		if turn[i].CredentialType == "" {
			turn[i].CredentialType = "password"
		}
	}
	return turn
}

func orNil[T interface {
	~map[string]any | ~[]TURNServer
}](v T) any {
	if len(v) == 0 {
		return nil
	}
	return v
}
