/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Puts a VLAN tag on whatever leaves. */
#include "kernel.h"

#define ETH_P_8021Q 0x8100

static long (*bpf_skb_vlan_push)(struct __sk_buff *, __be16, __u16) = (void *)18;

INLINE int tag(struct __sk_buff *skb, __u16 tag)
{
	return bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), tag) ? VERDICT_DROP : VERDICT_NEXT;
}

/* Of no VLAN, at priority 5. */
SEC("classifier/urgent")
int urgent(struct __sk_buff *skb)
{
	return tag(skb, 5 << 13);
}

SEC("classifier/vlan")
int vlan(struct __sk_buff *skb)
{
	return tag(skb, 5 << 13 | 7);
}

SEC("license") char licence[] = "Dual BSD/GPL";
