/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reading and rewriting packets. */
#ifndef HERALD_PACKET_H
#define HERALD_PACKET_H

#include "maps.h"

struct ethhdr {
	__u8 destination[6];
	__u8 source[6];
	__be16 protocol;
} __attribute__((packed));

struct iphdr {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 source;
	__be32 destination;
};

struct ipv6_fragment {
	__u8 next_header;
	__u8 reserved;
	__be16 fragment;
	__u32 id;
};

struct ipv6hdr {
	__u32 version_class_label;
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__u32 source[4];
	__u32 destination[4];
};

#define ETH_LENGTH 14
/* Of a VLAN tag; the rest is priority and drop eligibility. */
#define VLAN_ID 0x0fff
#define IPV4_MORE htons(0x2000)
#define IPV4_OFFSET htons(0x1fff)
#define IPV6_MORE htons(0x0001)
#define IPV6_OFFSET htons(0xfff8)

#define TCP_FLAGS_OFFSET 13
#define TCP_CHECK_OFFSET 16
#define UDP_CHECK_OFFSET 6
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_LENGTH 8
#define ICMP_CHECK_OFFSET 2
#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMP_ECHO_REQUEST 8
#define ICMP_ECHO_REPLY 0
/* Unreachable, too big, time exceeded, parameter problem. */
#define ICMPV6_ERROR_FIRST 1
#define ICMPV6_ERROR_LAST 4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
/* Router and neighbour solicitation, advertisement, and redirect. */
#define ICMPV6_ND_FIRST 133
#define ICMPV6_ND_LAST 137

/* Not a fragment. */
#define WHOLE 0
/* The first fragment, which has the ports. */
#define FRAGMENT_FIRST 1
/* A later one, whose ports are known from the first. */
#define FRAGMENT_LATER 2
/* One whose ports are not known. */
#define FRAGMENT_UNKNOWN 3

/* The headers of one packet, as far as they matter. */
struct packet {
	struct address source;
	struct address destination;
	/* Where the transport header begins, from the start of the frame. */
	__u32 transport;
	__be16 source_port;
	__be16 destination_port;
	/* The protocol of the transport header; with ICMP its first byte is the type. */
	__u8 protocol;
	/* The byte after the hop limit (IPv6: before it), which shares its checksum word. */
	__u8 hop_neighbour;
	__u8 hops;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 is_ipv6;
	__u8 fragment;
	__u8 zero;
	/* IPv4 only. */
	__u16 check;
	__u16 zero2;
	/* Of a fragment. */
	__u32 fragment_id;
};

INLINE void address_from_ipv4(struct address *address, __be32 ipv4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = htonl(0xffff);
	address->word[3] = ipv4;
}

INLINE int address_equal(const struct address *a, const struct address *b)
{
	return a->word[3] == b->word[3] && a->word[2] == b->word[2] && a->word[1] == b->word[1] &&
	       a->word[0] == b->word[0];
}

/*
 * Reads the network header. Returns 0 if this is an IP packet of no VLAN: a tag of VLAN 0 only says how urgent the
 * frame is (IEEE 802.1Q calls it priority-tagged), and Linux takes it as one without.
 */
