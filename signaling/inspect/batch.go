package inspect

import (
	"encoding/json"
	"errors"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// A message waits for its verdict.
type message struct {
	seq  uint64
	kind int // of gorilla
	data []byte

	verdict verdict
	instead []byte // for verdictReplace
}

func (m *message) opcode() string {
	if m.kind == websocket.BinaryMessage {
		return "binary"
	}
	return "text"
}

type verdict string

const (
	verdictForward verdict = "forward"
	verdictDeny    verdict = "deny"
	verdictDrop    verdict = "drop"
	verdictReplace verdict = "replace"
	verdictFailed  verdict = "failed" // none was had
)

// A batch is one request to a hook: a message, or several when the hook takes lists.
// It is in the queue before it is sealed, so that the order is kept.
type batch struct {
	mu       sync.Mutex // guards the fields below
	messages []*message
	sealed   bool
	timer    *time.Timer // seals it; nil: none

	decided chan struct{} // closed when every message has its verdict
	err     error         // why there is none
}

// ask puts a message into the queue, alone or with others. It waits while too much is
// there already: then the side the messages come from is not read.
func (f *flow) ask(m *message) {
	if m.kind == websocket.BinaryMessage && f.hook.Binary != BinaryHook {
		m.verdict = verdictForward
		if f.hook.Binary == BinaryDeny {
			m.verdict = verdictDeny
		}
	}
	if !f.room.take(int64(len(m.data))) {
		return
	}
	if m.verdict == "" && f.open != nil && f.open.add(m, f) {
		return
	}
	select {
	case f.slots <- struct{}{}:
	case <-f.ses.ending:
		return
	}
	b := &batch{messages: []*message{m}, decided: make(chan struct{})}
	f.pending.Add(1)
	if m.verdict != "" {
		f.flush()
		b.sealed = true
		close(b.decided)
		f.queue <- b
		return
	}
	if f.hook.BatchMessages > 1 {
		f.open = b
		b.mu.Lock() // the timer may fire while it is made
		b.timer = time.AfterFunc(f.hook.BatchDelay, func() { f.seal(b) })
		b.mu.Unlock()
		f.queue <- b
		return
	}
	b.sealed = true
	f.queue <- b
	f.call(b)
}

// add puts a message behind the others, unless the batch is under way.
func (b *batch) add(m *message, f *flow) bool {
	b.mu.Lock()
	if b.sealed {
		b.mu.Unlock()
		return false
	}
	b.messages = append(b.messages, m)
	full := len(b.messages) >= f.hook.BatchMessages
	b.mu.Unlock()
	if full {
		f.seal(b)
	}
	return true
}

// flush sends the batch that is still open.
func (f *flow) flush() {
	if f.open != nil {
		f.seal(f.open)
		f.open = nil
	}
}

// seal closes a batch for further messages and asks the hook.
func (f *flow) seal(b *batch) {
	b.mu.Lock()
	if b.sealed {
		b.mu.Unlock()
		return
	}
	b.sealed = true
	b.timer.Stop()
	b.mu.Unlock()
	f.call(b)
}

// call asks the hook for a sealed batch, beside everything else.
func (f *flow) call(b *batch) {
	go func() { // the deliverer waits for decided
		defer close(b.decided)
		defer f.ses.recovered()
		b.err = errPanic
		b.err = f.caller.ask(f.ses.ctx, b.messages)
	}()
}

var errPanic = errors.New("panic")

// deliver passes messages on in their order, each when its verdict is there.
func (f *flow) deliver() {
	for b := range f.queue {
		<-b.decided
		for _, m := range b.messages {
			f.settle(m, b.err)
			f.room.give(int64(len(m.data)))
		}
		f.pending.Add(-1)
		<-f.slots
	}
}

// settle does with a message what was decided.
func (f *flow) settle(m *message, err error) {
	if f.ending() {
		return
	}
	if err != nil {
		f.counters.verdict(verdictFailed)
		if f.hook.OnError == OnErrorForward {
			f.pass(m.kind, m.data)
			return
		}
		f.ses.log("hook failed", f, err)
		c := closing{codeInternal, failure(err)}
		f.ses.end(ending{"hook failed", c, away})
		return
	}
	f.counters.verdict(m.verdict)
	switch m.verdict {
	case verdictForward:
		f.pass(m.kind, m.data)
	case verdictReplace:
		f.pass(m.kind, m.instead)
	case verdictDrop:
	default:
		c := closing{codePolicy, "message denied"}
		how := ending{"denied", c, away}
		if f.direction == "outbound" {
			how.upstream = c
		}
		f.ses.end(how)
	}
}

// A batch on the wire: a list of these, and an answer of as many verdicts.
type listedMessage struct {
	Seq    uint64  `json:"seq"`
	Opcode string  `json:"opcode"`
	Data   *string `json:"data,omitempty"`        // text
	Base64 []byte  `json:"data_base64,omitempty"` // binary, and text that is not UTF-8
}

type listedVerdict struct {
	Seq    uint64  `json:"seq"`
	Action verdict `json:"action"` // "" is forward
	Data   *string `json:"data"`
	Base64 []byte  `json:"data_base64"`
}

func encodeBatch(messages []*message) []byte {
	list := make([]listedMessage, len(messages))
	for i, m := range messages {
		list[i] = listedMessage{Seq: m.seq, Opcode: m.opcode()}
		if m.kind == websocket.TextMessage && utf8.Valid(m.data) {
			text := string(m.data)
			list[i].Data = &text
		} else {
			list[i].Base64 = m.data
		}
	}
	b, _ := json.Marshal(list) // strings and numbers: it cannot fail
	return b
}

// decodeBatch reads the verdicts of a batch. An empty body forwards every message;
// otherwise there must be exactly one verdict for each.
func decodeBatch(body []byte, messages []*message, rewrite bool, most int64) error {
	if len(body) == 0 {
		for _, m := range messages {
			m.verdict = verdictForward
		}
		return nil
	}
	var list []listedVerdict
	if err := json.Unmarshal(body, &list); err != nil {
		return &hookError{"answer", errors.New("is no list of verdicts")}
	}
	bySeq := make(map[uint64]listedVerdict, len(list))
	for _, v := range list {
		bySeq[v.Seq] = v
	}
	if len(list) != len(messages) || len(bySeq) != len(messages) {
		return &hookError{"answer", errors.New("has not one verdict for each message")}
	}
	for _, m := range messages {
		v, ok := bySeq[m.seq]
		if !ok {
			return &hookError{"answer", errors.New("has not one verdict for each message")}
		}
		switch v.Action {
		case "", verdictForward:
			m.verdict = verdictForward
		case verdictDeny:
			m.verdict = verdictDeny
		case verdictDrop, verdictReplace:
			if !rewrite {
				return &hookError{"answer", errors.New("rewrites, which the route does not allow")}
			}
			m.verdict = v.Action
			if v.Action == verdictReplace {
				instead := v.Base64
				if v.Data != nil {
					instead = []byte(*v.Data)
				}
				if err := m.replace(instead, most); err != nil {
					return err
				}
			}
		default:
			return &hookError{"answer", errors.New("has an unknown action")}
		}
	}
	return nil
}

// replace gives a message other content.
func (m *message) replace(instead []byte, most int64) error {
	if int64(len(instead)) > most {
		return &hookError{"answer", errors.New("is too large")}
	}
	if m.kind == websocket.TextMessage && !utf8.Valid(instead) {
		return &hookError{"answer", errors.New("is no text")}
	}
	m.verdict, m.instead = verdictReplace, instead
	return nil
}
