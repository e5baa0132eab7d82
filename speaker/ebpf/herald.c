/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Herald's data plane: two programs for the uplinks of a node, at tc ingress and tc egress.
 *
 * Mode "nodeport": a client's packet to VIP:port goes on to target:NodePort with the VIP as its
 * source; the target's reply comes back to the VIP and goes on to the client from VIP:port. The
 * choice of the target is a function of the client's address and port and of tables that are equal
 * on all nodes, so the next holder of a VIP goes on where this one stopped.
 *
 * A packet that is none of our business is left to whoever comes next, untouched.
 */
#include "packet.h"

#define SECOND_NS 1000000000ULL
/* How long a node that holds a VIP no longer goes on translating replies itself. */
#define HANDOVER_NS (5 * SECOND_NS)
/* After this long without a packet of the client, another client may take the source port. */
#define IDLE_TCP_NS (7440 * SECOND_NS) /* RFC 5382 REQ-5 */
#define IDLE_UDP_NS (300 * SECOND_NS)  /* RFC 4787 REQ-5 */
#define IDLE_CLOSED_NS (10 * SECOND_NS)
#define SOURCE_PORT_TRIES 8
#define ECHO_HOPS 64

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

INLINE __u32 rotate(__u32 word, __u32 bits)
{
	return word << bits | word >> (32 - bits);
}

/*
 * Bob Jenkins' lookup3 as in include/linux/jhash.h, over the client's address and port and two zero
 * bytes: the hash of nftables' `jhash ip saddr . th sport`.
 */
INLINE __u32 flow_hash(const struct packet *packet, __u32 seed)
{
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
	b += packet->source_port;
	c ^= b, c -= rotate(b, 14);
	a ^= c, a -= rotate(c, 11);
	b ^= a, b -= rotate(a, 25);
	c ^= b, c -= rotate(b, 16);
	a ^= c, a -= rotate(c, 4);
	b ^= a, b -= rotate(a, 14);
	c ^= b, c -= rotate(b, 24);
	return c;
}

