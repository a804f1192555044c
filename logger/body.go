package logger

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// smallBody is the size up to which a body is read before the upstream is asked.
const smallBody = 64 << 10

// A body that crawls is cut: after a first allowance it has to keep up minRate.
const (
	firstAllowance = 15 * time.Second
	minRate        = 4 << 10 // bytes per second
)

var (
	errTooBig = errors.New("the body is over the limit")
	errSlow   = errors.New("the body arrives too slowly")
)

// An upload is a request's body on its way: counted, with a deadline for each read and a
// lowest rate for the whole. Close does nothing, so that a transport that failed before it read
// can be followed by another. After stop no read touches the connection.
type upload struct {
	body     io.Reader
	setRead  func(time.Time) error
	max      int64
	pause    time.Duration
	began    time.Time
	received int64

	mu      sync.Mutex // guards the fields below
	started bool
	stopped bool
	err     error // errTooBig or errSlow
}

func newUpload(w http.ResponseWriter, r *http.Request, rt *route) *upload {
	return &upload{
		body: r.Body, setRead: http.NewResponseController(w).SetReadDeadline,
		max: rt.maxBody, pause: rt.readTimeout, began: time.Now(),
	}
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	if u.stopped || u.err != nil {
		defer u.mu.Unlock()
		if u.err != nil {
			return 0, u.err
		}
		return 0, io.ErrClosedPipe
	}
	u.started = true
	now := time.Now()
	deadline := u.began.Add(firstAllowance + time.Duration(u.received/minRate)*time.Second)
	if d := now.Add(u.pause); d.Before(deadline) {
		deadline = d
	}
	_ = u.setRead(deadline)
	u.mu.Unlock()

	n, err := u.body.Read(p)
	u.received += int64(n)
	if u.received > u.max {
		n -= int(u.received - u.max)
		err = errTooBig
	} else if err != nil && err != io.EOF && (errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(deadline)) {
		// In h2 the deadline of the read before may be the one that passed.
		err = errSlow
	}
	if err == io.EOF {
		u.complete()
	} else if err != nil {
		u.mu.Lock()
		u.err = err
		u.mu.Unlock()
	}
	return n, err
}

// complete takes the deadline from the connection when the body is there: the server
// watches the connection for the client's leaving, and would take the deadline for it.
func (u *upload) complete() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stopped {
		_ = u.setRead(time.Time{})
	}
}

// Close lets the body be read on by a later attempt.
func (u *upload) Close() error { return nil }

// stop ends all reading and takes the deadline from the connection, which may carry further
// requests. It returns why the body was cut, if it was.
func (u *upload) stop() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.stopped {
		u.stopped = true
		_ = u.setRead(time.Time{})
	}
	return u.err
}

// touched reports whether any of the body was read.
func (u *upload) touched() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.started
}

// failed reports whether the body was cut or broke off.
func (u *upload) failed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err != nil
}
