package relay

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveDrops returns the drop counter of the socket (SO_MEMINFO).
func (s *socket) receiveDrops() (n uint64, ok bool) {
	const drops = 8 // SK_MEMINFO_DROPS
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	err := s.with(func(fd int) error {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		ok = errno == 0 && size == uint32(unsafe.Sizeof(info))
		return nil
	})
	return uint64(info[drops]), ok && err == nil
}
