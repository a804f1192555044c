package trtccloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ability is how v5 describes one side of a media connection instead of SDP.
// The SDK makes its own SDP answer of the server's ability (and writes
// a=ice-lite into it); we make an SDP offer of the client's.
type ability struct {
	ICE struct {
		Ufrag    string `json:"ufrag"`
		Password string `json:"password"`
	} `json:"ice"`
	DTLS struct {
		Hash        string `json:"hash"`
		Fingerprint string `json:"fingerprint"`
		Setup       string `json:"setup"`
	} `json:"dtls"`
	Audio          mediaAbility `json:"audio"`
	Video          mediaAbility `json:"video"`
	Candidates     []candidate  `json:"candidates,omitempty"` // the server's only
	UseDataChannel bool         `json:"useDataChannel"`
	UseVP8         bool         `json:"useVp8"`
	UseH265        bool         `json:"useH265"`
}

type mediaAbility struct {
	Codecs     []codec     `json:"codecs"`
	Decoders   []codec     `json:"decoders,omitempty"`
	Extensions []extension `json:"extensions"`
}

type codec struct {
	Codec    string     `json:"codec"`
	Fmtp     string     `json:"fmtp"`
	Payload  int        `json:"payload"`
	Rate     int        `json:"rate"`
	Channels int        `json:"channels,omitempty"`
	RTCPFB   []feedback `json:"rtcpfb"`
	RTX      int        `json:"rtx"`
}

type feedback struct {
	ID     string   `json:"id"`
	Params []string `json:"params"`
}

type extension struct {
	ID  int    `json:"id"`
	URI string `json:"uri"`
}

// candidate carries the transport ("udp") in its foundation; that is where the
// SDK looks for it.
type candidate struct {
	Foundation string `json:"foundation"`
	IP         string `json:"ip"`
	Port       int    `json:"port"`
	Priority   int64  `json:"priority"`
	Type       string `json:"type"`
}

// ssrcs is the body of publish/v2: the sending side's sources by media section.
// The SDK leaves out (or writes null for) what it does not send.
type ssrcs struct {
	Audio    uint32 `json:"audioSsrc"`
	Big      uint32 `json:"bigVideoSsrc"`
	BigRTX   uint32 `json:"bigVideoRtxSsrc"`
	Small    uint32 `json:"smallVideoSsrc"`
	SmallRTX uint32 `json:"smallVideoRtxSsrc"`
	Aux      uint32 `json:"auxVideoSsrc"`
	AuxRTX   uint32 `json:"auxVideoRtxSsrc"`
}

// offer writes the client's side as SDP: microphone, camera, small camera,
// screen, and the data channel, in the SDK's order.
func (a *ability) offer(version int, s ssrcs) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("v=0")
	line("o=- 1 %d IN IP4 127.0.0.1", version)
	line("s=-")
	line("t=0 0")
	if a.UseDataChannel {
		line("a=group:BUNDLE 0 1 2 3 4")
	} else {
		line("a=group:BUNDLE 0 1 2 3")
	}
	transport := func(mid int) {
		line("c=IN IP4 0.0.0.0")
		line("a=ice-ufrag:%s", a.ICE.Ufrag)
		line("a=ice-pwd:%s", a.ICE.Password)
		line("a=fingerprint:%s %s", a.DTLS.Hash, a.DTLS.Fingerprint)
		line("a=setup:actpass")
		line("a=mid:%d", mid)
	}
	section := func(mid int, kind string, m mediaAbility, ssrc, rtx uint32) {
		var payloads []string
		for _, c := range m.Codecs {
			payloads = append(payloads, strconv.Itoa(c.Payload))
			if c.RTX != 0 {
				payloads = append(payloads, strconv.Itoa(c.RTX))
			}
		}
		line("m=%s 9 UDP/TLS/RTP/SAVPF %s", kind, strings.Join(payloads, " "))
		transport(mid)
		for _, e := range m.Extensions {
			line("a=extmap:%d %s", e.ID, e.URI)
		}
		line("a=sendonly")
		line("a=rtcp-mux")
		for _, c := range m.Codecs {
			c.lines(line)
		}
		if ssrc == 0 {
			return
		}
		if rtx != 0 {
			line("a=ssrc-group:FID %d %d", ssrc, rtx)
			line("a=ssrc:%d msid:trtc %d", rtx, mid)
		}
		line("a=ssrc:%d msid:trtc %d", ssrc, mid)
	}
	section(0, "audio", a.Audio, s.Audio, 0)
	section(1, "video", a.Video, s.Big, s.BigRTX)
	section(2, "video", a.Video, s.Small, s.SmallRTX)
	section(3, "video", a.Video, s.Aux, s.AuxRTX)
	if a.UseDataChannel {
		line("m=application 9 UDP/DTLS/SCTP webrtc-datachannel")
		transport(4)
		line("a=sctp-port:5000")
	}
	return b.String()
}

func (c codec) lines(line func(string, ...any)) {
	if c.Channels > 1 {
		line("a=rtpmap:%d %s/%d/%d", c.Payload, c.Codec, c.Rate, c.Channels)
	} else {
		line("a=rtpmap:%d %s/%d", c.Payload, c.Codec, c.Rate)
	}
	for _, f := range c.RTCPFB {
		line("a=rtcp-fb:%d %s", c.Payload, strings.Join(append([]string{f.ID}, f.Params...), " "))
	}
	if c.Fmtp != "" {
		line("a=fmtp:%d %s", c.Payload, c.Fmtp)
	}
	if c.RTX != 0 {
		line("a=rtpmap:%d rtx/%d", c.RTX, c.Rate)
		line("a=fmtp:%d apt=%d", c.RTX, c.Payload)
	}
}