INLINE int read_network(struct __sk_buff *skb, struct packet *packet)
{
	int is_ipv6 = skb->protocol == htons(ETH_P_IPV6);
	__u32 need = ETH_LENGTH + (is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));

	if ((!is_ipv6 && skb->protocol != htons(ETH_P_IP)) ||
	    (skb->vlan_present && skb->vlan_tci & VLAN_ID))
		return -1;
	if ((void *)(long)skb->data + need > (void *)(long)skb->data_end &&
	    bpf_skb_pull_data(skb, need))
		return -1;

	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (is_ipv6) {
		struct ipv6hdr *ip = data + ETH_LENGTH;

		if ((void *)(ip + 1) > end)
			return -1;
		__builtin_memcpy(&packet->source, ip->source, 16);
		__builtin_memcpy(&packet->destination, ip->destination, 16);
		packet->protocol = ip->next_header;
		packet->hop_neighbour = ip->next_header;
		packet->hops = ip->hop_limit;
		packet->is_ipv6 = 1;
		packet->transport = ETH_LENGTH + sizeof(*ip);
	} else {
		struct iphdr *ip = data + ETH_LENGTH;

		if ((void *)(ip + 1) > end || ip->version_ihl < 0x45)
			return -1;
		address_from_ipv4(&packet->source, ip->source);
		address_from_ipv4(&packet->destination, ip->destination);
		packet->protocol = ip->protocol;
		packet->hop_neighbour = ip->protocol;
		packet->hops = ip->ttl;
		packet->check = ip->check;
		if (ip->fragment & (IPV4_MORE | IPV4_OFFSET)) {
			packet->fragment = ip->fragment & IPV4_OFFSET ? FRAGMENT_UNKNOWN :
									FRAGMENT_FIRST;
			packet->fragment_id = ip->id;
		}
		packet->transport = ETH_LENGTH + (ip->version_ihl & 0x0f) * 4;
	}
	return 0;
}

/*
 * Walks over IPv6 extension headers, four at most, to the transport header; in a fragment but the first
 * there is none. Returns -1 for a packet that ends early or goes on longer.
 */
APART int skip_extensions(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6_fragment part;
	__u8 header[2];

	if (!packet)
		return -1;
	for (int i = 0; i < 4; i++) {
		switch (packet->protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if (bpf_skb_load_bytes(skb, packet->transport, header, sizeof(header)))
				return -1;
			packet->transport += ((__u32)header[1] + 1) * 8;
			break;
		case IPPROTO_AH:
			if (bpf_skb_load_bytes(skb, packet->transport, header, sizeof(header)))
				return -1;
			packet->transport += ((__u32)header[1] + 2) * 4;
			break;
		case IPPROTO_FRAGMENT:
			if (bpf_skb_load_bytes(skb, packet->transport, &part, sizeof(part)))
				return -1;
			packet->fragment_id = part.id;
			if (part.fragment & IPV6_OFFSET) {
				packet->fragment = FRAGMENT_UNKNOWN;
				return 0;
			}
			/* Neither an offset nor more to come: RFC 6946 calls it atomic, and it is whole. */
			packet->fragment = part.fragment & IPV6_MORE ? FRAGMENT_FIRST : WHOLE;
			packet->transport += sizeof(part);
			header[0] = part.next_header;
			break;
		default:
			return 0;
		}
		packet->protocol = header[0];
	}
	return -1;
}

/* Copies the start of the transport header, straight from the packet where it mostly lies. */
INLINE int load_transport(struct __sk_buff *skb, const struct packet *packet, __u8 *header,
			  __u32 length)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	void *ipv4 = data + ETH_LENGTH + sizeof(struct iphdr);
	void *ipv6 = data + ETH_LENGTH + sizeof(struct ipv6hdr);

	if (!packet->is_ipv6 && packet->transport == ETH_LENGTH + sizeof(struct iphdr) &&
	    ipv4 + length <= end)
		__builtin_memcpy(header, ipv4, length);
	else if (packet->is_ipv6 && packet->transport == ETH_LENGTH + sizeof(struct ipv6hdr) &&
		 ipv6 + length <= end)
		__builtin_memcpy(header, ipv6, length);
	else
		return bpf_skb_load_bytes(skb, packet->transport, header, length);
	return 0;
}

/* How long ago something was; another processor may have written it a moment after `now` was read. */
INLINE __u64 since(__u64 now, __u64 then)
{
	return now > then ? now - then : 0;
}

/* As long as Linux waits for the fragments of an IPv6 packet: IPV6_FRAG_TIMEOUT in include/net/ipv6.h. */
#define FRAGMENTS_NS 60000000000ULL

INLINE struct fragment_key fragment_key(const struct packet *packet, __u8 protocol)
{
	struct fragment_key key = {
		.source = packet->source,
		.destination = packet->destination,
		.id = packet->fragment_id,
		.protocol = packet->is_ipv6 ? 0 : protocol,
		.is_ipv6 = packet->is_ipv6,
	};

	return key;
}

