package turn

import (
	"sync"

	"github.com/turngate/turngate/turn/ports"
)

// portSet is the relayed ports of the two address families, which have
// nothing to do with each other. A family is made when it is first asked for:
// most servers relay in one.
type portSet struct {
	mu       sync.Mutex // guards the fields below
	min, max uint16
	families [2]*ports.Allocator // IPv4, IPv6
}

func (p *portSet) of(v6 bool) *ports.Allocator {
	p.mu.Lock()
	defer p.mu.Unlock()
	family := &p.families[0]
	if v6 {
		family = &p.families[1]
	}
	if *family == nil {
		*family, _ = ports.New(ports.Options{Min: p.min, Max: p.max}) // resize has seen the range
	}
	return *family
}

// resize changes the range, and sets it first.
func (p *portSet) resize(min, max uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, family := range p.families {
		switch {
		case family != nil:
			if err := family.Resize(min, max); err != nil {
				return err
			}
		case i == 0:
			var err error
			if p.families[i], err = ports.New(ports.Options{Min: min, Max: max}); err != nil {
				return err
			}
		}
	}
	p.min, p.max = min, max
	return nil
}
