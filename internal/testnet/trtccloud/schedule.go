package trtccloud

import (
	"encoding/json"
	"net/http"
	"net/url"
)

// ICEServer is a TURN server as the SDKs take it from the scheduler or from
// the answer to a join.
type ICEServer struct {
	URLs           any    `json:"urls"` // string or list of strings
	Username       string `json:"username,omitempty"`
	Credential     string `json:"credential,omitempty"`
	CredentialType string `json:"credentialType,omitempty"`
}

// Schedule is the scheduler's answer.
type Schedule struct {
	Status  int    // HTTP status; 0 is 200
	Code    int    // non-zero is an error for the SDK
	Message string // msg

	Domains            []string    // signaling: main and backup, host[:port][/path]
	ICEServers         []ICEServer // used unless the page configured turnServer
	ICETransportPolicy string
	Config             map[string]any // loggerDomain, keepAliveClient, ...
}

// DefaultSchedule names two signaling domains and a log domain, and no TURN
// server. The log domain carries its scheme: the SDKs put the path behind it and
// nothing before it, so that without one the reports go to the page's own server.
func DefaultSchedule() Schedule {
	return Schedule{
		Domains: []string{"main.rtc.qq.com", "backup.rtc.qq.com"},
		Config:  map[string]any{"loggerDomain": "https://yun.tim.qq.com"},
	}
}

func (c *Cloud) serveSchedule(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "POST only", http.StatusMethodNotAllowed)
		return
	}
	if err := r.ParseMultipartForm(1 << 20); err != nil {
		http.Error(w, "a multipart form is needed", http.StatusBadRequest)
		return
	}
	form := url.Values(r.MultipartForm.Value)
	c.recorder.add(func(s *State) {
		s.Schedules = append(s.Schedules, ScheduleRequest{Host: r.Host, Form: form})
	})
	c.mu.Lock()
	sched := c.schedule
	c.mu.Unlock()

	type data struct {
		Domains            []string       `json:"domains"`
		ICEServers         []ICEServer    `json:"iceServers"`
		ICETransportPolicy string         `json:"iceTransportPolicy,omitempty"`
		TRTCAutoConf       map[string]any `json:"trtcAutoConf"`
		Config             map[string]any `json:"config"`
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Content-Type", "application/json; charset=utf-8")
	if sched.Status != 0 {
		w.WriteHeader(sched.Status)
	}
	json.NewEncoder(w).Encode(struct { // a client that is gone needs no answer
		Code int    `json:"code"`
		Msg  string `json:"msg"`
		Data data   `json:"data"`
	}{sched.Code, sched.Message, data{
		Domains:            sched.Domains,
		ICEServers:         sched.ICEServers,
		ICETransportPolicy: sched.ICETransportPolicy,
		TRTCAutoConf:       map[string]any{},
		Config:             sched.Config,
	}})
}
