/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Mode "pod" on the node that has the pods. A flow is pinned to one of them in the flow tables: its
 * packets go to pod:port before netfilter sees them, and the pod's leave as VIP:port.
 */
#ifndef HERALD_POD_H
#define HERALD_POD_H

#include "icmp.h"
#include "link.h"

/* How many pods are tried for a flow, should others have one from the same client and port. */
#define POD_TRIES 4

INLINE struct flow_key pin_key(const struct packet *packet)
{
	struct flow_key key = {
		.client = packet->source,
		.vip = packet->destination,
		.client_port = packet->source_port,
		.vip_port = packet->destination_port,
		.protocol = packet->protocol,
	};

	return key;
}

/* What a flow is pinned to; 0: it is not, or was under another Service. */
INLINE struct flow *find_pin(const struct flow_key *key, const struct service *service)
{
	struct flow *pin = bpf_map_lookup_elem(&flows, key);

	return pin && pin->generation == GENERATION_POD && pin->service == service->id ? pin : 0;
}

/* The pod of a pin, if it is still there: another may have its number by now. */
INLINE struct pod *find_pod(const struct flow *pin)
{
	__u32 number = pin->pod;
	struct pod *pod = number ? bpf_map_lookup_elem(&pods, &number) : 0;

	return pod && pod->service == pin->service && pod->port == pin->target_port &&
			       address_equal(&pod->address, &pin->target) ?
		       pod : 0;
}

/*
 * Writes the way back down. Returns -1 if the pod has a flow from the same client and port that came to
 * another VIP or port, and goes on: their replies could not be told apart.
 */
APART int write_way_back(const struct flow_key *key, const struct flow *pin)
{
	if (!key || !pin)
		return -1;

	struct reply_key reply_key = {
		.target = pin->target,
		.client = key->client,
		.target_port = pin->target_port,
		.source_port = key->client_port,
		.protocol = key->protocol,
	};
	struct reply reply = {
		.vip = key->vip,
		.seen_ns = pin->seen_ns,
		.service = pin->service,
		.generation = GENERATION_POD,
		.client_port = key->client_port,
		.vip_port = key->vip_port,
	};
	struct reply *owner = bpf_map_lookup_elem(&replies, &reply_key);

	if (owner && owner->generation == GENERATION_POD && owner->closed != CLOSED &&
	    !is_idle(owner, key->protocol, pin->seen_ns) &&
	    (owner->vip_port != key->vip_port || !address_equal(&owner->vip, &key->vip)))
		return -1;
	return bpf_map_update_elem(&replies, &reply_key, &reply, owner ? BPF_ANY : BPF_NOEXIST) ?
		       -1 : 0;
}

/*
 * Once a second, and when TCP opens or closes: carries what the client did over to the way back. Returns
 * -1 if that is another flow's by now.
 */
APART int refresh_pin(const struct flow_key *key, struct flow *pin, __u32 tcp_flags, __u64 now)
{
	if (!key || !pin)
		return -1;

	struct reply_key reply_key = {
		.target = pin->target,
		.client = key->client,
		.target_port = pin->target_port,
		.source_port = key->client_port,
		.protocol = key->protocol,
	};
	struct reply *reply = bpf_map_lookup_elem(&replies, &reply_key);

	pin->seen_ns = now;
	if (!reply || reply->generation != GENERATION_POD || reply->vip_port != key->vip_port ||
	    !address_equal(&reply->vip, &key->vip))
		return write_way_back(key, pin);
	reply->seen_ns = now;
	if (tcp_flags & TCP_RST)
		reply->closed = CLOSED;
	else if (tcp_flags & TCP_FIN)
		reply->closed |= CLOSED_BY_CLIENT;
	else if (tcp_flags & TCP_SYN)
		reply->closed = 0;
	return 0;
}

/* Pins a flow to one of our pods; -1: there is none, or each has a flow from the same client and port. */
APART int pin_flow(const struct flow_key *key, struct flow *pin, const struct service *service,
		   __u32 hash)
{
	int is_taken = 0;

	if (!key || !pin || !service)
		return -1;

	for (int i = 0; i < POD_TRIES; i++) {
		/* The upper bits chose the node: multiplied, the lower ones choose the pod. */
		__u32 number = find_slot(service->pod_block, service->pod_slots, mix(hash));
		struct pod *pod = number ? bpf_map_lookup_elem(&pods, &number) : 0;

		if (!pod)
			break;
		pin->target = pod->address;
		pin->target_port = pod->port;
		pin->pod = number;
		if (!write_way_back(key, pin) &&
		    !bpf_map_update_elem(&flows, key, pin, BPF_ANY)) {
			count(EVENT_POD_CHOSEN);
			return 0;
		}
		is_taken = 1;
		/* The multiplier of Numerical Recipes' generator, modulo 2^32. */
		hash = hash * 1664525 + 1013904223;
	}
	count(is_taken ? EVENT_POD_TAKEN : EVENT_NO_POD);
	return -1;
}

