//go:build !linux

package relay

func (s *socket) receiveDrops() (n uint64, ok bool) { return 0, false }
