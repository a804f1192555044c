package userdb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The client writes lines of its own to standard error for what its callers
// are told anyway.
func init() { redis.SetLogger(quiet{}) }

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// redisDB is a pool of connections to Redis, or to what speaks like it.
type redisDB struct {
	client lazily[*redis.Client]
	calls  sync.WaitGroup
}

func newRedis(dsn string, timeout time.Duration) (Source, error) {
	o, err := redisOptions(dsn)
	if err != nil {
		return nil, err
	}
	o.Protocol = 2 // every version, and what stands in for Redis, speaks it
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.PoolSize = maxConns
	o.MaxActiveConns = maxConns
	o.ConnMaxLifetime = connLifetime
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
	o.ContextTimeoutEnabled = true
	o.MaxRetries = 1 // a kept connection may have died
	o.DialerRetries = 1
	return &redisDB{client: lazily[*redis.Client]{make: func() (*redis.Client, error) { return redis.NewClient(o), nil }}}, nil
}

func (r *redisDB) Keys(ctx context.Context, realm, user string) ([][]byte, error) {
	if !askable(user) {
		return nil, nil
	}
	c, err := r.client.get()
	if err != nil {
		return nil, err
	}
	value, err := prompt(ctx, r, func() (string, error) {
		return c.Get(ctx, "turn/realm/"+realm+"/user/"+user+"/key").Result()
	})
	if errors.Is(err, redis.Nil) || err == nil && value == "" {
		return nil, nil
	}
	if err != nil {
		return nil, timedOut(ctx, err)
	}
	return decodeKeys([]string{value})
}

func (r *redisDB) Secrets(ctx context.Context, realm string) ([]string, error) {
	c, err := r.client.get()
	if err != nil {
		return nil, err
	}
	values, err := prompt(ctx, r, func() ([]string, error) {
		return c.SMembers(ctx, "turn/realm/"+realm+"/secret").Result()
	})
	if err != nil {
		return nil, timedOut(ctx, err)
	}
	values = slices.DeleteFunc(values, func(v string) bool { return v == "" })
	return values[:min(len(values), maxSecrets)], nil
}

func (r *redisDB) Close() error {
	c, made := r.client.close()
	if !made {
		return nil
	}
	err := c.Close() // ends what is under way
	r.calls.Wait()
	return err
}

// prompt returns when ctx ends: the client obeys its deadline, but does not
// notice that it is cancelled.
func prompt[T any](ctx context.Context, r *redisDB, call func() (T, error)) (v T, err error) {
	done := make(chan struct{})
	var got T
	var gotErr error
	r.calls.Go(func() {
		defer close(done)
		got, gotErr = call()
	})
	select {
	case <-done:
		return got, gotErr
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// redisOptions reads a URL (redis, rediss, unix) or coturn's own form of words
// like "ip=127.0.0.1 dbname=2 password=turn port=6379".
func redisOptions(dsn string) (*redis.Options, error) {
	if !strings.Contains(dsn, "://") {
		return coturnOptions(dsn)
	}
	o, err := redis.ParseURL(dsn)
	if err != nil {
		return nil, errors.New(`the dsn is not a URL of Redis: want "redis://user:password@host:6379/2", rediss:// for TLS, ` +
			`unix://path?db=2, or coturn's "ip=127.0.0.1 dbname=2 password=..."`)
	}
	return o, nil
}

// coturnOptions reads the connection string of coturn's redis-userdb, with the
// names that its dbd_redis_conninfo.c knows. An error names the word only.
func coturnOptions(dsn string) (*redis.Options, error) {
	o := &redis.Options{Network: "tcp"}
	host, port := "127.0.0.1", 6379
	t := tlsWords{verify: true}
	for word := range strings.FieldsSeq(dsn) {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			return nil, errors.New("the dsn has a word without =: passwords with a space need the URL form")
		}
		var err error
		switch name {
		case "host", "ip", "addr", "ipaddr", "hostaddr":
			host = value
		case "dbname", "db", "database":
			o.DB, err = strconv.Atoi(value)
		case "user", "uname", "name", "username":
			o.Username = value
		case "password", "pwd", "passwd", "secret":
			o.Password = value
		case "port", "p":
			port, err = strconv.Atoi(value)
		case "connect_timeout", "timeout":
			// Ours counts.
		default:
			err = t.word(name, value)
		}
		if err != nil {
			return nil, fmt.Errorf("the dsn has a wrong or unknown %q", name)
		}
	}
	if port < 1 || port > 65535 || o.DB < 0 {
		return nil, errors.New("the dsn has a wrong port or dbname")
	}
	o.Addr = net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
	var err error
	o.TLSConfig, err = t.config(host)
	return o, err
}

// tlsWords are what coturn's connection string says about TLS.
type tlsWords struct {
	on, verify              bool
	ca, cert, key, hostName string
}

func (t *tlsWords) word(name, value string) error {
	switch name {
	case "tls", "ssl":
		t.on = slices.Contains([]string{"1", "true", "on", "yes"}, value)
	case "tls-ca", "ca", "cacert":
		t.ca = value
	case "tls-cert", "cert":
		t.cert = value
	case "tls-key", "clientkey":
		t.key = value
	case "tls-sni", "sni", "servername":
		t.hostName = value
	case "tls-verify", "verify":
		t.verify = !slices.Contains([]string{"none", "0", "false"}, value)
	default:
		return errors.ErrUnsupported
	}
	return nil
}

func (t *tlsWords) config(host string) (*tls.Config, error) {
	if !t.on {
		return nil, nil
	}
	if t.hostName == "" {
		t.hostName = host
	}
	c := &tls.Config{ServerName: t.hostName, InsecureSkipVerify: !t.verify, MinVersion: tls.VersionTLS12}
	if t.ca != "" {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", t.ca)
		}
	}
	if t.cert != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
