package trtccloud

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
)

// serveLog takes a report. The answer to a good one is the text "ok": the SDK
// compares it when reports are encrypted.
func (c *Cloud) serveLog(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
	if err != nil {
		return // cut on the way: not a report
	}
	q := r.URL.Query()
	rep := Report{
		Host:     r.Host,
		CmdType:  q.Get("cmdtype"),
		SDKAppID: q.Get("sdkappid"),
		Gzip:     q.Get("gzip"),
		Body:     body,
		Status:   http.StatusOK,
	}
	c.mu.Lock()
	fault := c.logStatus
	c.mu.Unlock()
	switch {
	case fault != 0:
		rep.Status = fault
	case r.Method != http.MethodPost:
		rep.Status = http.StatusMethodNotAllowed
	case rep.CmdType == "" || rep.SDKAppID == "" || len(body) == 0:
		rep.Status = http.StatusBadRequest
	}
	if rep.Gzip == "1" {
		if rep.Body, err = gunzip(body); err != nil {
			rep.Body, rep.Status = body, http.StatusBadRequest
		}
	}
	c.recorder.add(func(s *State) { s.Reports = append(s.Reports, rep) })
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.WriteHeader(rep.Status)
	io.WriteString(w, "ok")
}

func gunzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, 16<<20))
}
