package turn

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/turn/wire"
)

// UserSource is a database of users, see package userdb. Its methods are safe
// for concurrent use, and return soon after ctx ends. The type is a pointer,
// or else comparable: two settings with the same source share its answers.
type UserSource interface {
	// Keys returns the long-term keys of a user, none when there is no such user.
	Keys(ctx context.Context, realm, user string) ([][]byte, error)
	// Secrets returns the secrets for time-limited credentials.
	Secrets(ctx context.Context, realm string) ([]string, error)
	Close() error
}

// Database is where users of a realm are looked up who are not in Options.Users,
// and where further secrets come from. The Server closes its source when the
// options name it no more, and in Close.
//
// The keys in a database are made with MD5, so in a realm with one the server
// offers no other password algorithm.
type Database struct {
	Name    string // for log and metrics
	Realm   string // empty: that of the Options
	Source  UserSource
	Timeout time.Duration // of one lookup, default 2 s
	// Cache is how long an answer counts, default 1 min: for so long a user
	// who is gone from the database can still make allocations, and a
	// database that is down goes unnoticed by those who came before.
	Cache time.Duration
}

func (db Database) orDefault(realm string) Database {
	if db.Realm == "" {
		db.Realm = realm
	}
	if db.Timeout <= 0 {
		db.Timeout = 2 * time.Second
	}
	if db.Cache <= 0 {
		db.Cache = time.Minute
	}
	return db
}

const (
	// absentFor is how long "no such user" counts, if Cache is not shorter: a
	// new user does not wait long, and a stranger who tries one name over and
	// over does not reach the database.
	absentFor = 5 * time.Second
	// Users remembered. Strangers choose the absent names only.
	maxKnown, maxAbsent = 1 << 16, 1 << 12

	// Lookups under way, in all and begun by one source prefix, and requests
	// that wait for them.
	maxLookups          = 512
	maxLookupsPerSource = 64
	maxWaiting          = 1 << 13

	// secretsRetry is the first pause after the secrets could not be read.
	secretsRetry = time.Second
)

// question is what a database is asked: for the keys of a user, or for the
// secrets.
type question struct {
	secrets bool
	user    string
}

// answer is what it says. With an error it says nothing, and nobody gets in.
type answer struct {
	keys    []wire.Key
	secrets []string
	at      time.Time
	err     error
}

var (
	errLate    = errors.New("no answer in time")
	errStopped = errors.New("the database is not used any more")
)

// directory asks one database: never twice at once for the same, never more
// than a bounded number of questions at once, and never for what it knows. It
// does not block who asks.
type directory struct {
	Database
	report    func(d *directory, outcome string, took time.Duration, err error)
	ctx       context.Context // ends with stop
	cancel    context.CancelFunc
	perSource *limit.KeyedCap[netip.Prefix]
	wg        sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	known   recent[string, answer]
	absent  recent[string, answer]
	secrets answer // zero: never read
	pending map[question]*lookup
	running int // questions, those included that nobody waits for any more
	waiting int

	warned time.Time // of the last line in the log
	down   bool      // the log said so
}

// lookup is a question under way.
type lookup struct{ waiters []waiter }

// wait adds a waiter. d.mu is held.
func (l *lookup) wait(d *directory, w waiter) {
	d.waiting++
	l.waiters = append(l.waiters, w)
}

// waiter is a request that needs an answer. resume is called once, without a
// lock, by a goroutine of the directory.
type waiter struct {
	tuple  fiveTuple
	id     wire.TransactionID
	resume func(answer)
}

func newDirectory(db Database, report func(*directory, string, time.Duration, error)) *directory {
	ctx, cancel := context.WithCancel(context.Background())
	return &directory{
		Database: db, report: report, ctx: ctx, cancel: cancel,
		perSource: limit.NewKeyedCap[netip.Prefix](maxLookupsPerSource),
		known:     newRecent[string, answer](maxKnown),
		absent:    newRecent[string, answer](maxAbsent),
		pending:   make(map[question]*lookup),
	}
}

// start keeps the secrets fresh until stop, so that nobody waits for them.
func (d *directory) start() { d.wg.Go(d.keepSecrets) }

// stop ends all questions; whoever waits is resumed with errStopped. It
// returns when every goroutine has ended.
func (d *directory) stop() {
	d.mu.Lock()
	d.cancel()
	d.mu.Unlock()
	d.wg.Wait()
}

// find returns a known answer that still counts. One that is half as old as it
// may get is asked for again meanwhile, so that a user who comes often never waits.
func (d *directory) find(q question, now time.Time) (answer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.look(q, now)
}

