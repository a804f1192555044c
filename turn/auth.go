package turn

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/turn/wire"
)

// maxUserName is the longest USERNAME (RFC 8489 section 14.3).
const maxUserName = 508

// Credential makes a time-limited credential of a secret for an id, in the
// form that coturn's use-auth-secret made common.
func Credential(secret, id string, expires time.Time) (user, password string) {
	user = strconv.FormatInt(expires.Unix(), 10)
	if id != "" {
		user += ":" + id
	}
	return user, restPassword(secret, user)
}

func restPassword(secret, user string) string {
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(user))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// passwords returns the passwords of a user: those of the file, and those that
// the secrets make of a name that has not expired.
func (set *settings) passwords(user string, now time.Time) (passwords []string) {
	for _, u := range set.Users {
		if u.Name == user {
			passwords = append(passwords, u.Passwords...)
		}
	}
	if expires, ok := expiry(user); ok && now.Before(expires) {
		for _, secret := range set.Secrets {
			passwords = append(passwords, restPassword(secret, user))
		}
	}
	return passwords
}

// expiry reads the time in front of a time-limited user name.
func expiry(user string) (time.Time, bool) {
	at, _, _ := strings.Cut(user, ":")
	seconds, err := strconv.ParseUint(at, 10, 40)
	return time.Unix(int64(seconds), 0), err == nil
}

// userOf returns the user that a USERHASH stands for: the one of the
// allocation, or one of the file. The names of time-limited credentials are
// not known beforehand, so they cannot be hidden.
func (set *settings) userOf(hash []byte, realm string, ses *session) (string, bool) {
	if ses != nil && hashes(ses.user, ses.realm, hash) {
		return ses.user, true
	}
	for _, u := range set.Users {
		if hashes(u.Name, realm, hash) {
			return u.Name, true
		}
	}
	return "", false
}

func hashes(user, realm string, hash []byte) bool {
	want := wire.HashUser(user, realm)
	return string(want[:]) == string(hash)
}

// algorithms is the value of PASSWORD-ALGORITHMS: what is offered, the better
// one first, without parameters (RFC 8489 section 14.11).
var algorithms = func() (value []byte) {
	for _, a := range []wire.Algorithm{wire.SHA256, wire.MD5} {
		value = binary.BigEndian.AppendUint16(value, uint16(a))
		value = append(value, 0, 0)
	}
	return value
}()

// authenticate is RFC 8489 section 9.2.4. It fills in who the request is of
// and the key it was made with, or writes the refusal itself and returns false.
//
// The nonce is judged before the credential: it costs one MAC, and nobody who
// cannot receive at his address learns anything about a credential.
func (s *Server) authenticate(r *request) bool {
	if !r.msg.HasIntegrity() && !r.msg.HasIntegritySHA256() {
		s.challenge(r, 401)
		return false
	}
	name, hasName := r.msg.Get(wire.Username)
	hash, hasHash := r.msg.Get(wire.UserHash)
	realm, hasRealm := r.msg.Get(wire.Realm)
	nonce, hasNonce := r.msg.Get(wire.Nonce)
	if hasName == hasHash || !hasRealm || !hasNonce || len(name) > maxUserName {
		s.refuse(r, 400)
		return false
	}
	offered, ok := s.nonces.ok(nonce, r.tuple.client, r.now)
	if !ok {
		s.challenge(r, 438)
		return false
	}
	algorithm, ok := chosen(r.msg, offered)
	if !ok {
		s.refuse(r, 400)
		return false
	}
	user, known := string(name), true
	if hasHash {
		user, known = r.set.userOf(hash, r.realm, r.claimed())
	}
	if known && string(realm) == r.realm {
		for _, key := range s.candidates(r, user, algorithm) {
			if r.madeWith(key) {
				r.user, r.key, r.algorithm = user, key, algorithm
				return true
			}
		}
		switch key, found := s.lookUp(r, user, algorithm); found {
		case foundKey:
			r.user, r.key, r.algorithm = user, key, algorithm
			return true
		case foundLater:
			return false
		case foundNoAnswer: // not the client's failure
			s.challenge(r, 401)
			return false
		}
	}
	s.failed(r, user, algorithm)
	s.challenge(r, 401)
	return false
}

// chosen returns the password algorithm that a request was made with. One that
// answers an offer must repeat the whole offer, so that nobody in between can
// have taken the better algorithm out of it (bid-down, RFC 8489 section
// 9.2.1); one that names none is of a client that knows MD5 only.
func chosen(m *wire.Message, offered bool) (wire.Algorithm, bool) {
	all, hasAll := m.Get(wire.PasswordAlgorithms)
	one, hasOne := m.Get(wire.PasswordAlgorithm)
	switch {
	case !hasAll && !hasOne:
		return wire.MD5, true
	case !offered && !hasOne:
		return wire.MD5, true // comprehension-optional, and not asked for
	case !hasAll, !hasOne, string(all) != string(algorithms), len(one) != 4:
		return 0, false
	}
	a := wire.Algorithm(binary.BigEndian.Uint16(one))
	return a, (a == wire.MD5 || a == wire.SHA256) && one[2] == 0 && one[3] == 0
}

// madeWith reports whether the key made the integrity attribute of a request;
// of two the stronger one counts.
func (r *request) madeWith(key wire.Key) bool {
	if r.msg.HasIntegritySHA256() {
		return r.msg.IntegritySHA256OK(key)
	}
	return r.msg.IntegrityOK(key)
}

// candidates returns the keys to try. The key that made an allocation stays
// good for it: a password that is changed, or a credential that expires, ends
// no call. For an unknown user there is one key that fits nothing, so that the
// answer takes as long as for a wrong password.
func (s *Server) candidates(r *request, user string, a wire.Algorithm) (keys []wire.Key) {
	passwords := r.set.passwords(user, r.now)
	if ses := r.claimed(); ses != nil && ses.user == user && ses.algorithm == a && (!r.set.StrictExpiry && !isTrial(user) || len(passwords) == 0 && r.stillKnown(user)) {
		keys = append(keys, ses.key)
	}
	for _, p := range passwords {
		keys = append(keys, a.NewKey(user, r.realm, p))
	}
	if len(keys) == 0 {
		keys = append(keys, s.nonces.key[:16])
	}
	return keys
}
