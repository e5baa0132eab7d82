/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counting, the choice of a target, and the tables of flows. */
#ifndef HERALD_FLOW_H
#define HERALD_FLOW_H

#include "packet.h"

#define SECOND_NS 1000000000ULL
/* How long a node that holds a VIP no longer goes on translating replies itself. */
#define HANDOVER_NS (5 * SECOND_NS)
/* After this long without a packet of the client, another client may take the source port. */
#define IDLE_TCP_NS (7440 * SECOND_NS) /* RFC 5382 REQ-5 */
#define IDLE_UDP_NS (300 * SECOND_NS)  /* RFC 4787 REQ-5 */
#define IDLE_CLOSED_NS (10 * SECOND_NS)
#define SOURCE_PORT_TRIES 8

INLINE void count(__u32 event)
{
	__u64 *counter = bpf_map_lookup_elem(&events, &event);

	if (counter)
		(*counter)++;
}

INLINE int drop(__u32 event)
{
	count(event);
	return VERDICT_DROP;
}

INLINE int passed(void)
{
	count(EVENT_PASSED_TO_STACK);
	return VERDICT_NEXT;
}

/* As in src/filter.rs. */
INLINE __u32 mix(__u32 word)
{
	return word * 0x61c88647;
}

INLINE __u32 mix_address(const struct address *address)
{
	return mix(address->word[3] ^
		   (address->word[0] + address->word[1] * 31 + address->word[2] * 961));
}

INLINE int has_bit(const __u8 *bits, __u32 bit)
{
	return bits[bit / 8] >> bit % 8 & 1;
}

INLINE const struct filters *find_filters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&filters, &zero);
}

INLINE int may_be_vip(const struct address *address)
{
	const struct filters *known = find_filters();

	return known && has_bit(known->vips, ((__u64)mix_address(address) * VIP_BITS) >> 32);
}

INLINE int may_be_pod(const struct address *address)
{
	const struct filters *known = find_filters();

	return known && has_bit(known->pods, ((__u64)mix_address(address) * NODE_BITS) >> 32);
}

/* The number of the node that has this address; 0: no node. */
INLINE __u32 node_with_address(const struct address *address)
{
	const struct filters *known = find_filters();

	if (!known || !has_bit(known->addresses, ((__u64)mix_address(address) * NODE_BITS) >> 32))
		return 0;

	__u32 *node = bpf_map_lookup_elem(&addresses, address);

	return node ? *node : 0;
}

INLINE __u32 rotate(__u32 word, __u32 bits)
{
	return word << bits | word >> (32 - bits);
}

/*
 * Bob Jenkins' lookup3 as in include/linux/jhash.h, over the client's address and port and two zero
 * bytes: the hash of nftables' `jhash ip saddr . th sport`. Where the address alone is to choose, the
 * port is 0.
 */
INLINE __u32 flow_hash(const struct packet *packet, __be16 port)
{
	__u32 zero = 0;
	struct config *settings = bpf_map_lookup_elem(&config, &zero);
	__u32 seed = settings ? settings->hash_seed : 0;
	__u32 length = packet->is_ipv6 ? 20 : 8;
	__u32 a = 0xdeadbeef + length + seed, b = a, c = a;

	if (packet->is_ipv6) {
		a += packet->source.word[0];
		b += packet->source.word[1];
		c += packet->source.word[2];
		a -= c, a ^= rotate(c, 4), c += b;
		b -= a, b ^= rotate(a, 6), a += c;
		c -= b, c ^= rotate(b, 8), b += a;
		a -= c, a ^= rotate(c, 16), c += b;
		b -= a, b ^= rotate(a, 19), a += c;
		c -= b, c ^= rotate(b, 4), b += a;
	}
	a += packet->source.word[3];
	b += port;
	c ^= b, c -= rotate(b, 14);
	a ^= c, a -= rotate(c, 11);
	b ^= a, b -= rotate(a, 25);
	c ^= b, c -= rotate(b, 16);
	a ^= c, a -= rotate(c, 4);
	b ^= a, b -= rotate(a, 14);
	c ^= b, c -= rotate(b, 24);
	return c;
}

/* What is in the slot of a hash; 0: nothing. */
INLINE __u32 find_slot(__u32 first_block, __u32 slots, __u32 hash)
{
	__u32 slot = ((__u64)hash * slots) >> 32;
	__u32 index = first_block + slot / SLOTS_PER_BLOCK;
	struct block *block = bpf_map_lookup_elem(&blocks, &index);

	return slots && block ? block->slot[slot % SLOTS_PER_BLOCK] : 0;
}

/* The node that the tables give a flow; 0: none. */
INLINE __u32 choose_target(const struct service *service, __u32 hash)
{
	return find_slot(service->first_block, service->slots, hash);
}

/* The port that has a say in the choice beside the client's address; 0: none. */
INLINE __be16 chosen_by(const struct packet *packet, const struct service *service)
{
	return service->flags & SERVICE_BY_ADDRESS ? 0 : packet->source_port;
}