// look is find; d.mu is held.
func (d *directory) look(q question, now time.Time) (answer, bool) {
	a, ok := d.secrets, !d.secrets.at.IsZero()
	if !q.secrets {
		if a, ok = d.absent.get(q.user); ok && now.Sub(a.at) < min(absentFor, d.Cache) {
			return a, true
		}
		a, ok = d.known.get(q.user)
	}
	age := now.Sub(a.at)
	if !ok || age >= d.Cache {
		return answer{}, false
	}
	if age >= d.Cache/2 && d.pending[q] == nil && d.running < maxLookups/2 && d.ctx.Err() == nil {
		d.begin(q, netip.Prefix{})
	}
	return a, true
}

// asked is what became of a question.
type asked int

const (
	askedHeld  asked = iota // the waiter will be resumed
	askedAgain              // the same request waits already
	askedFull               // there is no room
)

// ask resumes w when the question is answered, at the latest after Timeout.
func (d *directory) ask(q question, source netip.Prefix, w waiter) asked {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.pending[q]
	if l != nil && slices.ContainsFunc(l.waiters, func(o waiter) bool { return o.tuple == w.tuple && o.id == w.id }) {
		return askedAgain
	}
	if d.waiting >= maxWaiting || d.ctx.Err() != nil {
		return askedFull
	}
	if l == nil {
		// It may have been answered since the caller looked.
		if a, ok := d.look(q, time.Now()); ok {
			d.wg.Go(func() { w.resume(a) })
			return askedHeld
		}
		if d.running >= maxLookups || source.IsValid() && !d.perSource.Acquire(source) {
			return askedFull
		}
		d.begin(q, source, w)
		return askedHeld
	}
	l.wait(d, w)
	return askedHeld
}

// begin asks the database. Two goroutines do: one that obeys the deadline even
// if the source does not, and the one that calls the source. d.mu is held.
func (d *directory) begin(q question, source netip.Prefix, waiters ...waiter) *lookup {
	l := &lookup{waiters}
	d.waiting += len(waiters)
	d.pending[q] = l
	d.running++
	ctx, cancel := context.WithTimeout(d.ctx, d.Timeout)
	said := make(chan answer, 1)
	d.wg.Go(func() {
		defer cancel()
		a := d.query(ctx, q)
		d.mu.Lock()
		d.running--
		d.remember(q, a)
		d.mu.Unlock()
		if source.IsValid() {
			d.perSource.Release(source)
		}
		said <- a
	})
	d.wg.Go(func() {
		var a answer
		select {
		case a = <-said:
		case <-ctx.Done():
			select {
			case a = <-said: // ctx ends with the question, too
			default:
				a.err = errLate
			}
		}
		if d.ctx.Err() != nil {
			a = answer{err: errStopped}
		}
		d.mu.Lock()
		if d.pending[q] == l {
			delete(d.pending, q)
		}
		waiters := l.waiters
		l.waiters = nil
		d.waiting -= len(waiters)
		d.mu.Unlock()
		for _, w := range waiters {
			w.resume(a)
		}
	})
	return l
}

// query asks the source and reports how that went.
func (d *directory) query(ctx context.Context, q question) (a answer) {
	began := time.Now()
	outcome := "absent"
	if q.secrets {
		a.secrets, a.err = d.Source.Secrets(ctx, d.Realm)
		outcome = "secrets"
	} else {
		var keys [][]byte
		keys, a.err = d.Source.Keys(ctx, d.Realm, q.user)
		for _, k := range keys {
			a.keys = append(a.keys, wire.Key(k))
			outcome = "found"
		}
	}
	a.at = time.Now()
	if a.err != nil {
		if outcome = "failed"; ctx.Err() != nil {
			outcome = "timeout"
		}
	}
	if d.ctx.Err() == nil {
		d.report(d, outcome, a.at.Sub(began), a.err)
	}
	return a
}

// remember keeps an answer. An error is none. d.mu is held.
func (d *directory) remember(q question, a answer) {
	switch {
	case a.err != nil:
	case q.secrets:
		d.secrets = a
	case len(a.keys) > 0:
		d.absent.delete(q.user)
		d.known.put(q.user, a)
	default:
		d.known.delete(q.user)
		d.absent.put(q.user, a)
	}
}

// keepSecrets asks for the secrets at half of the time that they count.
func (d *directory) keepSecrets() {
	retry := secretsRetry
	for {
		said := make(chan answer, 1)
		d.mu.Lock()
		w := waiter{resume: func(a answer) { said <- a }}
		if l := d.pending[question{secrets: true}]; l != nil {
			l.wait(d, w)
		} else {
			d.begin(question{secrets: true}, netip.Prefix{}, w)
		}
		d.mu.Unlock()
		pause := d.Cache / 2
		if a := <-said; a.err != nil {
			pause = min(retry, pause)
			retry = min(2*retry, d.Cache/2)
		} else {
			retry = secretsRetry
		}
		select {
		case <-time.After(pause):
		case <-d.ctx.Done():
			return
		}
	}
}
