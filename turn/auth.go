package turn

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"slices"
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

// keys returns the keys that a request of the user may be made with. expired
// tells that there would be keys had the credential not expired.
func (set *settings) keys(user string, now time.Time) (keys []wire.Key, expired bool) {
	for _, u := range set.Users {
		if u.Name == user {
			for _, p := range u.Passwords {
				keys = append(keys, wire.LongTermKey(user, set.Realm, p))
			}
		}
	}
	expires, ok := expiry(user)
	if !ok || len(set.Secrets) == 0 {
		return keys, false
	}
	if !now.Before(expires) {
		return keys, len(keys) == 0
	}
	for _, secret := range set.Secrets {
		keys = append(keys, wire.LongTermKey(user, set.Realm, restPassword(secret, user)))
	}
	return keys, false
}

// expiry reads the time in front of a time-limited user name.
func expiry(user string) (time.Time, bool) {
	at, _, _ := strings.Cut(user, ":")
	seconds, err := strconv.ParseUint(at, 10, 40)
	return time.Unix(int64(seconds), 0), err == nil
}

// authenticate is RFC 8489 section 9.2.4. It returns the user and the key the
// request was made with, or writes the refusal itself and returns false.
//
// The nonce is judged before the credential: it costs one MAC, and nobody who
// cannot receive at his address learns anything about a credential.
func (s *Server) authenticate(r *request) (user string, key wire.Key, ok bool) {
	if !r.msg.HasIntegrity() {
		s.challenge(r, 401)
		return "", nil, false
	}
	name, hasUser := r.msg.Get(wire.Username)
	realm, hasRealm := r.msg.Get(wire.Realm)
	nonce, hasNonce := r.msg.Get(wire.Nonce)
	if !hasUser || !hasRealm || !hasNonce || len(name) > maxUserName {
		s.refuse(r, 400)
		return "", nil, false
	}
	if !s.nonces.ok(nonce, r.tuple.client, r.now) {
		s.challenge(r, 438)
		return "", nil, false
	}
	user = string(name)
	if string(realm) == r.realm {
		for _, key := range s.candidates(r, user) {
			if r.msg.IntegrityOK(key) {
				return user, key, true
			}
		}
	}
	s.metrics.authFailures.Inc()
	s.challenge(r, 401)
	return "", nil, false
}

// candidates returns the keys to try. The key that made an allocation stays
// good for it: a password that is changed, or a credential that expires, ends
// no call. For an unknown user there is one key that fits nothing, so that the
// answer takes as long as for a wrong password.
func (s *Server) candidates(r *request, user string) []wire.Key {
	if ses := r.session; ses != nil && ses.user == user && !r.set.StrictExpiry {
		keys, _ := r.set.keys(user, r.now)
		return append([]wire.Key{ses.key}, keys...)
	}
	keys, _ := r.set.keys(user, r.now)
	if len(keys) == 0 {
		keys = []wire.Key{s.nonces.key[:16]}
	}
	return slices.Clip(keys)
}
