//go:build unix

package userdb

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/turngate/turngate/internal/testnet/dbserver"
)

// The rights that the documentation tells to give are enough, and needed.
func TestRedisNeedsToReadOnly(t *testing.T) {
	s := dbserver.Redis(t)
	admin := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: "turn", DB: 2})
	defer admin.Close()
	for _, cmd := range [][]any{
		{"sadd", "turn/realm/r/secret", "logen"},
		{"set", "turn/realm/r/user/u/key", gorst},
		{"acl", "setuser", "turngate", "on", ">pw", "~turn/realm/*", "+get", "+smembers", "+select", "+ping"},
		{"acl", "setuser", "nobody", "on", ">pw"},
	} {
		if err := admin.Do(within(t), cmd...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	src := open(t, Redis, fmt.Sprintf("ip=127.0.0.1 dbname=2 user=turngate password=pw port=%d", s.Port))
	if keys, err := src.Keys(within(t), "r", "u"); len(keys) != 1 || err != nil {
		t.Errorf("got %d keys, %v", len(keys), err)
	}
	if secrets, err := src.Secrets(within(t), "r"); len(secrets) != 1 || err != nil {
		t.Errorf("got %d secrets, %v", len(secrets), err)
	}
	for _, login := range []string{"user=nobody password=pw", "password=wrong"} {
		if _, err := open(t, Redis, fmt.Sprintf("ip=127.0.0.1 port=%d %s", s.Port, login)).Secrets(within(t), "r"); err == nil {
			t.Errorf("%s: no error", login)
		}
	}
}
