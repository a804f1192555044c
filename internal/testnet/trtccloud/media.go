package trtccloud

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/pion/webrtc/v4"
)

// mediaServer receives what clients publish: ICE-lite, all clients on one UDP
// port, DTLS server. It learns a client's address from its packets only.
type mediaServer struct {
	api  *webrtc.API
	mux  io.Closer // owns the socket
	addr netip.AddrPort
}

// sources counts the packets of a socket by where they come from.
type sources struct {
	net.PacketConn
	count func(from netip.AddrPort)
}

func (s *sources) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(p)
	if udp, ok := from.(*net.UDPAddr); ok && err == nil {
		a := udp.AddrPort()
		s.count(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	return n, from, err
}

func newMediaServer(count func(from netip.AddrPort)) (*mediaServer, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	mux := webrtc.NewICEUDPMux(nil, &sources{conn, count})
	var se webrtc.SettingEngine
	se.SetLite(true)
	se.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	se.SetIncludeLoopbackCandidate(true)
	se.SetICEUDPMux(mux)
	if err := se.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
		return nil, errors.Join(err, mux.Close())
	}
	return &mediaServer{
		api:  webrtc.NewAPI(webrtc.WithSettingEngine(se)), // default codecs and interceptors
		mux:  mux,
		addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(),
	}, nil
}

func (m *mediaServer) close() { m.mux.Close() }

// peer is the media connection of one seat.
type peer struct {
	cloud  *Cloud
	pc     *webrtc.PeerConnection
	client *ability // v5 only
	index  int      // in State.Media
}

// newPeer makes the media connection of the socket's seat, in place of an
// earlier one.
func (s *socket) newPeer() (*peer, error) {
	c := s.cloud
	pc, err := c.media.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	p := &peer{cloud: c, pc: pc}
	c.recorder.add(func(st *State) {
		p.index = len(st.Media)
		st.Media = append(st.Media, Media{User: s.user, Room: s.seat.room, State: "new"})
	})
	pc.OnConnectionStateChange(p.stateChanged)
	pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { p.receive(t) })
	pc.OnDataChannel(func(d *webrtc.DataChannel) {
		d.OnMessage(func(webrtc.DataChannelMessage) { p.update(func(m *Media) { m.Messages++ }) })
	})
	c.mu.Lock()
	old := s.seat.peer
	s.seat.peer = p
	c.mu.Unlock()
	if old != nil {
		old.pc.GracefulClose()
	}
	return p, nil
}

// answer completes one offer/answer exchange and returns the answer with its
// candidate.
func (p *peer) answer(offer string) (string, error) {
	err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer})
	if err != nil {
		return "", fmt.Errorf("offer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	ans, err := p.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("answer: %w", err)
	}
	if err := p.pc.SetLocalDescription(ans); err != nil {
		return "", fmt.Errorf("local description: %w", err)
	}
	<-gathered
	return p.pc.LocalDescription().SDP, nil
}

func (p *peer) update(change func(*Media)) {
	p.cloud.recorder.add(func(st *State) { change(&st.Media[p.index]) })
}

func (p *peer) media() Media {
	var m Media
	p.cloud.recorder.quiet(func(st *State) { m = st.Media[p.index] })
	return m
}

func (p *peer) stateChanged(state webrtc.PeerConnectionState) {
	p.update(func(m *Media) { m.State = state.String() })
}

// receive counts a track until it ends. Waiters are woken for the first packet,
// for key frames, and now and then.
func (p *peer) receive(t *webrtc.TrackRemote) {
	mime := t.Codec().MimeType
	var n int
	for {
		pkt, _, err := t.ReadRTP()
		if err != nil {
			return
		}
		n++
		key := keyframe(mime, pkt.Payload)
		count := func(st *State) {
			m := &st.Media[p.index]
			tr := &m.Video
			if t.Kind() == webrtc.RTPCodecTypeAudio {
				tr = &m.Audio
			}
			tr.Codec = mime
			tr.Packets++
			tr.Bytes += len(pkt.Payload)
			if key {
				tr.Keyframes++
			}
		}
		if key || n%25 == 1 {
			p.cloud.recorder.add(count)
		} else {
			p.cloud.recorder.quiet(count)
		}
	}
}

// keyframe reports whether the packet begins a key frame: an SPS or the start
// of an IDR slice (RFC 6184 sections 5.4 to 5.8), a VP8 key frame header (RFC
// 7741 section 4).
func keyframe(mime string, p []byte) bool {
	switch {
	case strings.EqualFold(mime, webrtc.MimeTypeH264):
		return h264Keyframe(p)
	case strings.EqualFold(mime, webrtc.MimeTypeVP8):
		return vp8Keyframe(p)
	}
	return false
}

func h264Keyframe(p []byte) bool {
	const idr, sps, stapA, fuA = 5, 7, 24, 28
	if len(p) < 2 {
		return false
	}
	switch p[0] & 0x1f {
	case sps, idr:
		return true
	case stapA:
		return len(p) > 3 && (p[3]&0x1f == sps || p[3]&0x1f == idr)
	case fuA:
		return p[1]&0x80 != 0 && p[1]&0x1f == idr
	}
	return false
}

func vp8Keyframe(p []byte) bool {
	if len(p) < 1 || p[0]&0x17 != 0x10 { // start of the first partition
		return false
	}
	i := 1
	if p[0]&0x80 != 0 { // X
		if len(p) < 2 {
			return false
		}
		x := p[1]
		i = 2
		if x&0x80 != 0 { // I: picture id, one or two bytes
			if len(p) <= i {
				return false
			}
			if p[i]&0x80 != 0 {
				i++
			}
			i++
		}
		if x&0x40 != 0 { // L
			i++
		}
		if x&0x30 != 0 { // T or K
			i++
		}
	}
	return len(p) > i && p[i]&0x01 == 0
}
