package turn

import "strings"

// TrialUser is what the id of a time-limited credential begins with that was
// made to try this server, for somebody of whom nothing else is known: its
// allocations reach relays of this server and nobody else, are few and slow,
// and end soon after the credential does.
const TrialUser = "turngate-check-"

const (
	trialAllocations    = 48      // four ways to the server at both ends, from each of six addresses of a computer
	trialBytesPerSecond = 500_000 // each direction: a small picture needs a fifth of it
)

// isTrial reports whether a user has such a credential.
func isTrial(user string) bool {
	_, id, timed := strings.Cut(user, ":")
	return timed && strings.HasPrefix(id, TrialUser)
}

// userRate is the limit of bandwidth of one user.
func (l Limits) userRate(user string) int64 {
	if all := l.BytesPerSecondPerUser; all > 0 && all < trialBytesPerSecond || !isTrial(user) {
		return all
	}
	return trialBytesPerSecond
}
