/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps. Everything but the flow tables and the counters is written by the speaker;
 * speaker/dataplane/src/layout.rs encodes the same bytes, and both sides assert the sizes.
 * Addresses are 16 bytes everywhere, IPv4 as ::ffff:a.b.c.d. Ports are in network byte order,
 * other numbers in the machine's.
 */
#ifndef HERALD_MAPS_H
#define HERALD_MAPS_H

#include "kernel.h"

#define SIZE_IS(type, bytes) _Static_assert(sizeof(type) == (bytes), #type)

struct address {
	__u32 word[4];
};
SIZE_IS(struct address, 16);

/* One entry. */
struct config {
	/* Seeds the flow hash; the same on every node. */
	__u32 hash_seed;
	/* The highest generation that was given to a VIP so far. */
	__u32 generation;
	__u32 flags;
};
SIZE_IS(struct config, 12);

/* Of config: echo requests to a VIP are not answered. */
#define CONFIG_IGNORES_ECHO 1
/* Somebody has filled these maps. */
#define CONFIG_IS_WRITTEN 2

/*
 * One entry. What is in a map has its bit set here, so that most of what is none of our business needs no
 * look-up; what has its bit set may be in the map. src/filter.rs sets them.
 */
#define VIP_BITS (1U << 17)
#define NODE_BITS (1U << 15)
struct filters {
	__u8 vips[VIP_BITS / 8];
	__u8 addresses[NODE_BITS / 8];
	__u8 macs[NODE_BITS / 8];
	/* The addresses of this node's own pods that are in the map. */
	__u8 pods[NODE_BITS / 8];
};
SIZE_IS(struct filters, 28672);

struct vip_key {
	struct address address;
	/* The interface a frame came by: a VIP has one holder per segment. */
	__u32 ifindex;
};
SIZE_IS(struct vip_key, 20);

/* No node is known to hold it. */
#define ROLE_NOBODY 0
/* We hold it. */
#define ROLE_ME 1
/* Another node holds it. */
#define ROLE_PEER 2

struct vip {
	__u32 role;
	/*
	 * Rises when we become the holder. What the flow tables say of an earlier time may have
	 * been overtaken by what happened at another holder.
	 */
	__u32 generation;
	/*
	 * With ROLE_PEER, the holder's own address; with ROLE_ME that of the holder before us, which is
	 * still there and may know of flows that we have not seen yet, or none.
	 */
	struct bpf_redir_neigh holder;
};
SIZE_IS(struct vip, 28);

/* The key is VIP and Service port. */
#define KIND_SERVICE 0
/* The key is VIP and NodePort: what a target's reply comes from. The value says nothing. */
#define KIND_NODE_PORT 1

struct service_key {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 kind;
};
SIZE_IS(struct service_key, 20);

#define MODE_OFF 0
#define MODE_NODE_PORT 1
#define MODE_DSR 2
/* As MODE_DSR between nodes; the target gives the flow to one of its own pods. */
#define MODE_POD 3
#define SERVICE_HAS_RANGES 1
/* With MODE_DSR and MODE_POD: the client's address alone chooses the target. */
#define SERVICE_BY_ADDRESS 2
/*
 * With MODE_DSR and MODE_POD: the flow tables may know of flows of this VIP to NodePorts, of targets that
 * are not on the segment or of the time before the mode changed.
 */
#define SERVICE_HAS_FLOWS 4

struct service {
	/* Of the Service: the key of its counters, and part of the key of its source ranges. */
	__u32 id;
	/*
	 * The target table: its first block, and how many slots it has, a power of two. With MODE_POD as
	 * many follow, with the node that had the slot before and may still have its connections.
	 */
	__u32 first_block;
	__u32 slots;
	/* With MODE_DSR 0 if there is none. */
	__be16 node_port;
	__u8 mode;
	__u8 flags;
	/* With MODE_POD: the table of this node's own pods, likewise; no slots if it has none. */
	__u32 pod_block;
	__u32 pod_slots;
	/* With MODE_POD: since when, by bpf_ktime_get_coarse_ns(); 0: for as long as these maps exist. */
	__u64 since_ns;
};
SIZE_IS(struct service, 32);

