/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The other nodes on a segment: which one sent a frame, and sending one on to the node that a table names. */
#ifndef HERALD_LINK_H
#define HERALD_LINK_H

#include "flow.h"

/* In tc_index: the egress program need not look at it. */
#define SENT_ON 0x4852

/* The number of the node that sent this frame, by its MAC address; 0: no node. */
INLINE __u32 sending_node(struct __sk_buff *skb)
{
	struct mac_key key = {};
	void *data = (void *)(long)skb->data;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return 0;
	__builtin_memcpy(key.mac, eth->source, sizeof(key.mac));

	const struct filters *known = find_filters();
	__u32 word;

	__builtin_memcpy(&word, eth->source + 2, sizeof(word));
	if (!known || !has_bit(known->macs, ((__u64)mix(word) * NODE_BITS) >> 32))
		return 0;

	__u32 *node = bpf_map_lookup_elem(&macs, &key);

	return node ? *node : 0;
}

/* The target of a flow, given by its packet from the client; 0: none. */
INLINE struct node *find_target(const struct packet *packet, const struct service *service)
{
	__u32 target = choose_target(service, flow_hash(packet, chosen_by(packet, service)));
	struct node *node = target ? bpf_map_lookup_elem(&nodes, &target) : 0;

	return node && node->flags & NODE_KNOWN ? node : 0;
}

/* The segment a frame came by if the node is in it, else one that it is in; 0: none. */
INLINE struct link *find_link(struct node *node, __u32 ifindex)
{
	for (int i = 0; i < LINKS && node->link[i].ifindex; i++)
		if (node->link[i].ifindex == ifindex)
			return &node->link[i];
	return node->link[0].ifindex ? &node->link[0] : 0;
}

INLINE int send_on(struct __sk_buff *skb, const struct packet *packet, const struct link *link)
{
	if (packet->hops <= 1)
		return drop(EVENT_TTL);
	if (write_frame(skb, packet, link))
		return drop(EVENT_REWRITE_FAILED);
	skb->tc_index = SENT_ON;
	return bpf_redirect(link->ifindex, 0);
}

/* Another node chose us, or is itself the client: kube-proxy knows. */
INLINE int take_from_node(void)
{
	count(EVENT_FROM_NODE);
	return VERDICT_NEXT;
}

#endif
