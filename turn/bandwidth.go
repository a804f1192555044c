package turn

import (
	"sync"

	"github.com/turngate/turngate/turn/relay"
)

// bandwidth keeps the budgets of bytes a second: one of all, one of each user
// with an allocation, one of each allocation. Live allocations follow a
// reload.
type bandwidth struct {
	total *relay.Budget
	hits  *limitHits

	mu     sync.Mutex // guards the fields below
	limits Limits
	users  map[string]*userBudget // of users with an allocation
}

type userBudget struct {
	*relay.Budget
	sessions int
}

func newBandwidth(hits *limitHits) *bandwidth {
	return &bandwidth{
		total: relay.NewBudget(0, &hits[limitTotalBytes]),
		hits:  hits,
		users: make(map[string]*userBudget),
	}
}

// set changes the limits of everybody but the live allocations, which follow
// with apply.
func (b *bandwidth) set(l Limits) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits = l
	b.total.SetRate(l.BytesPerSecond)
	for user, u := range b.users {
		u.SetRate(l.userRate(user))
	}
}

// join gives a new allocation its budgets, leave takes it out again.
func (b *bandwidth) join(ses *session) {
	b.mu.Lock()
	u := b.users[ses.user]
	if u == nil {
		u = &userBudget{Budget: relay.NewBudget(b.limits.userRate(ses.user), &b.hits[limitUserBytes])}
		b.users[ses.user] = u
	}
	u.sessions++
	b.mu.Unlock()
	ses.budgets.user = u
	ses.budgets.own = relay.NewBudget(0, &b.hits[limitAllocationBytes])
	b.apply(ses)
}

func (b *bandwidth) leave(ses *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := ses.budgets.user; u != nil {
		if u.sessions--; u.sessions == 0 {
			delete(b.users, ses.user)
		}
	}
}

// apply brings a live allocation in line with the limits. What is unlimited
// is not even asked.
func (b *bandwidth) apply(ses *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ses.budgets.own.SetRate(b.limits.BytesPerSecondPerAllocation)
	var asked []*relay.Budget
	for _, budget := range []*relay.Budget{ses.budgets.own, ses.budgets.user.Budget, b.total} {
		if budget.Rate() > 0 {
			asked = append(asked, budget)
		}
	}
	for _, l := range ses.legs {
		l.relay.SetBudgets(asked...)
	}
}

// sessionBudgets are the budgets of one session; set once, by join.
type sessionBudgets struct {
	own  *relay.Budget
	user *userBudget
}
