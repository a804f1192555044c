package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Finding is one thing that is wrong with a configuration.
type Finding struct {
	Severity string `json:"severity,omitempty"` // "error" or "warning"
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Key      string `json:"key,omitempty"`
	What     string `json:"what"`
	Fix      string `json:"fix,omitempty"`
}

// String is the finding on one line: file:line: key: what; fix.
func (f Finding) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":")
	}
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:", f.Line)
	}
	for _, part := range []string{f.Severity, f.Key} {
		if part != "" {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(part + ":")
		}
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(f.What)
	if f.Fix != "" {
		b.WriteString("; " + f.Fix)
	}
	return b.String()
}

// Error is an answer other than success. It is what a handler returns to choose
// the status, and what Client.Do returns when the server gave one.
type Error struct {
	Status   int       `json:"-"`
	Message  string    `json:"error"`
	Findings []Finding `json:"findings,omitempty"`
}

// Refused is the answer to a reload that changed nothing: 422 and why.
func Refused(message string, findings []Finding) *Error {
	return &Error{Status: http.StatusUnprocessableEntity, Message: message, Findings: findings}
}

// Error is the message, and each finding on a line of its own.
func (e *Error) Error() string {
	lines := []string{e.Message}
	for _, f := range e.Findings {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// JSON makes a handler of f: its value is the body of a 200 (a nil value gives
// 204), an *Error in its error's chain chooses the status, any other error is a
// 500 with its text.
func JSON(f func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := f(r)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				e = &Error{Status: http.StatusInternalServerError, Message: err.Error()}
			}
			writeJSON(w, e.Status, e)
			return
		}
		if out == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		writeJSON(w, http.StatusOK, out)
	})
}

// Read decodes the JSON body of a request into in, strictly: an unknown field
// is a 400, since a misspelt one would do something else than asked for.
func Read(r *http.Request, in any) error {
	const maxBytes = 1 << 20
	dec := json.NewDecoder(io.LimitReader(r.Body, maxBytes))
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil {
		return &Error{Status: http.StatusBadRequest, Message: "request body: " + err.Error()}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}
