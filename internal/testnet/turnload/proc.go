package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticks a second in /proc, whatever the kernel's own is.
const userHz = 100

// statClock returns the CPU time of a process in nanoseconds, in ticks.
func statClock(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat reads utime and stime out of /proc/PID/stat; the name of the
// program, which may hold anything, ends with the last parenthesis.
func parseStat(b []byte) (int64, error) {
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat has too few fields")
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return (user + system) * (1e9 / userHz), errors.Join(err1, err2)
}

// machineClock returns the CPU time that everything on the machine has used.
func machineClock() int64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	sum := int64(0)
	for i, f := range strings.Fields(line) {
		n, _ := strconv.ParseInt(f, 10, 64)
		if i > 0 && i != 4 && i != 5 && i <= 8 { // not idle, not iowait; guests are in user
			sum += n
		}
	}
	return sum * (1e9 / userHz)
}

// memory returns the resident memory of a process in bytes.
func memory(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("/proc/PID/status has no VmRSS")
}

// names returns the names of all processes, kernel threads among them.
func names() map[int]string {
	all := map[int]string{}
	found, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range found {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		b, err2 := os.ReadFile(name)
		if err == nil && err2 == nil {
			all[pid] = strings.TrimSpace(string(b))
		}
	}
	return all
}