/* The node that the tables give a flow; 0: none. */
INLINE __u32 choose_target(const struct service *service, __u32 hash)
{
	__u32 slot = ((__u64)hash * service->slots) >> 32;
	__u32 index = service->first_block + slot / SLOTS_PER_BLOCK;
	struct block *block = bpf_map_lookup_elem(&blocks, &index);

	return block ? block->slot[slot % SLOTS_PER_BLOCK] : 0;
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

/* The number of the node that sent this frame, by its MAC address; 0: no node. */
INLINE __u32 sending_node(struct __sk_buff *skb)
{
	struct mac_key key = {};
	void *data = (void *)(long)skb->data;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return 0;
	__builtin_memcpy(key.mac, eth->source, sizeof(key.mac));

	__u32 *node = bpf_map_lookup_elem(&macs, &key);

	return node ? *node : 0;
}

/*
 * Hands a packet to the holder of the VIP. `sender` is the node whose own packet this is, 0 for a
 * client's. A packet that another node handed on is not handed on again.
 */
APART int relay(struct __sk_buff *skb, const struct packet *packet, const struct vip *vip,
		__u32 sender)
{
	if (!packet || !vip)
		return VERDICT_DROP;

	struct bpf_redir_neigh holder = vip->holder;
	__u32 by = sending_node(skb);

	if (vip->role != ROLE_PEER)
		return drop(EVENT_NO_HOLDER);
	if (by && by != sender)
		return drop(EVENT_LOOP);
	if (packet->hops <= 1)
		return drop(EVENT_TTL);
	if (write_network(skb, packet, packet->hops - 1, &packet->source, &packet->destination))
		return drop(EVENT_REWRITE_FAILED);
	count(EVENT_RELAYED);
	return bpf_redirect_neigh(skb->ifindex, &holder, sizeof(holder), 0);
}

/* The Service whose NodePort a packet to the VIP may be a reply from. */
INLINE int is_from_node_port(const struct packet *packet)
{
	struct service_key key = {
		.address = packet->destination,
		.port = packet->source_port,
		.protocol = packet->protocol,
		.kind = KIND_NODE_PORT,
	};

	return bpf_map_lookup_elem(&services, &key) != 0;
}

INLINE int is_current(const struct reply *reply, const struct vip *vip, __u64 now)
{
	return reply->generation == vip->generation &&
	       (vip->role == ROLE_ME || now - reply->seen_ns < HANDOVER_NS);
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

/* Sends a target's reply on to the client. */
INLINE int translate_reply(struct __sk_buff *skb, const struct packet *packet, struct reply *reply,
			   __u8 hops)
{
	struct address client = reply->client;
	__u32 ifindex = reply->ifindex;
	__u32 service = reply->service;

	if (packet->protocol == IPPROTO_TCP) {
		if (packet->tcp_flags & TCP_RST)
			reply->closed = CLOSED;
		else if (packet->tcp_flags & TCP_FIN)
			reply->closed |= CLOSED_BY_TARGET;
	}

	struct stats *counters = bpf_map_lookup_elem(&stats, &service);

	if (counters) {
		counters->reply_packets += skb->gso_segs ?: 1;
		counters->reply_bytes += skb->len;
	}
	if (rewrite(skb, packet, hops, &packet->destination, reply->vip_port, &client,
		    reply->client_port))
		return drop(EVENT_REWRITE_FAILED);
	return bpf_redirect_neigh(ifindex, 0, 0, 0);
}

INLINE int is_free(const struct reply *reply, const struct vip *vip, __u8 protocol, __u64 now)
{
	__u64 idle = protocol == IPPROTO_UDP ? IDLE_UDP_NS :
		     reply->closed == CLOSED ? IDLE_CLOSED_NS : IDLE_TCP_NS;

	return reply->generation != vip->generation || now - reply->seen_ns > idle;
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

/* Removes the other direction of a flow that is given up, unless another client has it now. */
INLINE void close_flow(const struct flow_key *key, const struct flow *flow)
{
	struct reply_key reply_key = {
		.target = flow->target,
		.vip = key->vip,
		.target_port = flow->target_port,
		.source_port = flow->source_port,
		.protocol = key->protocol,
	};
	struct reply *reply = bpf_map_lookup_elem(&replies, &reply_key);

	if (reply && address_equal(&reply->client, &key->client) &&
	    reply->client_port == key->client_port && reply->vip_port == key->vip_port)
		bpf_map_delete_elem(&replies, &reply_key);
}

/*
 * Once a second, and when TCP closes: carries what the client did over to the other direction.
 * Returns -1 if that is no longer the client's.
 */
INLINE int refresh_flow(const struct flow_key *key, struct flow *flow, __u8 tcp_flags, __u64 now)
{
	struct reply_key reply_key = {
		.target = flow->target,
		.vip = key->vip,
		.target_port = flow->target_port,
		.source_port = flow->source_port,
		.protocol = key->protocol,
	};
	struct reply *reply = bpf_map_lookup_elem(&replies, &reply_key);

	if (!reply || !address_equal(&reply->client, &key->client) ||
	    reply->client_port != key->client_port || reply->vip_port != key->vip_port ||
	    reply->generation != flow->generation)
		return -1;
	flow->seen_ns = now;
	reply->seen_ns = now;
	if (tcp_flags & TCP_RST)
		reply->closed = CLOSED;
	else if (tcp_flags & TCP_FIN)
		reply->closed |= CLOSED_BY_CLIENT;
	else if (tcp_flags & TCP_SYN)
		reply->closed = 0;
	return 0;
}

INLINE int is_allowed(const struct packet *packet, const struct service *service)
{
	struct range_key key = {
		.prefix_length = 160,
		.scope = service->id << 1 | packet->is_ipv6,
		.address = packet->source,
	};

	return !(service->flags & SERVICE_HAS_RANGES) || bpf_map_lookup_elem(&ranges, &key);
}

/* A packet of a client to a Service in mode "nodeport" whose VIP we hold. */
INLINE int forward(struct __sk_buff *skb, const struct packet *packet, const struct vip *vip,
		   const struct service *service, __u32 sender)
{
	__u32 zero = 0;
	struct config *settings = bpf_map_lookup_elem(&config, &zero);
	__u32 hash = flow_hash(packet, settings ? settings->hash_seed : 0);
	__u32 target = choose_target(service, hash);
	__u64 now = bpf_ktime_get_coarse_ns();
	int is_syn = packet->protocol == IPPROTO_TCP &&
		     (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	struct flow_key key = {
		.client = packet->source,
		.vip = packet->destination,
		.client_port = packet->source_port,
		.vip_port = packet->destination_port,
		.protocol = packet->protocol,
	};
	struct flow *old = bpf_map_lookup_elem(&flows, &key);
	struct flow flow = {};
	struct node *node = 0;
	int is_new = 0;

	if (old) {
		/* TCP stays with its target for as long as that node is there. */
		int stays = packet->protocol == IPPROTO_TCP && !is_syn;
		__u32 number = old->node;

		flow = *old;
		node = bpf_map_lookup_elem(&nodes, &number);
		if (flow.service != service->id || flow.generation != vip->generation ||
		    flow.target_port != service->node_port || !node ||
		    (!stays && number != target)) {
			node = 0;
		} else {
			struct address address;

			if (node_address(node, packet->is_ipv6, &address) ||
			    !address_equal(&address, &flow.target))
				node = 0;
			else if ((is_syn || (packet->tcp_flags & (TCP_FIN | TCP_RST)) ||
				  now - flow.seen_ns > SECOND_NS) &&
				 refresh_flow(&key, old, packet->tcp_flags, now))
				node = 0;
		}
		if (!node)
			close_flow(&key, &flow);
	}
	if (!node) {
		/* A target's reply without a flow must not be taken for a client's packet. */
		if (sender && is_from_node_port(packet))
			return drop(EVENT_STRAY_REPLY);
		/* Without any target kube-proxy refuses at once. */
		if (!target)
			return passed();
		node = bpf_map_lookup_elem(&nodes, &target);
		if (!node || node_address(node, packet->is_ipv6, &flow.target))
			return passed();

		flow.seen_ns = now;
		flow.service = service->id;
		flow.generation = vip->generation;
		flow.node = target;
		flow.target_port = service->node_port;
		flow.source_port = 0;
		if (open_flow(&key, &flow, vip, skb->ifindex, hash))
			return drop(EVENT_NO_SOURCE_PORT);
		is_new = is_syn || packet->protocol != IPPROTO_TCP;
		if (!is_new)
			count(EVENT_FLOW_ADOPTED);
	}

	int is_self = node->flags & NODE_IS_SELF;
	__u32 ifindex = node->ifindex ?: skb->ifindex;
	__u32 id = service->id;

	if (!is_self && packet->hops <= 1)
		return drop(EVENT_TTL);

	struct stats *counters = bpf_map_lookup_elem(&stats, &id);

	if (counters) {
		counters->packets += skb->gso_segs ?: 1;
		counters->bytes += skb->len;
		counters->flows += is_new;
	}
	if (rewrite(skb, packet, packet->hops - !is_self, &packet->destination, flow.source_port,
		    &flow.target, flow.target_port))
		return drop(EVENT_REWRITE_FAILED);
	return is_self ? VERDICT_NEXT : bpf_redirect_neigh(ifindex, 0, 0, 0);
}

/*
 * Answers an echo request. The answer takes the way to the client and not the one back: the frame may
 * have come from a node that handed it on.
 */
INLINE int answer_echo(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 reply = packet->is_ipv6 ? ICMPV6_ECHO_REPLY : ICMP_ECHO_REPLY;

	/* Swapping the addresses changes no sum; the type is the first byte of its word. */
	if (bpf_l4_csum_replace(skb, packet->transport + 2, packet->icmp_type, reply, 2) ||
	    bpf_skb_store_bytes(skb, packet->transport, &reply, 1, 0) ||
	    write_network(skb, packet, ECHO_HOPS, &packet->destination, &packet->source))
		return drop(EVENT_REWRITE_FAILED);
	count(EVENT_ECHO_ANSWERED);
	return bpf_redirect_neigh(skb->ifindex, 0, 0, 0);
}

INLINE int is_echo_request(const struct packet *packet)
{
	return packet->is_ipv6 ?
		       packet->protocol == IPPROTO_ICMPV6 &&
			       packet->icmp_type == ICMPV6_ECHO_REQUEST :
		       packet->protocol == IPPROTO_ICMP && packet->icmp_type == ICMP_ECHO_REQUEST;
}

INLINE int is_neighbour_discovery(const struct packet *packet)
{
	return packet->is_ipv6 && packet->protocol == IPPROTO_ICMPV6 &&
	       packet->icmp_type >= ICMPV6_ND_FIRST && packet->icmp_type <= ICMPV6_ND_LAST;
}

INLINE struct vip *find_vip(struct __sk_buff *skb, const struct packet *packet)
{
	struct vip_key key = {.address = packet->destination, .ifindex = skb->ifindex};

	return bpf_map_lookup_elem(&vips, &key);
}

SEC("classifier/ingress")
int herald_ingress(struct __sk_buff *skb)
{
	struct packet packet = {};

	/* What a bridge floods to others is not for us to forward. */
	if (skb->pkt_type != PACKET_HOST || read_network(skb, &packet))
		return VERDICT_NEXT;

	struct vip *vip = find_vip(skb, &packet);

	if (!vip)
		return VERDICT_NEXT;
	if (read_transport(skb, &packet))
		return drop(EVENT_MALFORMED);
	if (is_neighbour_discovery(&packet))
		return VERDICT_NEXT;
	if (packet.is_fragment)
		return drop(EVENT_FRAGMENT);
	if (is_echo_request(&packet))
		return vip->role == ROLE_ME ? answer_echo(skb, &packet) :
					      relay(skb, &packet, vip, 0);
	if (packet.protocol != IPPROTO_TCP && packet.protocol != IPPROTO_UDP &&
	    packet.protocol != IPPROTO_SCTP)
		return drop(EVENT_UNSUPPORTED_PROTOCOL);

	/* The node whose address the packet comes from: it may be the reply of a target. */
	__u32 *known = bpf_map_lookup_elem(&addresses, &packet.source);
	__u32 sender = known ? *known : 0;

	if (sender) {
		struct reply *reply = find_reply(&packet, vip);

		if (reply)
			return packet.hops <= 1 ? drop(EVENT_TTL) :
						  translate_reply(skb, &packet, reply,
								  packet.hops - 1);
		if (vip->role != ROLE_ME && is_from_node_port(&packet))
			return relay(skb, &packet, vip, sender);
	}

	struct service_key key = {
		.address = packet.destination,
		.port = packet.destination_port,
		.protocol = packet.protocol,
		.kind = KIND_SERVICE,
	};
	struct service *service = bpf_map_lookup_elem(&services, &key);

	if (!service)
		return drop(sender && is_from_node_port(&packet) ? EVENT_STRAY_REPLY :
								   EVENT_UNKNOWN_PORT);
	if (vip->role != ROLE_ME)
		return relay(skb, &packet, vip, 0);
	if (service->mode != MODE_NODE_PORT)
		return passed();
	if (!is_allowed(&packet, service))
		return drop(EVENT_SOURCE_RANGE);
	return forward(skb, &packet, vip, service, sender);
}

/* Replies of this node as a target leave here, and never reach the wire as they are. */
SEC("classifier/egress")
int herald_egress(struct __sk_buff *skb)
{
	struct packet packet = {};

	if (read_network(skb, &packet))
		return VERDICT_NEXT;

	struct vip *vip = find_vip(skb, &packet);

	if (!vip || read_transport(skb, &packet) || packet.is_fragment ||
	    (packet.protocol != IPPROTO_TCP && packet.protocol != IPPROTO_UDP))
		return VERDICT_NEXT;

	struct reply *reply = find_reply(&packet, vip);

	return reply ? translate_reply(skb, &packet, reply, packet.hops) : VERDICT_NEXT;
}

/* bpf_redirect_neigh and the checksum helpers are for programs the kernel counts as GPL. */
SEC("license") char licence[] = "Dual BSD/GPL";