/* A slot holds the number of a node, or of a pod of ours; 0 stands for none. */
#define SLOTS_PER_BLOCK 256
struct block {
	__u16 slot[SLOTS_PER_BLOCK];
};
SIZE_IS(struct block, 512);

#define NODE_KNOWN 1
#define NODE_IS_SELF 2

/* A segment that we share with a node. */
struct link {
	/* Our interface; 0: none, and none follows. */
	__u32 ifindex;
	/* The node's MAC address there, and our own. */
	__u8 target[6];
	__u8 source[6];
};
SIZE_IS(struct link, 16);

#define LINKS 4

struct node {
	__be32 ipv4;
	__u32 ipv6[4];
	/* The interface that leads there; 0: the one the packet came by. */
	__u32 ifindex;
	__u32 flags;
	struct link link[LINKS];
};
SIZE_IS(struct node, 92);

/* A pod of this node, as an endpoint of one Service. */
struct pod {
	struct address address;
	/* The Service's number. */
	__u32 service;
	__be16 port;
	/* Whether it takes new flows; else those that it has go on. */
	__u8 takes_new;
	__u8 zero;
};
SIZE_IS(struct pod, 24);

struct mac_key {
	__u8 mac[6];
	__u8 zero[2];
};
SIZE_IS(struct mac_key, 8);

struct range_key {
	/* 32 for the scope, plus the bits of the prefix. */
	__u32 prefix_length;
	/* Twice the Service's id, plus one for IPv6: ::/0 lets no IPv4 client in. */
	__u32 scope;
	struct address address;
};
SIZE_IS(struct range_key, 24);

/* Per CPU. */
struct stats {
	__u64 packets;
	__u64 bytes;
	__u64 flows;
	__u64 reply_packets;
	__u64 reply_bytes;
};
SIZE_IS(struct stats, 40);

/* What happened to packets, per CPU; the names are in layout.rs. */
enum event {
	/* Dropped: */
	EVENT_UNKNOWN_PORT,
	EVENT_UNSUPPORTED_PROTOCOL,
	EVENT_FRAGMENT,
	EVENT_MALFORMED,
	EVENT_TTL,
	EVENT_SOURCE_RANGE,
	EVENT_NO_HOLDER,
	EVENT_LOOP,
	EVENT_STRAY_REPLY,
	EVENT_NO_SOURCE_PORT,
	EVENT_NO_LINK,
	EVENT_UNKNOWN_ERROR,
	EVENT_REWRITE_FAILED,
	/* Not dropped: */
	EVENT_RELAYED,
	EVENT_PASSED_TO_STACK,
	EVENT_FROM_NODE,
	EVENT_ECHO_ANSWERED,
	EVENT_ERROR_TRANSLATED,
	EVENT_ERROR_STEERED,
	EVENT_FLOW_ADOPTED,
	EVENT_SOURCE_PORT_CHANGED,
	EVENT_POD_CHOSEN,
	EVENT_POD_TAKEN,
	EVENT_NO_POD,
	EVENT_HANDED_BACK,
	EVENTS,
};

/* A flow as the client sees it. */
struct flow_key {
	struct address client;
	struct address vip;
	__be16 client_port;
	__be16 vip_port;
	__u8 protocol;
	__u8 zero[3];
};
SIZE_IS(struct flow_key, 40);

/* The generation of a flow that is pinned to a pod of this node: no VIP has it. */
#define GENERATION_POD 0xffffffff
/* Of one in mode "pod" that another node serves, though its slot is ours. */
#define GENERATION_ELSEWHERE 0xfffffffe