/* The number of the node that had the slot of a hash before; no node's: none. */
INLINE __u32 choose_before(const struct service *service, __u32 hash)
{
	return find_slot(service->first_block + service->slots / SLOTS_PER_BLOCK, service->slots,
			 hash);
}

/* Whether a connection is pinned to one of our pods though its slot, which was ours, is another node's. */
APART int keeps_flow(const struct packet *packet, const struct service *service)
{
	if (!packet || !service || packet->protocol != IPPROTO_TCP ||
	    (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return 0;

	__u32 number = choose_before(service, flow_hash(packet, chosen_by(packet, service)));
	struct node *node = bpf_map_lookup_elem(&nodes, &number);

	if (!node || !(node->flags & NODE_IS_SELF))
		return 0;

	struct flow_key key = pin_key(packet);
	struct flow *pin = find_pin(&key, service);

	return pin && find_pod(pin);
}

/* For so many hops a connection that nobody knows goes round while the tables of nodes differ. */
#define HOPS_ELSEWHERE 8

INLINE int hand_back(struct __sk_buff *skb, const struct packet *packet, const struct link *link)
{
	if (packet->hops > HOPS_ELSEWHERE &&
	    write_network(skb, packet, HOPS_ELSEWHERE, &packet->source, &packet->destination))
		return drop(EVENT_REWRITE_FAILED);

	int verdict = send_on(skb, packet, link);

	if (verdict != VERDICT_DROP)
		count(EVENT_HANDED_BACK);
	return verdict;
}

/* Hands a packet to the node with this number; VERDICT_UNKNOWN if that is not another one that can be reached. */
INLINE int hand_to(struct __sk_buff *skb, const struct packet *packet, __u32 number)
{
	struct node *node = bpf_map_lookup_elem(&nodes, &number);

	if (!node || (node->flags & (NODE_KNOWN | NODE_IS_SELF)) != NODE_KNOWN)
		return VERDICT_UNKNOWN;

	struct link *link = find_link(node, skb->ifindex);

	return link ? hand_back(skb, packet, link) : VERDICT_UNKNOWN;
}

/* For so long a Service is new: connections go on that began when this node did not know it. */
#define NEW_NS (120 * SECOND_NS)

INLINE int is_new(const struct service *service)
{
	return service->since_ns && since(bpf_ktime_get_coarse_ns(), service->since_ns) < NEW_NS;
}

/* Writes down who serves a connection of ours: the node with this number, 0 for our own kube-proxy. */
INLINE void leave_to(const struct flow_key *key, const struct service *service, __u32 node)
{
	struct flow flow = {
		.seen_ns = bpf_ktime_get_coarse_ns(),
		.service = service->id,
		.generation = node ? GENERATION_ELSEWHERE : GENERATION_POD,
		.node = node,
		.source_port = key->client_port,
	};

	bpf_map_update_elem(&flows, key, &flow, BPF_ANY);
}

/*
 * Looks elsewhere for a TCP connection that no pod of ours has. `sent` is what the client sends of it, the packet
 * itself or what an error is about. VERDICT_UNKNOWN if nobody else may have it.
 *
 * The node that has its slot may: whoever sent us the packet has not heard of that yet. If that is us, the
 * node that had the slot before. If the Service is new to us, first whoever sent us the packet: our kernel
 * sent packets to the VIP back while it did not know better, and they were served there. If neither has it, our
 * own kube-proxy, which may have heard of the Service before us.
 */
APART int seek(struct __sk_buff *skb, const struct packet *packet, const struct packet *sent,
	       const struct service *service, __u32 sender)
{
	if (!packet || !sent || !service)
		return VERDICT_DROP;

	struct flow_key key = pin_key(sent);
	struct flow *known = bpf_map_lookup_elem(&flows, &key);
	__u32 hash = flow_hash(sent, chosen_by(sent, service));
	__u32 before = choose_before(service, hash);
	__u32 next = sender ?: before;

	if (known && known->generation == GENERATION_ELSEWHERE && known->service == service->id) {
		__u32 asked = known->node;

		if (asked != sender || packet->hops > HOPS_ELSEWHERE)
			return hand_to(skb, packet, asked);
		/* It does not have it. */
		next = asked == before ? 0 : before;
	} else {
		__u32 owner = choose_target(service, hash);
		struct node *node = owner ? bpf_map_lookup_elem(&nodes, &owner) : 0;

		if (!node)
			return VERDICT_UNKNOWN;
		/* The owner itself asks us: it is told that we do not have it. */
		if (!(node->flags & NODE_IS_SELF))
			return owner == sender && packet->hops > HOPS_ELSEWHERE ?
				       VERDICT_UNKNOWN :
				       hand_to(skb, packet, owner);
		if (!is_new(service))
			return before == sender ? VERDICT_UNKNOWN : hand_to(skb, packet, before);
	}

	int verdict = hand_to(skb, packet, next);

	if (verdict != VERDICT_UNKNOWN) {
		leave_to(&key, service, next);
		return verdict;
	}
	leave_to(&key, service, 0);
	return passed();
}

/*
 * Gives a packet that this node is to serve to the pod of its flow. `sender` is the node that sent the
 * frame on, 0 for a client's. What no pod of ours can take is kube-proxy's, and stays so.
 */
APART int to_pod(struct __sk_buff *skb, const struct packet *packet, const struct service *service,
		 __u32 sender)
{
	if (!packet || !service)
		return VERDICT_DROP;

	__u64 now = bpf_ktime_get_coarse_ns();
	int is_syn = packet->protocol == IPPROTO_TCP &&
		     (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	/* A connection stays with its pod for as long as that is there, whether it is ready or not. */
	int stays = packet->protocol == IPPROTO_TCP && !is_syn;
	struct flow_key key = pin_key(packet);
	struct flow *old = find_pin(&key, service);
	struct pod *pod = old ? find_pod(old) : 0;
	struct flow pin = {};
	int is_pinned = 0;

	if (old) {
		if (stays && !old->pod)
			return passed();
		pin = *old;
		is_pinned = pod && (stays || pod->takes_new);
		if (is_pinned && (is_syn || packet->tcp_flags & (TCP_FIN | TCP_RST) ||
				  since(now, pin.seen_ns) > SECOND_NS))
			is_pinned = !refresh_pin(&key, old, packet->tcp_flags, now);
	}
	/* Also when we are asked for one whose pod is gone. */
	if (stays && (!old || (!pod && sender && packet->hops <= HOPS_ELSEWHERE))) {
		int verdict = seek(skb, packet, packet, service, sender);

		if (verdict != VERDICT_UNKNOWN)
			return verdict;
	}
	if (!is_pinned) {
		__u32 hash = flow_hash(packet, chosen_by(packet, service));

		pin.seen_ns = now;
		pin.service = service->id;
		pin.generation = GENERATION_POD;
		pin.source_port = key.client_port;
		if (pin_flow(&key, &pin, service, hash)) {
			pin.pod = 0;
			if (is_syn)
				bpf_map_update_elem(&flows, &key, &pin, BPF_ANY);
			return VERDICT_NEXT;
		}
		/* Of a pod that is gone: another resets the connection, which the client hears at once. */
		if (stays)
			count(EVENT_FLOW_ADOPTED);
	}

	struct endpoints ends = {
		.source = packet->source,
		.destination = pin.target,
		.source_port = packet->source_port,
		.destination_port = pin.target_port,
	};

	if (rewrite(skb, packet, packet->hops, &ends))
		return drop(EVENT_REWRITE_FAILED);
	return VERDICT_NEXT;
}

/*
 * Gives an ICMP error about what a pod sent to that pod. `sent` is what a client's packet of the same flow
 * looks like. One of a flow that is kube-proxy's is left to it. VERDICT_UNKNOWN if we do not know the flow.
 */
APART int error_to_pod(struct __sk_buff *skb, const struct packet *packet,
		       const struct packet *quote, const struct packet *sent,
		       const struct service *service)
{
	if (!packet || !quote || !sent || !service)
		return VERDICT_DROP;

	struct flow_key key = pin_key(sent);
	struct flow *pin = find_pin(&key, service);

	if (!pin)
		return VERDICT_UNKNOWN;
	if (!pin->pod)
		return passed();

	struct address pod = pin->target;
	__be16 port = pin->target_port;
	__u32 outer = address_difference(packet, &packet->source, &pod);

	if (rewrite_quote(skb, packet, quote, outer, &pod, port, &quote->destination,
			  quote->destination_port) ||
	    write_network(skb, packet, packet->hops, &packet->source, &pod))
		return drop(EVENT_REWRITE_FAILED);
	count(EVENT_ERROR_TRANSLATED);
	return VERDICT_NEXT;
}

/* A pod answers a SYN that came by the VIP while its client still repeats it (tcp_syn_retries: 127 s). */
#define HANDSHAKE_NS (130 * SECOND_NS)

/* Whether a pod answers a SYN that did not come by the VIP, from a client that used the same port there before. */
INLINE int is_anew(const struct packet *packet, const struct reply *reply, __u64 now)
{
	return packet->protocol == IPPROTO_TCP && packet->tcp_flags & TCP_SYN &&
	       (reply->closed || since(now, reply->seen_ns) > HANDSHAKE_NS);
}

/* The way back of what a pod, or a packet quoted in an error, has as its ends; 0: it is not ours. */
INLINE struct reply *find_way_back(const struct address *pod, __be16 port,
				   const struct address *client, __be16 client_port, __u8 protocol)
{
	struct reply_key key = {
		.target = *pod,
		.client = *client,
		.target_port = port,
		.source_port = client_port,
		.protocol = protocol,
	};
	struct reply *reply = bpf_map_lookup_elem(&replies, &key);

	return reply && reply->generation == GENERATION_POD &&
			       !is_idle(reply, protocol, bpf_ktime_get_coarse_ns()) ?
		       reply : 0;
}

/* What a pod of ours sends, on its way to the LAN. VERDICT_UNKNOWN if it is no reply of a flow. */
INLINE int from_pod(struct __sk_buff *skb, const struct packet *packet)
{
	struct reply *reply = find_way_back(&packet->source, packet->source_port,
					    &packet->destination, packet->destination_port,
					    packet->protocol);

	if (!reply)
		return VERDICT_UNKNOWN;
	if (is_anew(packet, reply, bpf_ktime_get_coarse_ns())) {
		reply->generation = 0;
		return VERDICT_UNKNOWN;
	}
	if (packet->tcp_flags & TCP_RST)
		reply->closed = CLOSED;
	else if (packet->tcp_flags & TCP_FIN)
		reply->closed |= CLOSED_BY_TARGET;

	struct endpoints ends = {
		.source = reply->vip,
		.destination = packet->destination,
		.source_port = reply->vip_port,
		.destination_port = packet->destination_port,
	};
	__u32 service = reply->service;
	struct stats *counters = bpf_map_lookup_elem(&stats, &service);

	if (counters) {
		counters->reply_packets += skb->gso_segs ?: 1;
		counters->reply_bytes += skb->len;
	}
	if (rewrite(skb, packet, packet->hops, &ends))
		return drop(EVENT_REWRITE_FAILED);
	return VERDICT_NEXT;
}

/*
 * An ICMP error of a pod, or of this node, about a client's packet to a pod: to the client it is about
 * one to the VIP. VERDICT_UNKNOWN if it is about something else.
 */
APART int error_from_pod(struct __sk_buff *skb, const struct packet *packet)
{
	struct packet quote = {};

	if (!packet)
		return VERDICT_DROP;
	if (read_quote(skb, packet, &quote) || !may_be_pod(&quote.destination))
		return VERDICT_UNKNOWN;

	struct reply *reply = find_way_back(&quote.destination, quote.destination_port,
					    &quote.source, quote.source_port, quote.protocol);

	if (!reply)
		return VERDICT_UNKNOWN;

	struct address vip = reply->vip;
	__be16 port = reply->vip_port;
	struct address source = address_equal(&packet->source, &quote.destination) ? vip :
										     packet->source;
	__u32 outer = address_difference(packet, &source, &packet->destination);

	if (rewrite_quote(skb, packet, &quote, outer, &quote.source, quote.source_port, &vip,
			  port) ||
	    write_network(skb, packet, packet->hops, &source, &packet->destination))
		return drop(EVENT_REWRITE_FAILED);
	count(EVENT_ERROR_TRANSLATED);
	return VERDICT_NEXT;
}

#endif
