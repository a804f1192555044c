package turn

import "github.com/turngate/turngate/turn/ports"

// portSet is the relayed ports of the two address families, which have
// nothing to do with each other.
type portSet struct{ v4, v6 *ports.Allocator }

func newPortSet(min, max uint16) (portSet, error) {
	v4, err := ports.New(ports.Options{Min: min, Max: max})
	if err != nil {
		return portSet{}, err
	}
	v6, err := ports.New(ports.Options{Min: min, Max: max})
	return portSet{v4, v6}, err
}

func (p portSet) of(v6 bool) *ports.Allocator {
	if v6 {
		return p.v6
	}
	return p.v4
}

func (p portSet) resize(min, max uint16) error {
	if err := p.v4.Resize(min, max); err != nil {
		return err
	}
	return p.v6.Resize(min, max)
}
