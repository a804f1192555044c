package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is the memory of a proxy's processes, in bytes.
type usage struct {
	pss int64 // shared pages by their share
	rss int64
}

// family returns a process and its descendants.
func family(root int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, file := range stats {
		fields, pid, err := stat(file)
		if err != nil {
			continue // it has ended
		}
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	all := []int{root}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// stat returns the fields of /proc/PID/stat from the state on (proc(5) counts it as the third).
func stat(file string) (fields []string, pid int, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, 0, err
	}
	end := bytes.LastIndexByte(b, ')') // the name may hold anything
	if end < 0 {
		return nil, 0, fmt.Errorf("%s: not understood", file)
	}
	pid, err = strconv.Atoi(strings.Fields(string(b))[0])
	return strings.Fields(string(b[end+1:])), pid, err
}

// cpu returns the time that a proxy's processes have run, by their clocks: those of /proc/PID/stat
// stand still for 10 ms.
func (p *proxy) cpu() (time.Duration, error) {
	pids, err := family(p.pid)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil { // clock_getcpuclockid(3)
			return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// memory returns what a proxy's processes hold.
func (p *proxy) memory() (usage, error) {
	pids, err := family(p.pid)
	if err != nil {
		return usage{}, err
	}
	var u usage
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return usage{}, err
		}
		for line := range strings.Lines(string(b)) {
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			switch fields[0] {
			case "Pss:":
				u.pss += kib << 10
			case "Rss:":
				u.rss += kib << 10
			}
		}
	}
	return u, nil
}

// mostConnections is what this process, and a proxy that it starts, can hold: each connection
// takes two descriptors on either side.
func mostConnections() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 400
	}
	return int(limit.Cur/2) - 100
}
