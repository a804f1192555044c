//go:build !linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

var errLinux = fmt.Errorf("the load generator needs Linux: %w", errors.ErrUnsupported)

type socket struct {
	flow  int
	local netip.AddrPort
}

func openSocket(socketOptions, int) (*socket, error) { return nil, errLinux }

func (s *socket) close()          {}
func (s *socket) dropped() uint64 { return 0 }

type route struct{}

func newRoute(*socket, netip.Addr, netip.AddrPort) *route { return nil }

func (r *route) writeTo([]byte) error { return errLinux }

type sender struct{ unsent uint64 }

func newSender(int, bool) *sender { return &sender{} }

func (s *sender) next(*route) []byte { return nil }
func (s *sender) flush()             {}

type receiver struct{}

func newReceiver([]*socket) (*receiver, error) { return nil, errLinux }

func (r *receiver) close()                             {}
func (r *receiver) drain(func(*socket, *datagram)) int { return 0 }

func sleepUntil(t int64) { time.Sleep(time.Until(time.Unix(0, t))) }

func exactTimers() {}

func inNamespace(string, func() error) error { return errLinux }

func cpuClock(pid int) (int64, error) { return statClock(pid) }