/* Writes the ports of a first fragment down. */
APART int remember_fragment(const struct packet *packet)
{
	if (!packet)
		return -1;

	struct fragment_key key = fragment_key(packet, packet->protocol);
	struct fragments first = {
		.seen_ns = bpf_ktime_get_coarse_ns(),
		.source_port = packet->source_port,
		.destination_port = packet->destination_port,
		.protocol = packet->protocol,
	};

	return bpf_map_update_elem(&fragments, &key, &first, BPF_ANY) != 0;
}

/* Gives a later fragment the ports of its first, if those are known. */
APART int join_fragments(struct packet *packet)
{
	if (!packet || packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6)
		return 0;

	__u64 now = bpf_ktime_get_coarse_ns();
	struct fragment_key key = fragment_key(packet, packet->protocol);
	struct fragments *first = bpf_map_lookup_elem(&fragments, &key);

	if (first && since(now, first->seen_ns) < FRAGMENTS_NS) {
		packet->protocol = first->protocol;
		packet->source_port = first->source_port;
		packet->destination_port = first->destination_port;
		packet->fragment = FRAGMENT_LATER;
	}
	return 0;
}

/*
 * Reads ports, TCP flags and ICMP type. Returns -1 if the packet is too short for its protocol; an
 * unknown protocol, and a fragment whose first was not seen, have none of these and are no error.
 */
INLINE int read_transport(struct __sk_buff *skb, struct packet *packet)
{
	__u8 header[TCP_FLAGS_OFFSET + 1];

	if (packet->is_ipv6 && packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP &&
	    skip_extensions(skb, packet))
		return -1;
	if (packet->fragment == FRAGMENT_UNKNOWN) {
		join_fragments(packet);
		return 0;
	}
	switch (packet->protocol) {
	case IPPROTO_TCP:
		if (load_transport(skb, packet, header, sizeof(header)))
			return -1;
		packet->tcp_flags = header[TCP_FLAGS_OFFSET];
		break;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (load_transport(skb, packet, header, 8))
			return -1;
		break;
	default:
		return 0;
	}
	__builtin_memcpy(&packet->source_port, header, 2);
	__builtin_memcpy(&packet->destination_port, header + 2, 2);
	packet->icmp_type = header[0];
	return 0;
}

INLINE __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* The header checksum after a change of hop limit and addresses: RFC 1624 equation 3. */
INLINE __u16 ipv4_check(const struct packet *packet, __u8 hops, __u32 difference)
{
	/* Hop limit and protocol share a word. */
	__u16 old_word = packet->hops | packet->hop_neighbour << 8;
	__u16 new_word = hops | packet->hop_neighbour << 8;

	return ~fold((__u64)(__u16)~packet->check + (__u16)~old_word + new_word + difference);
}

/* What the checksums of a packet change by with its addresses. */
INLINE __u32 address_difference(const struct packet *packet, const struct address *source,
				const struct address *destination)
{
	__u64 sum = 0;

	/* In IPv4 the other words are the same constants before and after. */
	for (int i = packet->is_ipv6 ? 0 : 3; i < 4; i++)
		sum += (__u64)source->word[i] + destination->word[i] +
		       (__u32)~packet->source.word[i] + (__u32)~packet->destination.word[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)((sum & 0xffffffff) + (sum >> 32));
}

/* IPv6: what the network card summed up (CHECKSUM_COMPLETE) has to follow. */
INLINE int write_ipv6(struct __sk_buff *skb, const struct packet *packet, __u8 hops,
		      const struct address *source, const struct address *destination)
{
	struct {
		__u8 next_header;
		__u8 hop_limit;
		__u32 address[8];
	} __attribute__((packed)) new = {packet->hop_neighbour, hops, {}};

	__builtin_memcpy(&new.address[0], source, 16);
	__builtin_memcpy(&new.address[4], destination, 16);
	return bpf_skb_store_bytes(skb, ETH_LENGTH + 6, &new, sizeof(new), BPF_F_RECOMPUTE_CSUM);
}

