package turn

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/turn/wire"
)

// maxHeld is the largest request that is copied to wait for a database.
const maxHeld = unprovenFrame

// looked is what databases have said about a request so far.
type looked struct{ secrets, user *answer }

// found is what a lookup came to.
type found int

const (
	foundNone     found = iota // no user of the database made the request
	foundKey                   // the key made it
	foundLater                 // the request is held, or dropped for its retransmission
	foundNoAnswer              // the database does not say
)

// directory returns the database of the realm of a request, or nil.
func (r *request) directory() *directory { return r.set.directories[r.realm] }

// lookUp tries a request with what a database knows of its user. It never
// blocks for a datagram: if the database has to be asked, the request is
// copied and handled again when there is an answer. The goroutine of a stream
// waits itself, which holds up nobody else.
//
// A request of an allocation is never looked up: the key that made it counts.
func (s *Server) lookUp(r *request, user string, a wire.Algorithm) (wire.Key, found) {
	d := r.directory()
	if d == nil || user == "" || r.session != nil && r.session.user == user {
		return nil, foundNone
	}
	if expires, ok := expiry(user); ok && r.now.Before(expires) {
		said, verdict := s.consult(r, d, question{secrets: true})
		if verdict != foundKey {
			return nil, verdict
		}
		for _, secret := range said.secrets {
			if key := a.NewKey(user, r.realm, restPassword(secret, user)); r.madeWith(key) {
				return key, foundKey
			}
		}
	}
	if a != wire.MD5 {
		return nil, foundNone
	}
	said, verdict := s.consult(r, d, question{user: user})
	if verdict != foundKey {
		return nil, verdict
	}
	keys := said.keys
	if len(keys) == 0 { // takes as long as a wrong password
		keys = []wire.Key{s.nonces.key[:16]}
	}
	for _, key := range keys {
		if r.madeWith(key) {
			return key, foundKey
		}
	}
	return nil, foundNone
}

// consult returns the answer to a question, foundLater when the request has to
// wait for it, and foundNoAnswer when there is none.
func (s *Server) consult(r *request, d *directory, q question) (answer, found) {
	said := &r.looked.user
	if q.secrets {
		said = &r.looked.secrets
	}
	if *said == nil {
		if a, ok := d.find(q, r.now); ok {
			s.metrics.looked(d, "cached", 0)
			return a, foundKey
		}
		a, verdict := s.await(r, d, q)
		if verdict != foundKey {
			return a, verdict
		}
		*said = &a
	}
	if (*said).err != nil {
		return answer{}, foundNoAnswer
	}
	return **said, foundKey
}

// await asks the database.
func (s *Server) await(r *request, d *directory, q question) (answer, found) {
	source := limit.Source(r.tuple.client.Addr())
	if r.tuple.transport != UDP {
		said := make(chan answer, 1)
		switch d.ask(q, source, waiter{r.tuple, r.msg.ID, func(a answer) { said <- a }}) {
		case askedHeld:
			a := <-said
			if errors.Is(a.err, errStopped) && !s.isClosed() { // by a reload
				r.set = s.settings.Load()
				if other := r.directory(); other != nil && other != d {
					return s.await(r, other, q)
				}
			}
			return a, foundKey
		default:
			s.metrics.looked(d, "busy", 0)
			return answer{}, foundNoAnswer
		}
	}
	if len(r.raw) > maxHeld {
		s.metrics.dropped.WithLabelValues("malformed").Inc()
		return answer{}, foundLater
	}
	tuple, from, raw, before := r.tuple, r.from, slices.Clone(r.raw), r.looked
	again := func(a answer) {
		switch {
		case errors.Is(a.err, errStopped): // by a reload, which may have put another one in its place
			before = looked{}
		case q.secrets:
			before.secrets = &a
		default:
			before.user = &a
		}
		if !s.isClosed() {
			s.process(tuple, from, raw, before)
		}
	}
	switch d.ask(q, source, waiter{tuple, r.msg.ID, again}) {
	case askedAgain:
		s.metrics.dropped.WithLabelValues("retransmission").Inc()
	case askedFull: // the client repeats it
		s.metrics.looked(d, "busy", 0)
	}
	return answer{}, foundLater
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// secrets returns all that time-limited credentials of the request's realm may
// be made with, as far as they are known without asking.
func (r *request) secrets() []string {
	all := r.set.Secrets
	if d := r.directory(); d != nil {
		if a, ok := d.find(question{secrets: true}, r.now); ok {
			all = slices.Concat(all, a.secrets)
		}
	}
	return all
}

// directories makes the directories of options, or takes over those of the
// settings in force with all that they remember.
func (s *Server) newDirectories(o Options) (map[string]*directory, error) {
	all := make(map[string]*directory)
	for _, db := range o.Databases {
		db = db.orDefault(o.Realm)
		switch {
		case db.Source == nil:
			return nil, fmt.Errorf("database %q: no source", db.Name)
		case all[db.Realm] != nil:
			return nil, fmt.Errorf("database %q: realm %q has one already", db.Name, db.Realm)
		}
		if set := s.settings.Load(); set != nil {
			if d := set.directories[db.Realm]; d != nil && d.Database == db {
				all[db.Realm] = d
				continue
			}
		}
		all[db.Realm] = newDirectory(db, s.tellOfLookup)
	}
	return all, nil
}

// swapDirectories starts what is new and stops what is gone. Whoever waits for
// an answer of what is gone is handled again by the settings in force.
func (s *Server) swapDirectories(old, next map[string]*directory) {
	kept := make(map[*directory]bool)
	sources := make(map[UserSource]bool)
	for _, d := range next {
		kept[d], sources[d.Source] = true, true
	}
	for _, d := range old {
		if kept[d] {
			delete(kept, d) // it runs
			continue
		}
		s.wg.Go(func() {
			d.stop()
			if !sources[d.Source] {
				_ = d.Source.Close()
			}
		})
	}
	for d := range kept {
		d.start()
	}
}

// stopDirectories ends every question; nothing waits for one afterwards.
func (s *Server) stopDirectories() {
	for _, d := range s.settings.Load().directories {
		d.stop()
		_ = d.Source.Close()
	}
}

// tellOfLookup counts a lookup, and tells the operator of a database that does
// not answer and of one that does so again.
func (s *Server) tellOfLookup(d *directory, outcome string, took time.Duration, err error) {
	s.metrics.looked(d, outcome, took)
	log := s.settings.Load().Log.With("database", d.Name, "realm", d.Realm)
	d.mu.Lock()
	now := time.Now()
	warn := err != nil && now.Sub(d.warned) >= sampleEvery
	again := err == nil && d.down
	if warn {
		d.warned, d.down = now, true
	} else if again {
		d.down = false
	}
	d.mu.Unlock()
	switch {
	case warn:
		log.Warn("user database does not answer: users that are not remembered are refused", "err", err, "timeout", d.Timeout)
	case again:
		log.Info("user database answers again")
	}
}

// stillKnown reports whether a user who is not in the options may go on with an
// allocation although credentials are to be valid at every request: the
// database is not asked again, but a time-limited name says itself when it ends.
func (r *request) stillKnown(user string) bool {
	expires, ok := expiry(user)
	return r.directory() != nil && (!ok || r.now.Before(expires))
}
