package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"sync"
)

// recentLog keeps the last lines of the log, Info and above, for status and for
// who sends a bundle: the journal may be elsewhere, or gone.
type recentLog struct {
	mu    sync.Mutex // guards the fields below
	buf   bytes.Buffer
	lines []recentLine // a ring once it is full
	next  int          // the oldest of a full ring
}

type recentLine struct {
	level slog.Level
	text  json.RawMessage
}

const (
	recentLines = 500
	recentBytes = 4 << 10 // of one line; a longer one is not kept
)

// beside returns a log that writes to log and keeps what it writes.
func (r *recentLog) beside(log *slog.Logger) *slog.Logger {
	keep := recentHandler{r, slog.NewJSONHandler(&r.buf, &slog.HandlerOptions{ReplaceAttr: readable})}
	return slog.New(slog.NewMultiHandler(log.Handler(), keep))
}

// last returns at most n lines of a level and above, the oldest first.
func (r *recentLog) last(level slog.Level, n int) []json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []json.RawMessage{}
	for i := len(r.lines) - 1; i >= 0 && len(list) < n; i-- {
		if l := r.lines[(r.next+i)%len(r.lines)]; l.level >= level {
			list = append(list, l.text)
		}
	}
	slices.Reverse(list)
	return list
}

// recentHandler writes into a recentLog.
type recentHandler struct {
	ring *recentLog
	json slog.Handler // into ring.buf
}

func (h recentHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h recentHandler) Handle(ctx context.Context, rec slog.Record) error {
	r := h.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf.Reset()
	if err := h.json.Handle(ctx, rec); err != nil || r.buf.Len() > recentBytes {
		return err
	}
	line := recentLine{rec.Level, bytes.Clone(bytes.TrimSpace(r.buf.Bytes()))}
	if len(r.lines) < recentLines {
		r.lines = append(r.lines, line)
		return nil
	}
	r.lines[r.next] = line
	r.next = (r.next + 1) % recentLines
	return nil
}

func (h recentHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return recentHandler{h.ring, h.json.WithAttrs(attrs)}
}

func (h recentHandler) WithGroup(name string) slog.Handler {
	return recentHandler{h.ring, h.json.WithGroup(name)}
}

// handleLog answers with what is kept.
func (a *app) handleLog(*http.Request) (any, error) {
	return a.recent.last(slog.LevelInfo, recentLines), nil
}
