// SPDX-License-Identifier: MIT
//
// The relay of bound channels, in the kernel. A UDP datagram that belongs to a
// binding leaves again at once: ChannelData as a plain datagram to the peer, one
// of the peer as ChannelData to the client (RFC 8656 section 12). Everything
// else goes up the stack as it came.
//
// Nothing is written before it is certain that the whole packet can be:
// parse, find, judge, and only then rewrite.
#include "kernel.h"

// What a program of another licence may not call is the FIB lookup. The
// sources are under the project's licence.
char _license[] SEC("license") = "Dual MIT/GPL";

// A key is what tells datagrams apart: where they come from, what of ours they
// go to, and their channel, which is 0 for those of peers. All as it stands in
// the packet; an IPv4 address stands in the first word. Keys, ways, counts and
// ports are shared with user space (xdp_linux.go).
struct key {
	be32 src[4];
	be32 dst[4];
	be16 sport;
	be16 dport;
	be16 channel;
	u16 family; // 4 or 6
};

// A way is what becomes of the datagrams of a key.
struct way {
	u64 until; // CLOCK_BOOTTIME; past means expired
	be32 src[4];
	be32 dst[4];
	be16 sport;
	be16 dport;
	be16 channel; // to write before the payload; 0: none, the way leads to the peer
	u16 family; // of the datagram that leaves
	u32 binding; // index of its counters
	u32 sum; // of the addresses, the ports and the channel above, for checksums
};

struct {
	MAP_UINT(type, HASH);
	MAP_UINT(map_flags, NO_PREALLOC);
	MAP_UINT(max_entries, 1 << 16); // set when it is loaded
	MAP_TYPE(key, struct key);
	MAP_TYPE(value, struct way);
} ways SEC(".maps");

// What each binding carried. The directions are on cache lines of their own,
// since different processors count them.
struct count {
	u64 packets;
	u64 bytes; // payload
	u64 pad[6];
};

struct counts {
	struct count up;
	struct count down;
};

struct {
	MAP_UINT(type, ARRAY);
	MAP_UINT(map_flags, MMAPABLE);
	MAP_UINT(max_entries, 1 << 15); // set when it is loaded
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct counts);
} counters SEC(".maps");

// The interfaces that the program is attached to: what may come in there and
// go out. A redirect to any other could be dropped without a word.
struct port {
	u8 mac[6];
	// Checksums of what comes in may be unfinished, as nothing on the way
	// needed them: verify before they are changed.
	u8 verify;
	u8 out; // frames may leave: RETURN, REDIRECT
};

enum { RETURN = 1, REDIRECT = 2 }; // to where they came from, from elsewhere

struct {
	MAP_UINT(type, HASH);
	MAP_UINT(max_entries, 64);
	MAP_TYPE(key, u32); // ifindex
	MAP_TYPE(value, struct port);
} ports SEC(".maps");

// Why a datagram of a binding went up all the same. User space has names for
// them (reasons in offload.go).
enum reason {
	EXPIRED,
	MALFORMED, // length, fragment, option, checksum
	TTL,
	TOO_LONG, // for the next hop, or for us to sum up
	NEIGHBOUR, // not known yet
	ROUTE, // none, not through a port of ours, or one the kernel wants to see
	HEADROOM,
	REASONS,
};

