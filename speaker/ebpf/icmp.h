/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Echo requests, and errors with the packet that they are about. */
#ifndef HERALD_ICMP_H
#define HERALD_ICMP_H

#include "flow.h"

#define ECHO_HOPS 64
/* Of translate_error, for its callers. */
#define VERDICT_UNKNOWN 100

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

INLINE int is_error(const struct packet *packet)
{
	return packet->is_ipv6 ?
		       packet->protocol == IPPROTO_ICMPV6 &&
			       packet->icmp_type >= ICMPV6_ERROR_FIRST &&
			       packet->icmp_type <= ICMPV6_ERROR_LAST :
		       packet->protocol == IPPROTO_ICMP &&
			       (packet->icmp_type == ICMP_UNREACHABLE ||
				packet->icmp_type == ICMP_TIME_EXCEEDED ||
				packet->icmp_type == ICMP_PARAMETER_PROBLEM);
}

/* An error about a packet that we sent to a target: to the client, as if the VIP had it. */
INLINE int send_error_to_client(struct __sk_buff *skb, const struct packet *packet,
				const struct packet *quote, const struct reply *reply, __u8 hops)
{
	struct address client = reply->client;
	__u32 ifindex = reply->ifindex;
	__u32 outer = address_difference(packet, &packet->destination, &client);

	if (rewrite_quote(skb, packet, quote, outer, &client, reply->client_port,
			  &packet->destination, reply->vip_port) ||
	    write_network(skb, packet, hops, &packet->destination, &client))
		return drop(EVENT_REWRITE_FAILED);
	count(EVENT_ERROR_TRANSLATED);
	return bpf_redirect_neigh(ifindex, 0, 0, 0);
}

/* An error about a packet that we sent to a client: to the target, in the name of who found it. */
INLINE int send_error_to_target(struct __sk_buff *skb, const struct packet *packet,
				const struct packet *quote, const struct flow *flow, __u8 hops)
{
	struct address target = flow->target;
	__u32 number = flow->node;
	struct node *node = bpf_map_lookup_elem(&nodes, &number);

	if (!node || !(node->flags & NODE_KNOWN))
		return drop(EVENT_UNKNOWN_ERROR);

	int is_self = node->flags & NODE_IS_SELF;
	__u32 ifindex = node->ifindex ?: skb->ifindex;
	__u32 outer = address_difference(packet, &packet->source, &target);

	if (rewrite_quote(skb, packet, quote, outer, &target, flow->target_port,
			  &packet->destination, flow->source_port) ||
	    write_network(skb, packet, is_self ? packet->hops : hops, &packet->source, &target))
		return drop(EVENT_REWRITE_FAILED);
	count(EVENT_ERROR_TRANSLATED);
	return is_self ? VERDICT_NEXT : bpf_redirect_neigh(ifindex, 0, 0, 0);
}

/*
 * Translates an ICMP error that came to the VIP, and the packet quoted in it. VERDICT_UNKNOWN if
 * nothing is known of that packet.
 */
APART int translate_error(struct __sk_buff *skb, const struct packet *packet,
			  const struct vip *vip, __u32 hops)
{
	struct packet quote = {};

	if (!packet || !vip)
		return VERDICT_DROP;
	if (read_quote(skb, packet, &quote) ||
	    !address_equal(&quote.source, &packet->destination))
		return VERDICT_UNKNOWN;

	/* The same bytes are the flow's key as its target sees it, and as its client does. */
	struct reply_key key = {
		.target = quote.destination,
		.vip = quote.source,
		.target_port = quote.destination_port,
		.source_port = quote.source_port,
		.protocol = quote.protocol,
	};
	struct reply *reply = bpf_map_lookup_elem(&replies, &key);

	if (reply && is_current(reply, vip, bpf_ktime_get_coarse_ns()))
		return send_error_to_client(skb, packet, &quote, reply, hops);

	struct flow *flow = bpf_map_lookup_elem(&flows, &key);

	if (flow && vip->role == ROLE_ME && flow->generation == vip->generation)
		return send_error_to_target(skb, packet, &quote, flow, hops);
	return VERDICT_UNKNOWN;
}

INLINE int is_echo_request(const struct packet *packet)
{
	return packet->is_ipv6 ?
		       packet->protocol == IPPROTO_ICMPV6 &&
			       packet->icmp_type == ICMPV6_ECHO_REQUEST :
		       packet->protocol == IPPROTO_ICMP && packet->icmp_type == ICMP_ECHO_REQUEST;
}

INLINE int ignores_echo(void)
{
	__u32 zero = 0;
	struct config *settings = bpf_map_lookup_elem(&config, &zero);

	return settings && settings->flags & CONFIG_IGNORES_ECHO;
}

INLINE int is_neighbour_discovery(const struct packet *packet)
{
	return packet->is_ipv6 && packet->protocol == IPPROTO_ICMPV6 &&
	       packet->icmp_type >= ICMPV6_ND_FIRST && packet->icmp_type <= ICMPV6_ND_LAST;
}

#endif