/* The part of an IPv4 header that changes, and the ports that follow where there are no options. */
struct ipv4_change {
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 address[2];
	__be16 port[2];
};

/* Gives a packet a new hop limit, sender and receiver, and leaves its transport header alone. */
INLINE int write_network(struct __sk_buff *skb, const struct packet *packet, __u8 hops,
			 const struct address *source, const struct address *destination)
{
	if (packet->is_ipv6)
		return write_ipv6(skb, packet, hops, source, destination);

	__u32 difference = address_difference(packet, source, destination);
	/* The change of the checksum makes up for the others: CHECKSUM_COMPLETE stays right. */
	struct ipv4_change new = {hops, packet->hop_neighbour,
				  ipv4_check(packet, hops, difference),
				  {source->word[3], destination->word[3]}, {}};

	return bpf_skb_store_bytes(skb, ETH_LENGTH + 8, &new, 12, 0);
}

/*
 * Gives a frame new MAC addresses and takes one hop off its limit; nothing above is touched. The packet
 * has a hop left.
 */
INLINE int write_frame(struct __sk_buff *skb, const struct packet *packet, const struct link *link)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if (packet->is_ipv6) {
		struct ipv6hdr *ip = data + ETH_LENGTH;

		if ((void *)(ip + 1) > end)
			return -1;
		ip->hop_limit--;
		/* In a sum that the network card made: the hop limit is the word's upper byte. */
		bpf_csum_update(skb, ~0x100U);
	} else {
		struct iphdr *ip = data + ETH_LENGTH;

		if ((void *)(ip + 1) > end)
			return -1;

		/* RFC 1141: one less there is one more here; CHECKSUM_COMPLETE stays right. */
		__u32 check = ip->check + 1U;

		ip->check = check + (check >= 0xffff);
		ip->ttl--;
	}
	__builtin_memcpy(eth->destination, link->target, sizeof(eth->destination));
	__builtin_memcpy(eth->source, link->source, sizeof(eth->source));
	return 0;
}

/* Who sends and who receives. */
struct endpoints {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
};

/*
 * Gives a TCP or UDP packet a new sender and receiver, and a new hop limit. Of fragments only the first has
 * ports and a sum, which is over all of them.
 */
APART int rewrite(struct __sk_buff *skb, const struct packet *packet, __u32 hops,
		  const struct endpoints *ends)
{
	if (!packet || !ends)
		return -1;
	if (packet->fragment == FRAGMENT_LATER)
		return write_network(skb, packet, hops, &ends->source, &ends->destination);

	__u32 difference = address_difference(packet, &ends->source, &ends->destination);
	__u32 check = packet->transport;
	__u64 flags = 0;

	if (packet->protocol == IPPROTO_UDP) {
		check += UDP_CHECK_OFFSET;
		/* In IPv4 a sum of zero means that there is none, and it stays so. */
		flags = BPF_F_MARK_MANGLED_0;
	} else {
		check += TCP_CHECK_OFFSET;
	}

	struct ipv4_change new = {hops, packet->hop_neighbour,
				  ipv4_check(packet, hops, difference),
				  {ends->source.word[3], ends->destination.word[3]},
				  {ends->source_port, ends->destination_port}};
	__u32 ports_from = packet->source_port | (__u32)packet->destination_port << 16;
	__u32 ports_to = ends->source_port | (__u32)ends->destination_port << 16;

	/* Two calls: under CHECKSUM_PARTIAL the sum holds the addresses, and not yet the ports. */
	if (bpf_l4_csum_replace(skb, check, 0, difference, BPF_F_PSEUDO_HDR | flags) ||
	    bpf_l4_csum_replace(skb, check, ports_from, ports_to, flags | 4))
		return -1;
	if (!packet->is_ipv6 && packet->transport == ETH_LENGTH + sizeof(struct iphdr))
		return bpf_skb_store_bytes(skb, ETH_LENGTH + 8, &new, sizeof(new), 0);
	if (bpf_skb_store_bytes(skb, packet->transport, new.port, 4, 0))
		return -1;
	if (packet->is_ipv6)
		return write_ipv6(skb, packet, hops, &ends->source, &ends->destination);
	return bpf_skb_store_bytes(skb, ETH_LENGTH + 8, &new, 12, 0);
}

