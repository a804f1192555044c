// SPDX-License-Identifier: MIT
//
// What the program uses of the kernel's interface for eBPF, so that building it
// needs a compiler and nothing else. The layouts and numbers are fixed by the
// kernel's promise to programs (include/uapi/linux/bpf.h, if_ether.h, ip.h,
// ipv6.h, udp.h).
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u16 be16; // network order, as it stands in the packet
typedef u32 be32;

#define SEC(name) __attribute__((section(name), used))
#define inline __attribute__((always_inline)) inline
#define unlikely(x) __builtin_expect(!!(x), 0)

// The members of a map definition are types, read from the BTF of the object.
#define MAP_UINT(name, value) int (*name)[value]
#define MAP_TYPE(name, value) typeof(value) *name

enum map_type { HASH = 1, ARRAY = 2, PERCPU_ARRAY = 6 };
enum map_flags { NO_PREALLOC = 1 << 0, MMAPABLE = 1 << 10 };
enum map_update { BPF_ANY = 0 };

enum xdp_action { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

enum { AF_INET = 2, AF_INET6 = 10 };

enum fib_result {
	FIB_SUCCESS = 0,
	FIB_FWD_DISABLED = 5,
	FIB_NO_NEIGH = 7,
	FIB_FRAG_NEEDED = 8,
};

struct fib_lookup {
	u8 family;
	u8 protocol;
	be16 sport;
	be16 dport;
	u16 length; // of the packet from its IP header on
	u32 ifindex; // in: where it came from; out: where it leaves
	union {
		u8 tos;
		be32 flowinfo;
	};
	union {
		be32 src4;
		be32 src6[4];
	};
	union {
		be32 dst4;
		be32 dst6[4];
	};
	be16 vlan_proto;
	be16 vlan_tci;
	u8 smac[6];
	u8 dmac[6];
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const adjust_head)(struct xdp_md *, int delta) = (void *)44;
static long (*const adjust_tail)(struct xdp_md *, int delta) = (void *)65;
static long (*const fib)(void *ctx, struct fib_lookup *, int size, u32 flags) = (void *)69; // GPL only
static u64 (*const boot_time)(void) = (void *)125;

struct ethernet {
	u8 dst[6];
	u8 src[6];
	be16 type;
};

struct ipv4 {
	u8 version_ihl;
	u8 tos;
	be16 length;
	be16 id;
	be16 fragment;
	u8 ttl;
	u8 protocol;
	be16 checksum;
	be32 src;
	be32 dst;
};

struct ipv6 {
	be32 flow; // version, traffic class, flow label
	be16 length;
	u8 next;
	u8 hops;
	be32 src[4];
	be32 dst[4];
};

struct udp {
	be16 src;
	be16 dst;
	be16 length;
	be16 checksum;
};

#define htons(x) __builtin_bswap16(x)
#define ntohs(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)
