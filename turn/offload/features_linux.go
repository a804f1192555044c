//go:build amd64 || arm64

package offload

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// What an interface can do with XDP frames, of the kernel's netlink family
// "netdev" (Linux 6.3; include/uapi/linux/netdev.h).
const (
	netdevDevGet      = 1
	netdevIfindex     = 1
	netdevXDPFeatures = 3

	featureTransmit = 1 << 2 // NETDEV_XDP_ACT_NDO_XMIT
)

// errNoFeatures is what kernels before 6.3 answer.
var errNoFeatures = errors.New("the kernel does not tell the XDP features of interfaces")

// xdpFeatures asks the kernel what an interface can do. A frame for one that
// cannot transmit them would be dropped without a word.
func xdpFeatures(index int) (uint64, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return 0, err
	}
	family, err := askNetlink(fd, unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, unix.CTRL_ATTR_FAMILY_NAME, []byte("netdev\x00"), unix.CTRL_ATTR_FAMILY_ID)
	if err != nil || len(family) != 2 {
		return 0, errNoFeatures
	}
	features, err := askNetlink(fd, binary.NativeEndian.Uint16(family), netdevDevGet,
		netdevIfindex, binary.NativeEndian.AppendUint32(nil, uint32(index)), netdevXDPFeatures)
	switch {
	case err != nil:
		return 0, err
	case len(features) != 8:
		return 0, errNoFeatures
	}
	return binary.NativeEndian.Uint64(features), nil
}

// askNetlink sends a generic netlink request with one attribute and returns one
// attribute of the answer.
func askNetlink(fd int, family uint16, command uint8, attribute uint16, value []byte, wanted uint16) ([]byte, error) {
	const headers = unix.SizeofNlMsghdr + 4 // and struct genlmsghdr
	ne := binary.NativeEndian
	b := make([]byte, headers, headers+64)
	ne.PutUint16(b[4:], family)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	b[unix.SizeofNlMsghdr], b[unix.SizeofNlMsghdr+1] = command, 1
	b = ne.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = ne.AppendUint16(b, attribute)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	ne.PutUint32(b, uint32(len(b)))
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	answer := make([]byte, 16384)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, err
	}
	answer = answer[:n]
	if n < headers {
		return nil, unix.EBADMSG
	}
	if ne.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		return nil, unix.Errno(-int32(ne.Uint32(answer[unix.SizeofNlMsghdr:])))
	}
	for rest := answer[headers:]; len(rest) >= unix.SizeofNlAttr; {
		size, kind := int(ne.Uint16(rest)), ne.Uint16(rest[2:])
		if size < unix.SizeofNlAttr || size > len(rest) {
			return nil, unix.EBADMSG
		}
		if kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == wanted {
			return rest[unix.SizeofNlAttr:size], nil
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return nil, nil
}
