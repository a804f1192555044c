package trtccloud

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Commands of the server, by the number in the field cmd.
const (
	cmdHello          = 19
	cmdJoined         = 20
	cmdUplinkStats    = 22
	cmdReconnected    = 514
	cmdConstraintsSet = 772
	cmdPublished      = 4098 // v4, carries the answer SDP
	cmdUnpublished    = 4100
	cmdMuted          = 4108
	cmdRoleChanged    = 4110
	cmdPublishState   = 4112
	cmdOfferUpdated   = 4128 // v4, carries the answer SDP
	cmdUserList       = 4137
	cmdPublishedV2    = 4146
	cmdPeerRebuilt    = 4150
	cmdAbilityStatus  = 4158
	cmdNetworkTime    = 5001
)

// plainAnswers are the commands that a code 0 without data satisfies.
var plainAnswers = map[string]int{
	"unpublish":                cmdUnpublished,
	"publish_state_change":     cmdPublishState,
	"update_constraint_config": cmdConstraintsSet,
	"mute_uplink":              cmdMuted,
	"change_role":              cmdRoleChanged,
	"ability_status_report":    cmdAbilityStatus,
	"update_network_time":      cmdNetworkTime,
}

// seat is a user's place in a room. It outlives the signaling connection: a
// client that was cut comes back to it with "reconnect".
type seat struct {
	seatKey
	tinyID string
	role   int
	peer   *peer // nil before media
}

type seatKey struct{ app, room, user string }

// socket is one signaling connection.
type socket struct {
	cloud  *Cloud
	conn   *websocket.Conn
	app    string
	user   string
	tinyID string
	seat   *seat // nil before the join; used by the reading goroutine only

	mu sync.Mutex // one writer at a time
}

// answer is a message of the server.
type answer struct {
	Cmd     int    `json:"cmd"`
	Seq     int64  `json:"seq,omitempty"`
	Code    int    `json:"code"`
	Message string `json:"message,omitempty"`
	TinyID  string `json:"tinyId,omitempty"`
	Data    any    `json:"data"`
}

type hello struct {
	ClientIP      string `json:"clientIp"`
	SignalInnerIP string `json:"signalInnerIp"`
	ServerTime    int64  `json:"svrTime"` // milliseconds
}

