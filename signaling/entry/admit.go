package entry

import (
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/internal/proxy"
)

// AsksUpgrade reports whether a request is meant as an upgrade of any kind.
func AsksUpgrade(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 || hasToken(r.Header["Connection"], "upgrade")
}

// CheckHandshake holds the rules for a client's opening handshake (RFC 6455 section
// 4.2.1), stricter where leniency has been used to smuggle: one Upgrade that is
// exactly websocket, one key of 16 bytes, no body. nil is a good one.
func CheckHandshake(r *http.Request) *Refusal {
	h := r.Header
	bad := func(text string) *Refusal { return &Refusal{http.StatusBadRequest, "bad_handshake", text} }
	switch {
	case r.Method != http.MethodGet:
		return &Refusal{http.StatusMethodNotAllowed, "bad_method", "only GET can open a WebSocket"}
	case !AsksUpgrade(r), r.ProtoMajor != 1:
		return &Refusal{http.StatusUpgradeRequired, "no_upgrade", "this path serves WebSocket only"}
	case r.ProtoMinor < 1:
		return bad("HTTP/1.1 is needed")
	case len(h["Upgrade"]) != 1 || !strings.EqualFold(h["Upgrade"][0], "websocket"):
		return bad("Upgrade must be websocket")
	case !hasToken(h["Connection"], "upgrade"):
		return bad("Connection must name Upgrade")
	case len(h["Sec-Websocket-Version"]) != 1 || h["Sec-Websocket-Version"][0] != "13":
		return &Refusal{http.StatusUpgradeRequired, "bad_version", "WebSocket version 13 is needed"}
	case len(h["Sec-Websocket-Key"]) != 1:
		return bad("one Sec-WebSocket-Key is needed")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return bad("a handshake has no body")
	}
	if key, err := base64.StdEncoding.DecodeString(h["Sec-Websocket-Key"][0]); err != nil || len(key) != 16 {
		return bad("Sec-WebSocket-Key must be 16 bytes in base64")
	}
	return nil
}

// A Guest is a client that was let in.
type Guest struct {
	Client netip.Addr
	AppID  uint64 // 0: none was named
	Leave  func() // gives back what Admit took; to be called once
}

// Admit decides whether a handshake goes on, and otherwise answers it.
func (s *Server[S]) Admit(g *Gate, w http.ResponseWriter, r *http.Request, at Target) (*Guest, bool) {
	client := g.Headers.Trust.Client(r)
	if no, silent := s.objection(g, r, at, client); no != nil {
		s.reject(g, w, r, *no, silent)
		return nil, false
	}
	source := limit.Source(client)
	if !g.open.Acquire(source) {
		s.reject(g, w, r, overLimit, g.silent.Limit)
		return nil, false
	}
	id, _ := proxy.AppID(at.Query)
	guest := &Guest{client, id, func() { g.open.Release(source) }}
	if at.table.Admit != nil {
		done, ok := at.table.Admit(client)
		if !ok {
			guest.Leave()
			s.reject(g, w, r, overLimit, false)
			return nil, false
		}
		guest.Leave = func() { done(); g.open.Release(source) }
	}
	return guest, true
}

// GoingAway is the answer while the server drains.
var GoingAway = Refusal{http.StatusServiceUnavailable, "draining", "going away"}

var overLimit = Refusal{http.StatusTooManyRequests, "limited", "too many connections"}

func (s *Server[S]) reject(g *Gate, w http.ResponseWriter, r *http.Request, no Refusal, silent bool) {
	if silent {
		s.drop(r, g.Name, no.Result)
	}
	s.Refuse(w, r, g.Name, no)
}

// serves reports whether a client is among those for whom the route is.
func (g *Gate) serves(client netip.Addr) bool {
	return len(g.clients) == 0 || g.clients.Contains(client)
}

// objection is what speaks against a client or what it asks for, whoever else is connected.
func (s *Server[S]) objection(g *Gate, r *http.Request, at Target, client netip.Addr) (no *Refusal, silent bool) {
	if !g.serves(client) {
		return &Refusal{http.StatusForbidden, "forbidden_client", "this address is not served here"}, g.silent.Clients
	}
	if no := CheckHandshake(r); no != nil {
		if g.Qrator {
			no.Status = http.StatusBadRequest
		}
		return no, false
	}
	switch id, ok := proxy.AppID(at.Query); {
	case !g.AppIDs.Allow(id, ok):
		no = &Refusal{http.StatusForbidden, "forbidden_app", "this sdkAppId is not served here"}
	case !g.Origins.Allow(r.Header["Origin"]):
		no = &Refusal{http.StatusForbidden, "forbidden_origin", "this Origin is not served here"}
	case s.Draining():
		no = &GoingAway
	}
	return no, false
}