struct flow {
	struct address target;
	/* When a packet of the client last came, give or take a second. */
	__u64 seen_ns;
	__u32 service;
	__u32 generation;
	union {
		__u32 node;
		/* With GENERATION_POD; 0: kube-proxy has it. */
		__u32 pod;
	};
	__be16 target_port;
	/* Our source port on the VIP towards the target: the client's where that was free. */
	__be16 source_port;
};
SIZE_IS(struct flow, 40);

/* A flow as the target sees it. */
struct reply_key {
	struct address target;
	union {
		struct address vip;
		/* A pod sees the client itself. */
		struct address client;
	};
	__be16 target_port;
	__be16 source_port;
	__u8 protocol;
	__u8 zero[3];
};
SIZE_IS(struct reply_key, 40);

#define CLOSED_BY_CLIENT 1
#define CLOSED_BY_TARGET 2
#define CLOSED 3

struct reply {
	union {
		struct address client;
		/* With GENERATION_POD. */
		struct address vip;
	};
	__u64 seen_ns;
	__u32 service;
	__u32 generation;
	/* The interface the client's packets come by; 0 with GENERATION_POD. */
	__u32 ifindex;
	__be16 client_port;
	__be16 vip_port;
	/* Who sent FIN; RST sets both. */
	__u32 closed;
	__u32 zero;
};
SIZE_IS(struct reply, 48);

/* Which fragments belong together: RFC 791 section 3.2, RFC 8200 section 4.5. */
struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;
	/* IPv4 only. */
	__u8 protocol;
	__u8 is_ipv6;
	__u8 zero[2];
};
SIZE_IS(struct fragment_key, 40);

/* What the first of them says, and only that one. */
struct fragments {
	__u64 seen_ns;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 zero[3];
};
SIZE_IS(struct fragments, 16);

#define MAP(name_, type_, entries_, flags_, key_, value_) \
	struct { \
		MAP_UINT(type, type_); \
		MAP_UINT(max_entries, entries_); \
		MAP_UINT(map_flags, flags_); \
		MAP_UINT(pinning, PIN_BY_NAME); \
		MAP_TYPE(key, key_); \
		MAP_TYPE(value, value_); \
	} name_ SEC(".maps")

/* Most hash maps take memory as they fill. The loader sets the size of those marked "sized". */
MAP(config, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, struct config);
MAP(filters, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, struct filters);
MAP(vips, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, struct vip_key, struct vip); /* sized */
MAP(services, BPF_MAP_TYPE_HASH, 131072, BPF_F_NO_PREALLOC, struct service_key, struct service); /* sized */
MAP(blocks, BPF_MAP_TYPE_ARRAY, 49152, 0, __u32, struct block); /* sized */
MAP(nodes, BPF_MAP_TYPE_ARRAY, 8192, 0, __u32, struct node);
MAP(pods, BPF_MAP_TYPE_HASH, 65535, BPF_F_NO_PREALLOC, __u32, struct pod);
MAP(addresses, BPF_MAP_TYPE_HASH, 16384, BPF_F_NO_PREALLOC, struct address, __u32);
MAP(macs, BPF_MAP_TYPE_HASH, 65536, BPF_F_NO_PREALLOC, struct mac_key, __u32);
MAP(ranges, BPF_MAP_TYPE_LPM_TRIE, 262144, BPF_F_NO_PREALLOC, struct range_key, __u32); /* sized */
MAP(flows, BPF_MAP_TYPE_LRU_HASH, 131072, 0, struct flow_key, struct flow); /* sized */
MAP(replies, BPF_MAP_TYPE_LRU_HASH, 131072, 0, struct reply_key, struct reply); /* sized */
MAP(fragments, BPF_MAP_TYPE_LRU_HASH, 8192, 0, struct fragment_key, struct fragments);
MAP(stats, BPF_MAP_TYPE_PERCPU_ARRAY, 16384, 0, __u32, struct stats);
MAP(events, BPF_MAP_TYPE_PERCPU_ARRAY, EVENTS, 0, __u32, __u64);

#endif