/*
 * Reads the packet that an ICMP error is about. Returns -1 if it is not TCP, UDP or SCTP, or if too
 * little is quoted: addresses and ports are asked for.
 */
INLINE int read_quote(struct __sk_buff *skb, const struct packet *packet, struct packet *quote)
{
	__u32 offset = packet->transport + ICMP_LENGTH;
	__be16 ports[2];

	quote->is_ipv6 = packet->is_ipv6;
	if (packet->is_ipv6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
			return -1;
		__builtin_memcpy(&quote->source, ip.source, 16);
		__builtin_memcpy(&quote->destination, ip.destination, 16);
		quote->protocol = ip.next_header;
		quote->transport = offset + sizeof(ip);
		/* Too big may be a fragment of an answer, too. */
		if (quote->protocol == IPPROTO_FRAGMENT) {
			struct ipv6_fragment part;

			if (bpf_skb_load_bytes(skb, quote->transport, &part, sizeof(part)) ||
			    part.fragment & IPV6_OFFSET)
				return -1;
			quote->protocol = part.next_header;
			quote->transport += sizeof(part);
		}
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version_ihl < 0x45 ||
		    ip.fragment & IPV4_OFFSET)
			return -1;
		address_from_ipv4(&quote->source, ip.source);
		address_from_ipv4(&quote->destination, ip.destination);
		quote->protocol = ip.protocol;
		quote->check = ip.check;
		quote->transport = offset + (ip.version_ihl & 0x0f) * 4;
	}
	if ((quote->protocol != IPPROTO_TCP && quote->protocol != IPPROTO_UDP &&
	     quote->protocol != IPPROTO_SCTP) ||
	    bpf_skb_load_bytes(skb, quote->transport, ports, sizeof(ports)))
		return -1;
	quote->source_port = ports[0];
	quote->destination_port = ports[1];
	return 0;
}

/*
 * Gives the quoted packet of an ICMP error another sender and receiver. `outer` is the difference by
 * the error's own addresses, which ICMPv6 sums up too. The quoted transport checksum stays: it is
 * often cut off, and nobody looks at it.
 */
INLINE int rewrite_quote(struct __sk_buff *skb, const struct packet *packet,
			 const struct packet *quote, __u32 outer, const struct address *source,
			 __be16 source_port, const struct address *destination,
			 __be16 destination_port)
{
	__u32 difference = address_difference(quote, source, destination);
	__u32 check = packet->transport + ICMP_CHECK_OFFSET;
	__u32 offset = packet->transport + ICMP_LENGTH;
	__be16 ports[2] = {source_port, destination_port};
	__u32 ports_from = quote->source_port | (__u32)quote->destination_port << 16;
	__u32 ports_to = source_port | (__u32)destination_port << 16;

	if (packet->is_ipv6) {
		struct address new[2] = {*source, *destination};

		if (bpf_l4_csum_replace(skb, check, 0, outer, BPF_F_PSEUDO_HDR) ||
		    bpf_l4_csum_replace(skb, check, 0, difference, 0) ||
		    bpf_skb_store_bytes(skb, offset + 8, &new, sizeof(new), 0))
			return -1;
	} else {
		/* The quoted header's checksum makes up for its addresses, so ICMP's need not change. */
		struct {
			__u16 check;
			__be32 address[2];
		} __attribute__((packed)) new = {
			(__u16)~fold((__u64)(__u16)~quote->check + difference),
			{source->word[3], destination->word[3]}};

		if (bpf_skb_store_bytes(skb, offset + 10, &new, sizeof(new), 0))
			return -1;
	}
	if (bpf_l4_csum_replace(skb, check, ports_from, ports_to, 4))
		return -1;
	return bpf_skb_store_bytes(skb, quote->transport, ports, sizeof(ports), 0);
}

#endif