struct {
	MAP_UINT(type, PERCPU_ARRAY);
	MAP_UINT(max_entries, REASONS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} passed SEC(".maps");

static inline int pass(u32 why)
{
	u64 *n = map_lookup(&passed, &why);
	if (n)
		*n += 1;
	return XDP_PASS;
}

// Sums are of 16-bit words as they are loaded: the one's complement sum of RFC
// 1071 does not depend on the byte order, as long as it is one.
static inline u32 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static inline u64 sum4(const be32 a[4])
{
	return (u64)a[0] + a[1] + a[2] + a[3];
}

// Most bytes that sum adds up: a full frame of 1500 bytes with room to spare.
#define MAX_SUM 2048

// sum adds up n bytes of the packet from an offset on. It is a function of its
// own for the verifier, which then walks through the loop once.
__attribute__((noinline)) u32 sum(struct xdp_md *ctx, u32 offset, u32 n)
{
	void *end = (void *)(u64)ctx->data_end;
	u8 *p = (void *)(u64)ctx->data;
	u64 total = 0;

	p += offset & 0xfff; // never more; the verifier wants to see it
	for (int i = 0; i < MAX_SUM / 32; i++) {
		u32 *w = (u32 *)p;

		if (n < 32 || p + 32 > (u8 *)end)
			break;
		total += (u64)w[0] + w[1] + w[2] + w[3] + w[4] + w[5] + w[6] + w[7];
		p += 32;
		n -= 32;
	}
	for (int i = 0; i < 7; i++) {
		if (n < 4 || p + 4 > (u8 *)end)
			break;
		total += *(u32 *)p;
		p += 4;
		n -= 4;
	}
	if (n & 2 && p + 2 <= (u8 *)end) {
		total += *(u16 *)p;
		p += 2;
	}
	if (n & 1 && p + 1 <= (u8 *)end)
		total += *p;
	return fold(total);
}

// A datagram is what was found in a packet.
struct datagram {
	struct key key;
	u32 payload; // offset of what follows the UDP header
	u32 length; // of it
	be16 checksum; // of UDP
	u8 ttl; // or hop limit
	u8 tos; // or traffic class
	be16 id;
	be16 fragment; // with DF or zero
	u8 malformed; // in a way that user space is to judge
};

// bounded says to the verifier of Linux 5.10 what it has forgotten: that 16 bits whose bytes were
// swapped are still no more than 16 bits. The compiler knows, and would leave the mask out.
static inline u32 bounded(u32 n)
{
	asm volatile("" : "+r"(n));
	return n & 0xffff;
}

// parse reads a UDP datagram. It reports false for anything else; what is UDP
// but not for us to touch is marked malformed, as far as its ports are known.
static inline int parse(struct xdp_md *ctx, struct datagram *d)
{
	u8 *data = (void *)(u64)ctx->data;
	u8 *end = (void *)(u64)ctx->data_end;
	struct ethernet *eth = (void *)data;
	struct udp *udp;
	u32 length;

	if (data + sizeof(*eth) > end)
		return 0;
	if (eth->type == htons(0x0800)) {
		struct ipv4 *ip = (void *)(eth + 1);
		const u16 *words = (void *)ip;
		u32 header = 0;

		udp = (void *)(ip + 1);
		if ((u8 *)(udp + 1) > end)
			return 0;
		// No options, no fragments: bits but DF.
		if (ip->version_ihl != 0x45 || ip->protocol != 17 || ip->fragment & ~htons(0x4000))
			return 0;
		for (int i = 0; i < 10; i++)
			header += words[i];
		length = bounded(ntohs(ip->length));
		d->malformed = fold(header) != 0xffff || (u8 *)ip + length > end;
		if (length < sizeof(*ip) + sizeof(*udp))
			return 0;
		length -= sizeof(*ip);
		d->key.family = 4;
		d->key.src[0] = ip->src;
		d->key.dst[0] = ip->dst;
		d->ttl = ip->ttl;
		d->tos = ip->tos;
		d->id = ip->id;
		d->fragment = ip->fragment;
		d->payload = sizeof(*eth) + sizeof(*ip) + sizeof(*udp);
	} else if (eth->type == htons(0x86dd)) {
		struct ipv6 *ip = (void *)(eth + 1);
		u32 flow;

		udp = (void *)(ip + 1);
		if ((u8 *)(udp + 1) > end)
			return 0;
		flow = htonl(ip->flow);
		// No extension headers.
		if (flow >> 28 != 6 || ip->next != 17)
			return 0;
		length = bounded(ntohs(ip->length));
		// UDP over IPv6 without a checksum is for the stack to refuse.
		d->malformed = (u8 *)udp + length > end || udp->checksum == 0;
		if (length < sizeof(*udp))
			return 0;
		d->key.family = 6;
		for (int i = 0; i < 4; i++) {
			d->key.src[i] = ip->src[i];
			d->key.dst[i] = ip->dst[i];
		}
		d->ttl = ip->hops;
		d->tos = flow >> 20;
		d->payload = sizeof(*eth) + sizeof(*ip) + sizeof(*udp);
	} else {
		return 0;
	}
	d->malformed |= ntohs(udp->length) != length;
	d->key.sport = udp->src;
	d->key.dport = udp->dst;
	d->checksum = udp->checksum;
	d->length = length - sizeof(*udp);
	return 1;
}

// A rewrite says how a datagram becomes another one.
struct rewrite {
	struct way *way;
	u32 data; // offset of the payload that is relayed
	u32 length; // of it
	u32 size; // of the UDP datagram that leaves, with its header
	be16 header[2]; // of ChannelData that is taken away
	u16 verify;
	be16 checksum; // of the datagram that leaves
};

// find looks the datagram up, as ChannelData of a client and then as one of a
// peer, whose payload may look like ChannelData.
static inline struct way *find(struct xdp_md *ctx, struct datagram *d, struct rewrite *r)
{
	u8 *p = (void *)(u64)ctx->data;
	u8 *end = (void *)(u64)ctx->data_end;
	struct way *way;

	p += d->payload;
	if (d->length >= 4 && p + 4 <= end && (*p & 0xc0) == 0x40) {
		r->header[0] = ((be16 *)p)[0];
		r->header[1] = ((be16 *)p)[1];
		d->key.channel = r->header[0];
		way = map_lookup(&ways, &d->key);
		if (way) {
			u32 n = ntohs(r->header[1]);
			u32 rest = d->length - 4;

			// Padding is allowed over UDP, and nothing else behind it.
			d->malformed |= n != rest && ((n + 3) & ~3u) != rest;
			r->data = d->payload + 4;
			r->length = n;
			r->size = sizeof(struct udp) + n;
			return way;
		}
	}
	d->key.channel = 0;
	way = map_lookup(&ways, &d->key);
	if (way) {
		r->header[0] = r->header[1] = 0;
		r->data = d->payload;
		r->length = d->length;
		r->size = sizeof(struct udp) + 4 + d->length;
	}
	return way;
}

// finish makes the UDP checksum of the datagram that leaves. It reports false
// for a datagram whose own is wrong.
static inline int finish(struct xdp_md *ctx, struct datagram *d, struct rewrite *r)
{
	struct way *way = r->way;
	u32 old = htons(d->length + sizeof(struct udp)), new = htons(r->size);
	u64 ends = sum4(d->key.src) + sum4(d->key.dst) + d->key.sport + d->key.dport;
	u64 all = way->sum + 2 * new; // the length counts in the pseudo header too

	if (way->channel)
		all += htons(r->length);
	if (d->checksum == 0) {
		if (way->family == 4) {
			r->checksum = 0;
			return 1;
		}
		// RFC 8200 section 8.1: over IPv6 there must be one.
		all += htons(17) + sum(ctx, r->data, r->length);
	} else {
		if (r->verify) {
			u64 have = ends + 2 * old + htons(17) + d->checksum;

			have += sum(ctx, d->payload, d->length);
			if (fold(have) != 0xffff)
				return 0;
		}
		// RFC 1624: the sum of what stays is that of all less what goes.
		all += (u16)~d->checksum;
		all += (u16)~fold(ends + 2 * old + r->header[0] + r->header[1]);
		if (r->header[0]) {
			u32 pad = d->length - 4 - r->length;

			if (pad) {
				u32 padding = sum(ctx, r->data + r->length, pad);
				if (r->length & 1)
					padding = htons(padding);
				all += (u16)~padding;
			}
		}
	}
	r->checksum = ~fold(all);
	if (r->checksum == 0)
		r->checksum = 0xffff; // RFC 768: zero says that there is none
	return 1;
}

// write puts the new headers before the payload, which stays where it is.
static inline int write(struct xdp_md *ctx, struct datagram *d, struct rewrite *r, struct fib_lookup *hop)
{
	u8 *data = (void *)(u64)ctx->data;
	u8 *end = (void *)(u64)ctx->data_end;
	struct way *way = r->way;
	struct ethernet *eth = (void *)data;
	struct udp *udp;

	if (data + sizeof(*eth) + sizeof(struct ipv4) + sizeof(*udp) > end)
		return 0;
	__builtin_memcpy(eth->dst, hop->dmac, 6);
	__builtin_memcpy(eth->src, hop->smac, 6);
	if (way->family == 4) {
		struct ipv4 *ip = (void *)(eth + 1);
		const u16 *words = (void *)ip;
		u32 header = 0;

		eth->type = htons(0x0800);
		ip->version_ihl = 0x45;
		ip->tos = d->tos;
		ip->length = htons(sizeof(*ip) + r->size);
		ip->id = d->id;
		// What came over IPv6 was not to be fragmented on the way.
		ip->fragment = d->key.family == 4 ? d->fragment : htons(0x4000);
		ip->ttl = d->ttl - 1;
		ip->protocol = 17;
		ip->checksum = 0;
		ip->src = way->src[0];
		ip->dst = way->dst[0];
		for (int i = 0; i < 10; i++)
			header += words[i];
		ip->checksum = ~fold(header);
		udp = (void *)(ip + 1);
	} else {
		struct ipv6 *ip = (void *)(eth + 1);

		udp = (void *)(ip + 1);
		if ((u8 *)(udp + 1) > end)
			return 0;
		eth->type = htons(0x86dd);
		ip->flow = htonl(6u << 28 | (u32)d->tos << 20);
		ip->length = htons(r->size);
		ip->next = 17;
		ip->hops = d->ttl - 1;
		for (int i = 0; i < 4; i++) {
			ip->src[i] = way->src[i];
			ip->dst[i] = way->dst[i];
		}
	}
	udp->src = way->sport;
	udp->dst = way->dport;
	udp->length = htons(r->size);
	udp->checksum = r->checksum;
	if (way->channel) {
		be16 *header = (void *)(udp + 1);

		if ((u8 *)(header + 2) > end)
			return 0;
		header[0] = way->channel;
		header[1] = htons(r->length);
	}
	return 1;
}

static inline void count(struct way *way, u32 length)
{
	struct counts *c = map_lookup(&counters, &way->binding);
	struct count *n;

	if (!c)
		return;
	n = way->channel ? &c->down : &c->up;
	__sync_fetch_and_add(&n->packets, 1);
	__sync_fetch_and_add(&n->bytes, length);
}

#define LOOPBACK 1 // its ifindex

SEC("xdp")
int turn(struct xdp_md *ctx)
{
	struct datagram d = {};
	struct rewrite r = {};
	struct fib_lookup hop = {};
	struct way *way;
	struct port *port;
	u32 in = ctx->ingress_ifindex, length;
	int delta, tail;

	if (!parse(ctx, &d))
		return XDP_PASS;
	way = find(ctx, &d, &r);
	if (!way)
		return XDP_PASS;
	r.way = way;
	if (way->until <= boot_time())
		return pass(EXPIRED);
	if (d.ttl <= 1)
		return pass(TTL);
	if (d.malformed)
		return pass(MALFORMED);
	if (d.length > MAX_SUM)
		return pass(TOO_LONG);

	// A frame for another host, seen on a shared wire, is not ours.
	port = map_lookup(&ports, &in);
	if (!port)
		return pass(ROUTE);
	{
		u8 *data = (void *)(u64)ctx->data;
		u8 *end = (void *)(u64)ctx->data_end;
		u16 *to = (void *)data, *own = (void *)port->mac;

		if (data + 6 > end || to[0] != own[0] || to[1] != own[1] || to[2] != own[2])
			return pass(ROUTE);
	}
	r.verify = port->verify;

	// The datagram that leaves is one of this host's own, so its route is
	// looked up as for those: from the loopback interface. That also spares
	// the host from being a router (see attach_linux.go).
	hop.ifindex = LOOPBACK;
	hop.protocol = 17;
	hop.sport = way->sport;
	hop.dport = way->dport;
	length = r.size + (way->family == 4 ? sizeof(struct ipv4) : sizeof(struct ipv6));
	if (way->family == 4) {
		hop.family = AF_INET;
		hop.tos = d.tos;
		hop.src4 = way->src[0];
		hop.dst4 = way->dst[0];
	} else {
		hop.family = AF_INET6;
		hop.flowinfo = htonl((u32)d.tos << 20);
		for (int i = 0; i < 4; i++) {
			hop.src6[i] = way->src[i];
			hop.dst6[i] = way->dst[i];
		}
	}
	hop.length = length;
	switch (fib(ctx, &hop, sizeof(hop), 0)) {
	case FIB_SUCCESS:
		break;
	case FIB_FRAG_NEEDED:
		return pass(TOO_LONG);
	case FIB_NO_NEIGH:
		return pass(NEIGHBOUR);
	default:
		return pass(ROUTE);
	}
	port = map_lookup(&ports, &hop.ifindex);
	if (!port || !(port->out & (hop.ifindex == in ? RETURN : REDIRECT)))
		return pass(ROUTE);
	if (!finish(ctx, &d, &r))
		return pass(MALFORMED);

	// The headers that leave end where the payload begins.
	delta = r.data - (sizeof(struct ethernet) + length - r.length);
	if (adjust_head(ctx, delta))
		return pass(HEADROOM);
	tail = sizeof(struct ethernet) + length - (ctx->data_end - ctx->data);
	if (tail && adjust_tail(ctx, tail)) {
		adjust_head(ctx, -delta);
		return pass(HEADROOM);
	}
	if (!write(ctx, &d, &r, &hop))
		return XDP_ABORTED; // cannot be: the frame has just been cut to its size
	count(way, r.length);
	if (hop.ifindex == in)
		return XDP_TX;
	return redirect(hop.ifindex, 0);
}
