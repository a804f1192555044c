package signaling

import (
	"net"
	"runtime"
	"sync"

	"github.com/turngate/turngate/internal/poller"
)

// loops carry the sessions whose sockets they can take: one for each core, opened with the first
// session. All others have two goroutines each.
type loops struct {
	once sync.Once
	all  []*poller.Loop
	wg   sync.WaitGroup
}

// noLoops makes every session one with goroutines, for tests.
var noLoops bool

// pick returns the loop for a session with these connections; nil: none.
func (s *Server) pick(id uint64, client, upstream net.Conn) *poller.Loop {
	if noLoops || !poller.Attachable(client) || !poller.Attachable(upstream) {
		return nil
	}
	g := &s.loops
	g.once.Do(func() {
		for range runtime.GOMAXPROCS(0) {
			l, err := poller.New()
			if err != nil {
				s.log.Warn("sessions take more memory", "err", err)
				break
			}
			g.all = append(g.all, l)
			g.wg.Go(l.Run)
		}
	})
	if len(g.all) == 0 {
		return nil
	}
	return g.all[id%uint64(len(g.all))]
}

// close ends the loops, on which no session is left.
func (g *loops) close() {
	g.once.Do(func() {}) // opens none any more
	for _, l := range g.all {
		l.Close()
	}
	g.wg.Wait()
}

// attach moves a session to its loop. When there is no descriptor for that, its connections are
// closed and it reports false.
func (ses *session) attach() bool {
	conns, low, err := ses.loop.Attach(ses, ses.up.src, ses.up.dst)
	if err != nil {
		ses.srv.log.Debug("session cannot move to its loop", "session", ses.id, "err", err)
		ses.setReason("no descriptor")
		ses.closeSockets()
		return false
	}
	client, upstream := conns[0], conns[1]
	ses.up.src, ses.up.dst, ses.up.low = client, upstream, low[1]
	ses.down.src, ses.down.dst, ses.down.low = upstream, client, low[0]
	if err := ses.loop.Watch(low...); err != nil {
		ses.setReason("no descriptor")
		ses.cut.Store(true)
	}
	ses.attached.Store(true)
	ses.loop.Wake(ses) // the first events may have come before
	return true
}

// Ready implements [poller.Handler]: both directions go on as far as they can.
func (ses *session) Ready(buf []byte) (more bool) {
	if !ses.attached.Load() {
		return false // the sockets are still start's
	}
	if ses.cut.Load() {
		ses.closeSockets()
	}
	up := ses.up.turn(buf)
	down := ses.down.turn(buf)
	return up || down
}
