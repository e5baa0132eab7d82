/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The ingress program on many flows in turn: each run of a test gets the packet of another client. */
#include "herald.c"

struct turn {
	/* Less than how many, a power of two. */
	__u32 mask;
	/* Whether the program is left out: what is left is the cost of all this. */
	__u32 is_empty;
	__u32 next;
	/* How many Services they are spread over, with an address each: this one and those that follow. */
	__u32 services;
	/* A client's frame: Ethernet, IPv4 and TCP headers. */
	__u16 frame[27];
	__u16 zero;
};
SIZE_IS(struct turn, 72);

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, struct turn);
} turn SEC(".maps");

SEC("classifier/flows")
int herald_flows(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct turn *now = bpf_map_lookup_elem(&turn, &zero);
	__u16 *to = (void *)(long)skb->data;

	if (!now || (void *)(to + 27) > (void *)(long)skb->data_end)
		return VERDICT_DROP;

	/* An odd factor: each flow once in so many runs, neighbours far from each other. */
	__u32 flow = now->next++ * 0x9e3779b1 & now->mask;

	for (int i = 0; i < 27; i++)
		to[i] = now->frame[i];
	/* The lower half of the client's address, and its port. */
	to[14] += htons(flow >> 16);
	to[17] = flow;
	to[16] += htons(flow % now->services);
	return now->is_empty ? VERDICT_NEXT : ingress(skb);
}
