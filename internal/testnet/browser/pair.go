package browser

import (
	"context"
	"time"
)

// ICEServer is an element of RTCConfiguration.iceServers.
type ICEServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// Candidate is what getStats says of one end of the pair in use.
type Candidate struct {
	Type          string `json:"candidateType"` // host, srflx, prflx, relay
	Protocol      string `json:"protocol"`
	RelayProtocol string `json:"relayProtocol"` // udp, tcp, tls; of a local relay candidate
	URL           string `json:"url"`           // of the TURN server
	Address       string `json:"address"`
	Port          int    `json:"port"`
}

// ICEError is an icecandidateerror event.
type ICEError struct {
	URL  string `json:"url"`
	Code int    `json:"errorCode"`
	Text string `json:"errorText"`
}

// Side is one RTCPeerConnection of a pair.
type Side struct {
	Gathered      []string   `json:"gathered"` // candidate lines
	Errors        []ICEError `json:"errors"`
	Local         Candidate  `json:"local"`
	Remote        Candidate  `json:"remote"`
	BytesSent     int64      `json:"bytesSent"`
	BytesReceived int64      `json:"bytesReceived"`
}

// Pair is the result of two connected RTCPeerConnections.
type Pair struct {
	A             Side  `json:"a"`         // sends the camera
	B             Side  `json:"b"`         // shows it
	EchoBytes     int64 `json:"echoBytes"` // over the data channel, there and back, each compared
	FramesDecoded int   `json:"framesDecoded"`
}

// PairWant says when a pair is good.
type PairWant struct {
	Frames    int `json:"frames"`    // decoded by B; 0 is 30
	EchoBytes int `json:"echoBytes"` // through the data channel; 0 is 256 KiB

	// Within is how long the pair may take; 0 is 30 s.
	Within time.Duration `json:"-"`
}

// ConnectPair connects two RTCPeerConnections of the page to each other with the
// ICE servers and the policy ("relay" or "all"), sends the camera from one to the
// other and echoes data, and reports once want is reached. The page is
// "page.html". When no connection comes about the error names the state and the
// ICE errors of both sides.
func (p *Page) ConnectPair(ctx context.Context, servers []ICEServer, policy string, want PairWant) (Pair, error) {
	if want.Frames == 0 {
		want.Frames = 30
	}
	if want.EchoBytes == 0 {
		want.EchoBytes = 256 << 10
	}
	if want.Within == 0 {
		want.Within = 30 * time.Second
	}
	script := struct {
		PairWant
		Milliseconds int64 `json:"milliseconds"`
	}{want, want.Within.Milliseconds()}
	var pair Pair
	err := p.Call(ctx, &pair, "turngate.connectPair", servers, policy, script)
	return pair, err
}

// Gather returns the candidate lines and errors that one RTCPeerConnection
// gathers, without connecting anything.
func (p *Page) Gather(ctx context.Context, servers []ICEServer, policy string) (Side, error) {
	var side Side
	err := p.Call(ctx, &side, "turngate.gather", servers, policy)
	return side, err
}

// Connection is an RTCPeerConnection of the page, an SDK's included.
type Connection struct {
	State  string   `json:"state"`
	Policy string   `json:"policy"` // iceTransportPolicy as configured last
	URLs   []string `json:"urls"`   // of the ICE servers
	Side   Side     `json:"side"`
}

// Connections returns the page's connections, closed ones included: these have
// what they gathered, but no candidate in use.
func (p *Page) Connections(ctx context.Context) ([]Connection, error) {
	var out []Connection
	err := p.Call(ctx, &out, "turngate.describeAll")
	return out, err
}