/* A node's address of the packet's family; 0 if the node is known and has one. */
INLINE int node_address(const struct node *node, int is_ipv6, struct address *address)
{
	if (!(node->flags & NODE_KNOWN))
		return -1;
	if (is_ipv6) {
		__builtin_memcpy(address, node->ipv6, 16);
		return address->word[0] ? 0 : -1;
	}
	address_from_ipv4(address, node->ipv4);
	return node->ipv4 ? 0 : -1;
}

INLINE int is_current(const struct reply *reply, const struct vip *vip, __u64 now)
{
	return reply->generation == vip->generation &&
	       (vip->role == ROLE_ME || since(now, reply->seen_ns) < HANDOVER_NS);
}

INLINE struct reply *find_reply(const struct packet *packet, const struct vip *vip)
{
	struct reply_key key = {
		.target = packet->source,
		.vip = packet->destination,
		.target_port = packet->source_port,
		.source_port = packet->destination_port,
		.protocol = packet->protocol,
	};
	struct reply *reply = bpf_map_lookup_elem(&replies, &key);

	return reply && is_current(reply, vip, bpf_ktime_get_coarse_ns()) ? reply : 0;
}

INLINE int is_idle(const struct reply *reply, __u8 protocol, __u64 now)
{
	__u64 idle = protocol == IPPROTO_UDP ? IDLE_UDP_NS :
		     reply->closed == CLOSED ? IDLE_CLOSED_NS : IDLE_TCP_NS;

	return since(now, reply->seen_ns) > idle;
}

INLINE int is_free(const struct reply *reply, const struct vip *vip, __u8 protocol, __u64 now)
{
	return reply->generation != vip->generation || is_idle(reply, protocol, now);
}

/*
 * Writes both directions of a flow down. The source port is the client's unless another client uses
 * it towards the same target. Returns -1 if there is no port.
 */
APART int open_flow(const struct flow_key *key, struct flow *flow, const struct vip *vip,
		    __u32 ifindex, __u32 hash)
{
	if (!key || !flow || !vip)
		return -1;

	struct reply_key reply_key = {
		.target = flow->target,
		.vip = key->vip,
		.target_port = flow->target_port,
		.protocol = key->protocol,
	};
	struct reply reply = {
		.client = key->client,
		.seen_ns = flow->seen_ns,
		.service = flow->service,
		.generation = flow->generation,
		.ifindex = ifindex,
		.client_port = key->client_port,
		.vip_port = key->vip_port,
	};
	__be16 port = key->client_port;

	for (int i = 0; i < SOURCE_PORT_TRIES; i++) {
		reply_key.source_port = port;

		struct reply *owner = bpf_map_lookup_elem(&replies, &reply_key);
		int ours = owner && address_equal(&owner->client, &key->client) &&
			   owner->client_port == key->client_port &&
			   owner->vip_port == key->vip_port;

		if ((!owner || ours || is_free(owner, vip, key->protocol, flow->seen_ns)) &&
		    !bpf_map_update_elem(&replies, &reply_key, &reply,
					 owner ? BPF_ANY : BPF_NOEXIST)) {
			flow->source_port = port;
			if (i)
				count(EVENT_SOURCE_PORT_CHANGED);
			return bpf_map_update_elem(&flows, key, flow, BPF_ANY) ? -1 : 0;
		}
		/* The multiplier of Numerical Recipes' generator, modulo 2^32. */
		hash = hash * 1664525 + 1013904223;
		port = htons(1024 + (((hash >> 8) * 64512ULL) >> 24));
	}
	return -1;
}

/* The other direction of a flow; 0 if there is none, or if it is another client's by now. */
static __attribute__((noinline)) struct reply *other_direction(const struct flow_key *key,
							       const struct flow *flow)
{
	struct reply_key reply_key = {
		.target = flow->target,
		.vip = key->vip,
		.target_port = flow->target_port,
		.source_port = flow->source_port,
		.protocol = key->protocol,
	};
	struct reply *reply = bpf_map_lookup_elem(&replies, &reply_key);

	return reply && address_equal(&reply->client, &key->client) &&
			       reply->client_port == key->client_port &&
			       reply->vip_port == key->vip_port ?
		       reply : 0;
}

/* Gives the other direction of a flow up: its source port is free for anybody. */
INLINE void close_flow(const struct flow_key *key, const struct flow *flow)
{
	struct reply *reply = other_direction(key, flow);

	if (reply)
		reply->generation = 0;
}

/*
 * Once a second, and when TCP opens or closes: carries what the client did over to the other direction.
 * Returns 1 if that opens a connection anew, -1 if the other direction is no longer the client's.
 */
INLINE int refresh_flow(const struct flow_key *key, struct flow *flow, __u8 tcp_flags, __u64 now)
{
	struct reply *reply = other_direction(key, flow);

	if (!reply || reply->generation != flow->generation)
		return -1;
	flow->seen_ns = now;
	reply->seen_ns = now;
	if (tcp_flags & TCP_RST)
		reply->closed = CLOSED;
	else if (tcp_flags & TCP_FIN)
		reply->closed |= CLOSED_BY_CLIENT;
	else if (tcp_flags & TCP_SYN) {
		int is_new = reply->closed != 0;

		reply->closed = 0;
		return is_new;
	}
	return 0;
}

#endif
