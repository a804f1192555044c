package logger

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// A report is a request as it waits on the disk: what is needed to send it again, and nothing
// else. Its query is part of that, as the client sent it, and may hold a signature of the
// user's; the directory is for turngate's user alone, and [Route.SpoolAge] bounds how long.
type report struct {
	At     time.Time   `json:"at"` // it came
	Rest   string      `json:"rest"`
	Query  string      `json:"query,omitempty"`
	Header http.Header `json:"header"`

	// Aside is how often it was put behind the others: they passed and it did not.
	Aside int `json:"aside,omitempty"`

	body []byte
}

// replayed are the fields that a report keeps: what its body is, and where it comes from. Cookie
// and Authorization are never written to the disk, also where the route passes them on.
var replayed = []string{"Content-Type", "Content-Encoding", "Origin", "User-Agent", "X-Forwarded-For"}

// newReport makes a report of a request with the header that would go upstream.
func newReport(header http.Header, rest, query string, body []byte) report {
	keep := make(http.Header, len(replayed))
	for _, name := range replayed {
		if v := header[name]; v != nil {
			keep[name] = v
		}
	}
	return report{At: time.Now().UTC(), Rest: rest, Query: query, Header: keep, body: body}
}

// encode writes one line of JSON and the body behind it, byte for byte.
func (r report) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and a time
	}
	return append(append(b, '\n'), r.body...)
}

func decodeReport(b []byte) (r report, err error) {
	head, body, ok := bytes.Cut(b, []byte{'\n'})
	if !ok {
		return r, errors.New("no end of the head")
	}
	if err := json.Unmarshal(head, &r); err != nil {
		return r, err
	}
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	r.body = body
	return r, nil
}
