package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
)

// A Field is a header field that a route adds to requests. In the value stand for
//
//	{client}  the address of the client
//	{peer}    the address of the TCP peer: the client, or a trusted proxy
//	{id}      32 hexadecimal digits, another for each request, or what a trusted proxy
//	          gave as X-Request-ID where the policy identifies; X-Request-ID has the same
//	{host}    the Host that the client asked for
//	{proto}   "https" or "http", as the client came
type Field struct {
	Name  string // sent in this spelling
	Value string
}

// placeholders are what may stand in braces in the value of a Field.
var placeholders = []string{"{client}", "{peer}", "{id}", "{host}", "{proto}"}

// ParseField checks a field to add.
func ParseField(name, value string) (Field, error) {
	key := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case !ValidName(name):
		return Field{}, fmt.Errorf("%q is no name of a header field", name)
	case hopByHop[key], key == "Host", key == "Content-Length", key == "Expect", key == "X-Forwarded-For", strings.HasPrefix(key, "Sec-Websocket-"):
		return Field{}, fmt.Errorf("the field %s is not to be set", name)
	case !ValidValue(value):
		return Field{}, fmt.Errorf("the value of %s has a control byte in it", name)
	}
	rest := value
	for _, p := range placeholders {
		rest = strings.ReplaceAll(rest, p, "")
	}
	if strings.ContainsAny(rest, "{}") {
		return Field{}, fmt.Errorf("the value of %s has braces around none of %s", name, strings.Join(placeholders, ", "))
	}
	return Field{name, value}, nil
}

// static reports whether the value is the same for each request.
func (f Field) static() bool { return !strings.Contains(f.Value, "{") }

// adds reports whether the policy writes a field itself, by its canonical name.
func (p *HeaderPolicy) adds(name string) bool {
	for _, f := range p.Add {
		if strings.EqualFold(f.Name, name) {
			return true
		}
	}
	return false
}

// add writes the fields of the policy into out, in place of what stands there.
func (p *HeaderPolicy) add(r *http.Request, id string, out http.Header) {
	for _, f := range p.Add {
		value := f.Value
		if !f.static() {
			if id == "" && strings.Contains(value, "{id}") {
				id = newID()
			}
			host := ""
			if ValidHost(r.Host) {
				host = r.Host
			}
			value = strings.NewReplacer("{client}", text(p.Trust.Client(r)), "{peer}", text(Peer(r).Addr()),
				"{id}", id, "{host}", host, "{proto}", proto(r)).Replace(value)
		}
		out[textproto.CanonicalMIMEHeaderKey(f.Name)] = []string{value}
	}
}

// AddStatic writes the fields of the policy that are the same for each request, for
// requests of our own.
func (p *HeaderPolicy) AddStatic(out http.Header) {
	for _, f := range p.Add {
		if f.static() {
			out[textproto.CanonicalMIMEHeaderKey(f.Name)] = []string{f.Value}
		}
	}
}

// Spelling returns a name as it is written on the wire; the client's own spelling is not
// known any more. A nil policy adds none of its own.
func (p *HeaderPolicy) Spelling(name string) string {
	if p != nil {
		for _, f := range p.Add {
			if strings.EqualFold(f.Name, name) {
				return f.Name
			}
		}
	}
	switch name {
	case "X-Real-Ip":
		return "X-Real-IP"
	case "X-Request-Id":
		return "X-Request-ID"
	}
	return name
}

// text returns an address, "" for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func proto(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
