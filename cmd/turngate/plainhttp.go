package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/turngate/turngate/internal/limit"
)

// The plain HTTP listener of the challenge http-01 (RFC 8555 section 8.3)
// answers the CA, sends browsers to https, and nothing else. It is open to the
// Internet, so what one caller and all callers can hold is bounded.
const (
	plainConns          = 256
	plainConnsPerSource = 16
	plainTime           = 10 * time.Second // of a whole request
)

func (a *app) listenPlain(addr string) (*sideListener, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(a.servePlain),
		ReadHeaderTimeout: plainTime / 2,
		ReadTimeout:       plainTime,
		WriteTimeout:      plainTime,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true,
	}
	server.SetKeepAlivesEnabled(false)
	return &sideListener{&cappedListener{
		Listener: ln,
		all:      limit.NewCap(plainConns),
		bySource: limit.NewKeyedCap[netip.Prefix](plainConnsPerSource),
	}, server}, nil
}

// servePlain answers what arrives without TLS.
func (a *app) servePlain(w http.ResponseWriter, r *http.Request) {
	if p := a.plan.Load(); p != nil && p.tls.acme != nil {
		p.tls.acme.ServeHTTP(w, r)
		return
	}
	plain(w, http.StatusNotFound)
}

// cappedListener closes at once what is above its bounds.
type cappedListener struct {
	net.Listener
	all      *limit.Cap
	bySource *limit.KeyedCap[netip.Prefix]
}

func (l *cappedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		source := limit.Source(remote.Addr())
		if !l.all.Acquire() {
			c.Close()
			continue
		}
		if !l.bySource.Acquire(source) {
			l.all.Release()
			c.Close()
			continue
		}
		return &cappedConn{Conn: c, release: sync.OnceFunc(func() {
			l.bySource.Release(source)
			l.all.Release()
		})}, nil
	}
}

// cappedConn gives its place back when it is closed.
type cappedConn struct {
	net.Conn
	release func()
}

func (c *cappedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
