package turn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/turngate/turngate/turn/wire"
)

// Book is a database in memory, also for the tests outside the package. While
// it is slow it answers nobody. Its fields are touched in Change only.
type Book struct {
	mu      sync.Mutex
	Users   map[string][]byte // keys
	Secret  string
	Err     error
	Slow    bool
	Gate    chan struct{} // what is asked from now on is answered when it is closed
	Closed  bool
	Waiting map[string]chan struct{} // closed when the user is asked for

	asked map[string]int // users; "" are the secrets
	most  int            // questions at once
	now   int
}

// NewBook makes a database of users with a key that nobody knows.
func NewBook(users ...string) *Book {
	b := &Book{Users: make(map[string][]byte), Waiting: make(map[string]chan struct{}), asked: make(map[string]int)}
	for _, u := range users {
		b.Users[u] = []byte(strings.Repeat("k", 16))
	}
	return b
}

// Change changes the database.
func (b *Book) Change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *Book) begin(ctx context.Context, user string) error {
	b.mu.Lock()
	b.asked[user]++
	if c := b.Waiting[user]; c != nil {
		close(c)
		delete(b.Waiting, user)
	}
	b.now++
	b.most = max(b.most, b.now)
	slow, err, gate := b.Slow, b.Err, b.Gate
	b.mu.Unlock()
	defer b.Change(func() { b.now-- })
	if slow {
		<-ctx.Done()
		return ctx.Err()
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// Keys implements UserSource.
func (b *Book) Keys(ctx context.Context, _, user string) ([][]byte, error) {
	if err := b.begin(ctx, user); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if k, ok := b.Users[user]; ok {
		return [][]byte{k}, nil
	}
	return nil, nil
}

// Secrets implements UserSource.
func (b *Book) Secrets(ctx context.Context, _ string) ([]string, error) {
	if err := b.begin(ctx, ""); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Secret == "" {
		return nil, nil
	}
	return []string{b.Secret}, nil
}

// Close implements UserSource.
func (b *Book) Close() error { b.Change(func() { b.Closed = true }); return nil }

// Count returns how often the database was asked for a user, "" for the secrets.
func (b *Book) Count(user string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[user]
}

// directoryOf makes a directory inside a synctest bubble.
func directoryOf(t *testing.T, b *Book) *directory {
	t.Helper()
	return newDirectory(Database{Source: b}.orDefault("r"), func(*directory, string, time.Duration, error) {})
}

func client4(n int) fiveTuple {
	return fiveTuple{transport: UDP, client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), 1000)}
}

// wait asks as the n-th client and returns the answer that it will get.
func (d *directory) wait(t *testing.T, n int, user string) <-chan answer {
	t.Helper()
	said := make(chan answer, 2)
	tuple := client4(n)
	source, _ := tuple.client.Addr().Prefix(32)
	got := d.ask(question{user: user}, source, waiter{tuple, wire.NewTransactionID(), func(a answer) { said <- a }})
	if got != askedHeld {
		t.Fatalf("client %d asks for %q: got %v, want held", n, user, got)
	}
	return said
}

func TestADirectoryRemembersAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook("alice")
		d := directoryOf(t, b)
		defer d.stop()
		known := func(user string) (found, there bool) {
			a, ok := d.find(question{user: user}, time.Now())
			synctest.Wait()
			return ok, len(a.keys) > 0
		}
		if ok, _ := known("alice"); ok {
			t.Fatal("an answer nobody gave")
		}
		<-d.wait(t, 1, "alice")
		<-d.wait(t, 1, "mallory")
		if ok, there := known("alice"); !ok || !there {
			t.Error("a user who was found is not remembered")
		}
		if ok, there := known("mallory"); !ok || there {
			t.Error("that there is no such user is not remembered")
		}

		// A name that was not there is asked for again after a short time.
		time.Sleep(absentFor)
		if ok, _ := known("mallory"); ok {
			t.Error("a new user waits longer than absentFor")
		}

		// A user who comes often is asked for again in the background.
		time.Sleep(d.Cache/2 - absentFor)
		if ok, there := known("alice"); !ok || !there || b.Count("alice") != 2 {
			t.Errorf("at half the time: known %v, asked %d times; want known and asked twice", ok, b.Count("alice"))
		}

		// Gone from the database: gone here after Cache at the latest.
		b.Change(func() { delete(b.Users, "alice") })
		time.Sleep(d.Cache - time.Second)
		if ok, there := known("alice"); !ok || !there {
			t.Error("an answer does not count for Cache")
		}
		if ok, there := known("alice"); !ok || there {
			t.Error("the user who was removed is still there after the question in the background")
		}
		time.Sleep(d.Cache)
		if ok, _ := known("alice"); ok {
			t.Error("an answer counts longer than Cache")
		}
	})
}

func TestADatabaseThatIsDownAnswersNobodyAndForgetsNobodyBeforeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook("alice")
		d := directoryOf(t, b)
		defer d.stop()
		<-d.wait(t, 1, "alice")
		b.Change(func() { b.Err = errors.New("down") })
		time.Sleep(d.Cache - time.Second)
		if a, ok := d.find(question{user: "alice"}, time.Now()); !ok || len(a.keys) == 0 {
			t.Error("a remembered user is gone with the database")
		}
		if a := <-d.wait(t, 2, "bob"); a.err == nil {
			t.Error("a database that is down gave an answer")
		}
		if _, ok := d.find(question{user: "bob"}, time.Now()); ok {
			t.Error("an error was remembered as an answer")
		}
		time.Sleep(time.Second)
		if _, ok := d.find(question{user: "alice"}, time.Now()); ok {
			t.Error("an answer counts longer than Cache while the database is down")
		}
	})
}

func TestOneQuestionForAllWhoAskTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook("alice")
		b.Slow = true
		d := directoryOf(t, b)
		defer d.stop()
		began := time.Now()
		var all []<-chan answer
		for n := range 100 {
			all = append(all, d.wait(t, n, "alice"))
		}
		for _, said := range all {
			if a := <-said; a.err == nil {
				t.Fatal("a database that never answers gave an answer")
			}
		}
		if took := time.Since(began); took != d.Timeout {
			t.Errorf("who waits was told after %v, want %v", took, d.Timeout)
		}
		if n := b.Count("alice"); n != 1 {
			t.Errorf("100 clients of one user asked %d times, want once", n)
		}
	})
}

func TestARetransmissionDoesNotWaitTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		b.Slow = true
		d := directoryOf(t, b)
		defer d.stop()
		said := make(chan answer, 2)
		w := waiter{client4(1), wire.NewTransactionID(), func(a answer) { said <- a }}
		first := d.ask(question{user: "x"}, netip.Prefix{}, w)
		again := d.ask(question{user: "x"}, netip.Prefix{}, w)
		if first != askedHeld || again != askedAgain {
			t.Errorf("got %v and %v, want held and again", first, again)
		}
		<-said
		synctest.Wait()
		if len(said) != 0 {
			t.Error("one request was resumed twice")
		}
	})
}

func TestQuestionsUnderWayAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		b.Slow = true
		d := directoryOf(t, b)
		defer d.stop()
		refused := func(n int, source netip.Prefix) bool {
			w := waiter{client4(n), wire.NewTransactionID(), func(answer) {}}
			return d.ask(question{user: fmt.Sprint(n)}, source, w) == askedFull
		}
		one := netip.MustParsePrefix("192.0.2.1/32")
		for n := range maxLookupsPerSource {
			if refused(n, one) {
				t.Fatalf("question %d of one source is refused", n)
			}
		}
		if !refused(1000, one) {
			t.Error("one source has no limit of its own")
		}
		for n := range maxLookups - maxLookupsPerSource {
			source, _ := client4(n).client.Addr().Prefix(32)
			if refused(2000+n, source) {
				t.Fatalf("question %d of all is refused", maxLookupsPerSource+n)
			}
		}
		if !refused(9999, netip.MustParsePrefix("198.51.100.1/32")) {
			t.Error("there is no limit in all")
		}
		time.Sleep(d.Timeout)
		synctest.Wait()
		if refused(1000, one) {
			t.Error("the room is not given back")
		}
		b.Change(func() {
			if b.most != maxLookups {
				t.Errorf("the database was asked %d questions at once, want %d", b.most, maxLookups)
			}
		})
	})
}

func TestSecretsAreReadInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		b.Secret = "north"
		d := directoryOf(t, b)
		d.start()
		defer d.stop()
		now := func() []string {
			synctest.Wait()
			a, _ := d.find(question{secrets: true}, time.Now())
			synctest.Wait()
			return a.secrets
		}
		if got := now(); len(got) != 1 || got[0] != "north" {
			t.Fatalf("at the start: got %q, want north", got)
		}
		b.Change(func() { b.Secret = "south" })
		time.Sleep(d.Cache / 2)
		if got := now(); len(got) != 1 || got[0] != "south" {
			t.Errorf("after half of Cache: got %q, want south", got)
		}
		b.Change(func() { b.Err = errors.New("down") })
		time.Sleep(d.Cache - time.Second)
		if got := now(); len(got) != 1 {
			t.Errorf("while the database is down: got %q, want what was read last", got)
		}
		time.Sleep(2 * time.Second)
		if got := now(); len(got) != 0 {
			t.Errorf("a Cache later: got %q, want nothing", got)
		}
		b.Change(func() { b.Err = nil })
		time.Sleep(d.Cache / 2)
		if got := now(); len(got) != 1 {
			t.Errorf("when it is up again: got %q, want south", got)
		}
	})
}

func TestStopResumesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		b.Slow = true
		d := directoryOf(t, b)
		d.start()
		said := d.wait(t, 1, "alice")
		d.stop()
		if a := <-said; !errors.Is(a.err, errStopped) {
			t.Errorf("got %v, want errStopped", a.err)
		}
		if got := d.ask(question{user: "x"}, netip.Prefix{}, waiter{}); got != askedFull {
			t.Errorf("a question after stop: got %v, want refused", got)
		}
	})
}

func TestRecentForgetsTheOldest(t *testing.T) {
	r := newRecent[int, string](3)
	for k := range 3 {
		r.put(k, fmt.Sprint(k))
	}
	r.get(0)
	r.put(3, "3")
	for k, want := range []bool{true, false, true, true} {
		if v, ok := r.get(k); ok != want || ok && v != fmt.Sprint(k) {
			t.Errorf("get(%d) = %q, %v; want there: %v", k, v, ok, want)
		}
	}
	r.put(3, "three")
	r.delete(0)
	r.delete(99)
	if v, _ := r.get(3); v != "three" || r.order.Len() != 2 || len(r.at) != 2 {
		t.Errorf("got %q and %d entries, want three and 2", v, r.order.Len())
	}
}
