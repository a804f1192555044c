package proxy

import (
	"sync"
	"time"
)

// downTime is how long an upstream that failed is passed over; then one request
// tries it.
const downTime = 10 * time.Second

// health is what is known about an upstream, from the requests that were sent there and
// from active checks. The pools of two configurations share it when they have the
// upstream in common.
type health struct {
	mu    sync.Mutex // guards the fields below
	until time.Time  // passed over until then; zero: the last request worked
	trial bool       // a request is under way to an upstream that is out

	failing bool      // what the checks say
	streak  int       // checks in a row that say the opposite
	checked time.Time // begin of the last check

	cause Cause     // of the last failure
	since time.Time // of the last change; zero: none yet
	noted time.Time // see Notable
	held  int       // connections open and being opened
}

// out reports whether anything speaks against the upstream; h.mu is held.
func (u *Upstream) out() bool { return !u.health.until.IsZero() || u.checked && u.health.failing }

// take reports whether a request may be sent to the upstream: it is healthy, or the
// trial is due and this request is it; h.mu is held.
func (u *Upstream) take(now time.Time) bool {
	h := u.health
	switch {
	case u.checked && h.failing:
		return false
	case h.until.IsZero():
		return true
	case h.until.After(now):
		return false
	}
	h.until, h.trial = now.Add(downTime), true
	return true
}

// Failed takes an upstream out; changed is true when it was healthy before. An error
// that says nothing about the upstream, as of a client that left, changes nothing: a trial
// that ended so is due again, or clients who leave could keep an upstream out.
func (u *Upstream) Failed(err error) (changed bool) {
	h := u.health
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	cause := Classify(err)
	if cause == CauseCanceled || cause == CauseLocal {
		if h.trial {
			h.until, h.trial = now, false
		}
		return false
	}
	before := u.out()
	h.until, h.trial, h.cause = now.Add(downTime), false, cause
	return u.changed(before, now)
}

// Worked puts an upstream back; changed is true when it was out before and is not now.
func (u *Upstream) Worked() (changed bool) {
	h := u.health
	h.mu.Lock()
	defer h.mu.Unlock()
	before := u.out()
	h.until, h.trial = time.Time{}, false
	return u.changed(before, time.Now())
}

// changed notes a change of what out says.
func (u *Upstream) changed(before bool, now time.Time) bool {
	if u.out() == before {
		return false
	}
	u.health.since = now
	return true
}

// Checked counts the result of an active check: nil is good. The upstream goes out after
// fall bad ones in a row, and comes back after rise good ones. changed is true when
// whether it can be used is another than before.
func (u *Upstream) Checked(err error, rise, fall int) (changed bool) {
	h := u.health
	h.mu.Lock()
	defer h.mu.Unlock()
	before := u.out()
	if err != nil {
		h.cause = Classify(err)
	}
	if (err != nil) == h.failing {
		h.streak = 0
		return false
	}
	h.streak++
	switch {
	case err != nil && h.streak >= fall:
		h.failing, h.streak = true, 0
	case err == nil && h.streak >= rise:
		h.failing, h.streak = false, 0
		h.until = time.Time{} // what failed meanwhile failed for the same reason
	}
	return u.changed(before, time.Now())
}

// NextCheck returns when the next check is due, one interval after the last one began.
// It is the same before and after a reload.
func (u *Upstream) NextCheck(interval time.Duration) time.Time {
	h := u.health
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checked.Add(interval)
}

// CheckBegins notes the time for [Upstream.NextCheck], and returns the one of the check
// before.
func (u *Upstream) CheckBegins() (last time.Time) {
	u.health.mu.Lock()
	defer u.health.mu.Unlock()
	last, u.health.checked = u.health.checked, time.Now()
	return last
}

// CheckUndone takes back a CheckBegins, with what that returned: the check found out
// nothing, and is due at once.
func (u *Upstream) CheckUndone(last time.Time) {
	u.health.mu.Lock()
	defer u.health.mu.Unlock()
	u.health.checked = last
}

// Notable reports whether a failure that leaves the upstream in use is worth a line in the
// log: one a minute is.
func (u *Upstream) Notable() bool {
	u.health.mu.Lock()
	defer u.health.mu.Unlock()
	if now := time.Now(); now.Sub(u.health.noted) >= time.Minute {
		u.health.noted = now
		return true
	}
	return false
}

// Release gives back what [Search.Next] took.
func (u *Upstream) Release() {
	u.health.mu.Lock()
	defer u.health.mu.Unlock()
	u.health.held--
}

// Health is the state of an upstream, for status pages and metrics.
type Health struct {
	Up          bool
	Since       time.Time // of the last change; zero: up since the start
	Cause       Cause     // why it is out
	Connections int       // open and being opened
}

// Health returns what is known now. An upstream that is out stays so until a request or
// a check has shown better.
func (u *Upstream) Health() Health {
	h := u.health
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Health{Up: !u.out(), Since: h.since, Connections: h.held}
	if !s.Up {
		s.Cause = h.cause
	}
	return s
}

// inherit makes u go on with what is known about the same upstream of another pool.
func (u *Upstream) inherit(old *Upstream) {
	u.health = old.health
	if u.checked && !old.checked { // what older checks said is not known to hold
		u.health.mu.Lock()
		defer u.health.mu.Unlock()
		u.health.failing, u.health.streak = false, 0
	}
}