// serverAbility turns our SDP answer into the form v5 wants. Codecs are the
// client's own, reduced to the one H.264 (and the VP8) that we receive: v5 takes
// the first of them for its uplink.
func serverAbility(client *ability, sdp string) (*ability, error) {
	out := &ability{UseDataChannel: client.UseDataChannel}
	for l := range strings.Lines(sdp) {
		key, value, _ := strings.Cut(strings.TrimSpace(l), ":")
		switch key {
		case "a=ice-ufrag":
			out.ICE.Ufrag = value
		case "a=ice-pwd":
			out.ICE.Password = value
		case "a=fingerprint":
			out.DTLS.Hash, out.DTLS.Fingerprint, _ = strings.Cut(value, " ")
		case "a=setup":
			out.DTLS.Setup = value
		case "a=candidate":
			if len(out.Candidates) == 0 {
				cand, err := parseCandidate(value)
				if err != nil {
					return nil, err
				}
				out.Candidates = append(out.Candidates, cand)
			}
		}
	}
	if out.ICE.Ufrag == "" || out.DTLS.Fingerprint == "" || len(out.Candidates) == 0 {
		return nil, errors.New("our own answer lacks ICE, DTLS or a candidate")
	}
	out.Audio.Codecs = client.Audio.Codecs
	out.Video.Codecs = received(client.Video.Codecs)
	out.Video.Decoders = out.Video.Codecs
	if len(out.Audio.Codecs) == 0 || len(out.Video.Codecs) == 0 {
		return nil, errors.New("the client offers no codec that we receive")
	}
	out.Audio.Extensions = supported(client.Audio.Extensions)
	out.Video.Extensions = supported(client.Video.Extensions)
	return out, nil
}

func parseCandidate(value string) (candidate, error) {
	f := strings.Fields(value) // foundation component transport priority ip port typ host
	if len(f) < 8 {
		return candidate{}, fmt.Errorf("candidate %q is too short", value)
	}
	prio, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil {
		return candidate{}, err
	}
	port, err := strconv.Atoi(f[5])
	if err != nil {
		return candidate{}, err
	}
	return candidate{Foundation: f[2], IP: f[4], Port: port, Priority: prio, Type: f[7]}, nil
}

func received(codecs []codec) []codec {
	var out []codec
	var h264, vp8 bool
	for _, c := range codecs {
		switch strings.ToLower(c.Codec) {
		case "h264":
			if h264 || !strings.Contains(c.Fmtp, "packetization-mode=1") {
				continue
			}
			h264 = true
		case "vp8":
			if vp8 {
				continue
			}
			vp8 = true
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}

func supported(exts []extension) []extension {
	out := []extension{}
	for _, e := range exts {
		if strings.Contains(e.URI, "transport-wide-cc") || strings.Contains(e.URI, "abs-send-time") {
			out = append(out, e)
		}
	}
	return out
}

// newPeerV5 starts the media side for the ability in a join/v2 or rebuild_pc,
// in place of the seat's earlier one.
func (s *socket) newPeerV5(data json.RawMessage) (*ability, error) {
	if s.seat == nil {
		return nil, errors.New("not in a room")
	}
	var in struct {
		Ability *ability `json:"ability"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, err
	}
	if in.Ability == nil {
		return nil, errors.New("no ability")
	}
	p, err := s.newPeer()
	if err != nil {
		return nil, err
	}
	p.client = in.Ability
	sdp, err := p.answer(in.Ability.offer(1, ssrcs{}))
	if err != nil {
		return nil, err
	}
	return serverAbility(in.Ability, sdp)
}

func (s *socket) publish(cmd Command) {
	s.cloud.recorder.add(func(st *State) { st.Publishes = append(st.Publishes, cmd) })
	switch cmd.Name {
	case "publish/v2":
		s.reply(cmd, cmdPublishedV2, nil, s.publishV5(cmd.Data))
	case "publish":
		data, err := s.publishV4(cmd.Data, true)
		s.reply(cmd, cmdPublished, data, err)
	case "publish_change":
		data, err := s.publishV4(cmd.Data, false)
		s.reply(cmd, cmdOfferUpdated, data, err)
	}
}

// publishV5 tells the media side the sources that will arrive: v5 sends no mid
// header extension, so a packet alone does not say which section it belongs to.
func (s *socket) publishV5(data json.RawMessage) error {
	p := s.peer()
	if p == nil || p.client == nil {
		return errors.New("no media connection")
	}
	var in ssrcs
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	if in.Audio == 0 && in.Big == 0 {
		return errors.New("no source is named")
	}
	_, err := p.answer(p.client.offer(2, in))
	return err
}

// publishV4 answers an SDP offer with SDP.
func (s *socket) publishV4(data json.RawMessage, fresh bool) (any, error) {
	if s.seat == nil {
		return nil, errors.New("not in a room")
	}
	var in struct {
		SDP string `json:"sdp"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, err
	}
	p := s.peer()
	if fresh || p == nil {
		var err error
		if p, err = s.newPeer(); err != nil {
			return nil, err
		}
	}
	sdp, err := p.answer(withoutEmptyExtensions(in.SDP))
	if err != nil {
		return nil, err
	}
	return map[string]string{"type": "answer", "sdp": sdp}, nil
}

// withoutEmptyExtensions drops the lines "a=extmap:13 " that v4 leaves behind
// where it cut the video orientation extension out of its offer.
func withoutEmptyExtensions(sdp string) string {
	var b strings.Builder
	for l := range strings.Lines(sdp) {
		if rest, ok := strings.CutPrefix(l, "a=extmap:"); ok && len(strings.Fields(rest)) < 2 {
			continue
		}
		b.WriteString(l)
	}
	return b.String()
}
