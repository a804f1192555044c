package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// An alarm waits to the microsecond. time.Sleep of an idle process waits in whole milliseconds,
// and what was due meanwhile would leave in one burst.
type alarm struct{ file *os.File }

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &alarm{os.NewFile(uintptr(fd), "timerfd")}, nil
}

func (a *alarm) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	var errno error
	raw, err := a.file.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			errno = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil)
		})
	}
	if err == nil {
		err = errno
	}
	if err == nil {
		var count [8]byte
		_, err = a.file.Read(count[:])
	}
	return err
}