func (c *Cloud) serveSignal(w http.ResponseWriter, r *http.Request, req Request) {
	q := r.URL.Query()
	c.mu.Lock()
	refuse := c.refuse
	c.mu.Unlock()
	if refuse {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	up := websocket.Upgrader{
		CheckOrigin:       func(*http.Request) bool { return true },
		EnableCompression: true, // browsers offer it, and a proxy must not be in its way
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	s := &socket{cloud: c, conn: conn, app: q.Get("sdkAppId"), user: q.Get("userId")}
	if !c.enter(s) {
		conn.Close()
		return
	}
	defer c.exit(s)

	client, _, _ := net.SplitHostPort(req.Remote)
	greeting := answer{Cmd: cmdHello, TinyID: s.tinyID, Data: hello{client, c.addr.Addr().String(), time.Now().UnixMilli()}}
	if s.app == "" || s.user == "" || q.Get("userSig") == "" {
		greeting.Code, greeting.Message = 10012, "sdkAppId, userId and userSig are needed"
	} else if q.Get("rc") == "1" {
		// v4 resumes with the handshake itself.
		greeting.Cmd = cmdReconnected
		if !s.resume(q.Get("roomId")) {
			greeting.Code, greeting.Message = 10013, "no such seat"
		} else {
			c.recorder.add(func(st *State) {
				st.Reconnects = append(st.Reconnects, Command{User: s.user, Name: "rc"})
			})
		}
	}
	c.recorder.add(func(st *State) { st.Hellos++ })
	s.send(greeting)
	s.read()
}

// enter registers the connection, unless the cloud is closing.
func (c *Cloud) enter(s *socket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.nextID++
	s.tinyID = strconv.FormatInt(144115200000000000+c.nextID, 10)
	c.sockets[s] = struct{}{}
	c.running.Add(1)
	return true
}

func (c *Cloud) exit(s *socket) {
	s.conn.Close()
	c.mu.Lock()
	delete(c.sockets, s)
	c.mu.Unlock()
	c.running.Done()
}

// drop closes the connection below TLS: no alert, no close frame.
func (s *socket) drop() {
	raw := s.conn.NetConn()
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	raw.Close()
}

func (s *socket) send(a answer) {
	if a.Data == nil {
		a.Data = struct{}{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	s.conn.WriteJSON(a) // a connection that broke ends in read
}

func (s *socket) read() {
	for {
		var m struct {
			Cmd  string          `json:"cmd"`
			Seq  int64           `json:"seq"`
			Data json.RawMessage `json:"data"`
		}
		if err := s.conn.ReadJSON(&m); err != nil {
			return
		}
		s.handle(Command{User: s.user, Name: m.Cmd, Seq: m.Seq, Data: m.Data})
	}
}

func (s *socket) handle(cmd Command) {
	c := s.cloud
	c.recorder.add(func(st *State) { st.Commands = append(st.Commands, cmd) })
	switch cmd.Name {
	case "join", "join/v2":
		s.join(cmd)
	case "reconnect":
		var room struct {
			RoomID jsonText `json:"roomId"`
		}
		json.Unmarshal(cmd.Data, &room)
		a := answer{Cmd: cmdReconnected, Seq: cmd.Seq, TinyID: s.tinyID}
		if s.resume(string(room.RoomID)) {
			a.TinyID = s.seat.tinyID
			c.recorder.add(func(st *State) { st.Reconnects = append(st.Reconnects, cmd) })
		} else {
			a.Code, a.Message = 10013, "no such seat"
		}
		s.send(a)
	case "publish/v2", "publish", "publish_change":
		s.publish(cmd)
	case "rebuild_pc":
		a, err := s.newPeerV5(cmd.Data)
		s.reply(cmd, cmdPeerRebuilt, map[string]any{"ability": a}, err)
	case "get_user_list":
		s.reply(cmd, cmdUserList, map[string]any{"userList": s.others()}, nil)
	case "quality_report":
		s.send(answer{Cmd: cmdUplinkStats, Data: s.uplink()})
	case "leave":
		c.recorder.add(func(st *State) { st.Leaves = append(st.Leaves, cmd) })
		s.leave()
	default:
		if code, ok := plainAnswers[cmd.Name]; ok {
			s.reply(cmd, code, nil, nil)
		}
	}
}

func (s *socket) reply(cmd Command, code int, data any, err error) {
	a := answer{Cmd: code, Seq: cmd.Seq, Data: data}
	if err != nil {
		s.cloud.tb.Logf("fake cloud: %s of %s: %v", cmd.Name, cmd.User, err)
		a.Code, a.Message, a.Data = 10020, err.Error(), nil
	}
	s.send(a)
}

type jsonText string // a JSON string or number, as text

func (t *jsonText) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = string(b)
	}
	*t = jsonText(s)
	return nil
}

func (s *socket) join(cmd Command) {
	c := s.cloud
	var in struct {
		RoomID  jsonText `json:"roomId"`
		Role    int      `json:"trtcRole"`
		Version jsonText `json:"version"`
	}
	a := answer{Cmd: cmdJoined, Seq: cmd.Seq}
	if err := json.Unmarshal(cmd.Data, &in); err != nil || in.RoomID == "" {
		a.Code, a.Message = 10014, "no room in the join"
		s.send(a)
		return
	}
	key := seatKey{s.app, string(in.RoomID), s.user}
	c.mu.Lock()
	st := c.seats[key]
	if st == nil {
		st = &seat{seatKey: key, tinyID: s.tinyID}
		c.seats[key] = st
	}
	st.role = in.Role
	c.mu.Unlock()
	s.seat = st

	v5 := cmd.Name == "join/v2"
	data := map[string]any{
		"relayOuterIp": c.media.addr.Addr().String(),
		"relayInnerIp": c.media.addr.Addr().String(),
		"relayPort":    c.media.addr.Port(),
		"publishers":   []any{},
		"bakRelayIps":  []any{},
	}
	if v5 {
		ability, err := s.newPeerV5(cmd.Data)
		if err != nil {
			s.reply(cmd, cmdJoined, nil, err)
			return
		}
		data["ability"] = ability
	}
	c.recorder.add(func(all *State) {
		all.Joins = append(all.Joins, Join{
			User: s.user, Room: key.room, SDKAppID: s.app, Version: string(in.Version), V5: v5, Data: cmd.Data,
		})
	})
	a.TinyID, a.Data = st.tinyID, data
	s.send(a)
}

// resume takes the user's seat in the room again.
func (s *socket) resume(room string) bool {
	s.cloud.mu.Lock()
	defer s.cloud.mu.Unlock()
	s.seat = s.cloud.seats[seatKey{s.app, room, s.user}]
	return s.seat != nil
}

func (s *socket) leave() {
	if s.seat == nil {
		return
	}
	s.cloud.mu.Lock()
	if s.cloud.seats[s.seat.seatKey] == s.seat {
		delete(s.cloud.seats, s.seat.seatKey)
	}
	p := s.seat.peer
	s.seat.peer = nil
	s.cloud.mu.Unlock()
	s.seat = nil
	if p != nil {
		p.pc.GracefulClose()
	}
}

type roomUser struct {
	UserID   string `json:"userId"`
	TinyID   string `json:"srcTinyId"`
	Role     int    `json:"role"`
	FromType int    `json:"fromType"`
}

func (s *socket) others() []roomUser {
	out := []roomUser{}
	if s.seat == nil {
		return out
	}
	s.cloud.mu.Lock()
	defer s.cloud.mu.Unlock()
	for key, other := range s.cloud.seats {
		if key.app == s.seat.app && key.room == s.seat.room && key.user != s.user {
			out = append(out, roomUser{key.user, other.tinyID, other.role, 1})
		}
	}
	slices.SortFunc(out, func(a, b roomUser) int { return cmp.Compare(a.UserID, b.UserID) })
	return out
}

// uplink is what the SDK's network quality is computed from.
func (s *socket) uplink() map[string]any {
	m := Media{}
	if p := s.peer(); p != nil {
		m = p.media()
	}
	return map[string]any{
		"expectAudPkg": m.Audio.Packets, "recvAudPkg": m.Audio.Packets,
		"expectVidPkg": m.Video.Packets, "recvVidPkg": m.Video.Packets,
		"rtt": 5, "wsRtt": 5,
	}
}

func (s *socket) peer() *peer {
	s.cloud.mu.Lock()
	defer s.cloud.mu.Unlock()
	if s.seat == nil {
		return nil
	}
	return s.seat.peer
}

func (c *Cloud) closeSeats() {
	c.mu.Lock()
	var peers []*peer
	for _, st := range c.seats {
		if st.peer != nil {
			peers = append(peers, st.peer)
		}
	}
	clear(c.seats)
	c.mu.Unlock()
	for _, p := range peers {
		p.pc.GracefulClose()
	}
}
