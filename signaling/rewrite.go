package signaling

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
)

// An ICEServer is one entry for the list of ICE servers that a client receives.
type ICEServer struct {
	URLs       []string // turn: and turns: URLs
	Username   string
	Credential string
}

// A rewrite says what the answer of the TRTC scheduler shall say instead. Members
// it does not name keep their bytes and their place; numbers are never parsed.
//
// The shapes are those trtc-sdk-v5 5.17.1 and trtc-js-sdk 4.15.22 read:
// {code, msg, data: {domains: ["host[:port][/path]"], iceServers: [RTCIceServer],
// iceTransportPolicy, config: {loggerDomain: "https://host[/path]"}}}.
type rewrite struct {
	domainPrefix string // put before each domain, "" to leave them
	loggerDomain string // "" to leave it
	iceServers   []ICEServer
	policy       string // iceTransportPolicy, "" to leave it

	// insert also adds members that the answer does not have: on the configuration
	// endpoint, not on others whose data is something else.
	insert bool
}

// apply rewrites an answer. An answer that reports an error, or is not of the known
// shape, comes back unchanged with changed false. domains are those the answer named.
func (rw *rewrite) apply(answer []byte) (out []byte, domains []string, changed bool) {
	top, err := parseObject(answer)
	if err != nil {
		return answer, nil, false
	}
	if code, err := strconv.ParseFloat(string(top.get("code")), 64); err != nil || code != 0 {
		return answer, nil, false
	}
	data, err := parseObject(top.get("data"))
	if err != nil {
		return answer, nil, false
	}
	if err := json.Unmarshal(data.get("domains"), &domains); err == nil && rw.domainPrefix != "" {
		inside := make([]string, len(domains))
		for i, d := range domains {
			inside[i] = rw.domainPrefix + d
		}
		data.set("domains", encode(inside))
		changed = changed || len(domains) > 0
	}
	if rw.loggerDomain != "" {
		config, err := parseObject(data.get("config"))
		if err == nil || rw.insert {
			config.set("loggerDomain", encode(rw.loggerDomain))
			data.set("config", config.encode())
			changed = true
		}
	}
	if rw.iceServers != nil && (rw.insert || data.get("iceServers") != nil) {
		data.set("iceServers", encodeICE(rw.iceServers))
		changed = true
	}
	if rw.policy != "" && (rw.insert || data.get("iceTransportPolicy") != nil) {
		data.set("iceTransportPolicy", encode(rw.policy))
		changed = true
	}
	if !changed {
		return answer, domains, false
	}
	top.set("data", data.encode())
	return top.encode(), domains, true
}

// encodeICE writes one RTCIceServer for each URL, as the SDK does with turnServer.
func encodeICE(servers []ICEServer) json.RawMessage {
	type rtcIceServer struct {
		URLs       string `json:"urls"`
		Username   string `json:"username,omitempty"`
		Credential string `json:"credential,omitempty"`
	}
	list := []rtcIceServer{}
	for _, s := range servers {
		for _, u := range s.URLs {
			list = append(list, rtcIceServer{u, s.Username, s.Credential})
		}
	}
	return encode(list)
}

// encode cannot fail for the strings and lists it is used with.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	return bytes.TrimSpace(b.Bytes())
}

// object is a JSON object whose members keep their order and bytes.
type object struct {
	keys   []string
	values []json.RawMessage
}

var errNoObject = errors.New("not a JSON object")

func parseObject(b []byte) (*object, error) {
	o := &object{}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return o, errNoObject
	}
	for d.More() {
		key, err := d.Token()
		name, ok := key.(string)
		if err != nil || !ok {
			return o, errNoObject
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return o, errNoObject
		}
		o.keys, o.values = append(o.keys, name), append(o.values, value)
	}
	if _, err := d.Token(); err != nil {
		return o, errNoObject
	}
	if _, err := d.Token(); err != io.EOF {
		return o, errNoObject
	}
	return o, nil
}

// get returns the bytes of a member, nil if there is none; of several the last, as
// JSON.parse takes it.
func (o *object) get(key string) json.RawMessage {
	for i := len(o.keys) - 1; i >= 0; i-- {
		if o.keys[i] == key {
			return o.values[i]
		}
	}
	return nil
}

// set replaces a member, or every one of that name, or appends it.
func (o *object) set(key string, value json.RawMessage) {
	found := false
	for i, k := range o.keys {
		if k == key {
			o.values[i], found = value, true
		}
	}
	if !found {
		o.keys, o.values = append(o.keys, key), append(o.values, value)
	}
}

func (o *object) encode() json.RawMessage {
	b := []byte{'{'}
	for i, k := range o.keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, encode(k)...)
		b = append(b, ':')
		b = append(b, o.values[i]...)
	}
	return append(b, '}')
}
