/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Herald's data plane: two programs for the uplinks of a node, at tc ingress and tc egress.
 *
 * Mode "dsr": a client's frame to VIP:port goes on to the target's MAC address, otherwise as it is. The
 * target's kube-proxy takes VIP:port, and answers the client itself. A frame that comes from a node is
 * one that was sent on to us, and is left to kube-proxy.
 *
 * Mode "pod": as "dsr", but the target gives the packet to one of its own pods, and turns what that
 * answers into an answer from VIP:port. A connection that it knows nothing of goes on to the node that had
 * it before.
 *
 * Mode "nodeport": a client's packet to VIP:port goes on to target:NodePort with the VIP as its
 * source; the target's reply comes back to the VIP and goes on to the client from VIP:port.
 *
 * The choice of the target is a function of the client's address and port and of tables that are equal
 * on all nodes, so the next holder of a VIP goes on where this one stopped.
 *
 * A packet that is none of our business is left to whoever comes next, untouched.
 */
#include "pod.h"

/*
 * Hands a packet to the holder of the VIP, or if that is us, a target's reply to the holder before us.
 * `sender` is the node whose own packet this is, 0 for a client's. A packet that another node handed on
 * is not handed on again.
 */
APART int relay(struct __sk_buff *skb, const struct packet *packet, const struct vip *vip,
		__u32 sender)
{
	if (!packet || !vip)
		return VERDICT_DROP;

	struct bpf_redir_neigh holder = vip->holder;
	__u32 by = sending_node(skb);

	if (vip->role == ROLE_ME && (!sender || !holder.nh_family))
		return drop(EVENT_STRAY_REPLY);
	if (vip->role == ROLE_NOBODY)
		return drop(EVENT_NO_HOLDER);
	if (by && by != sender)
		return drop(EVENT_LOOP);
	if (packet->hops <= 1)
		return drop(EVENT_TTL);
	if (write_network(skb, packet, packet->hops - 1, &packet->source, &packet->destination))
		return drop(EVENT_REWRITE_FAILED);
	count(EVENT_RELAYED);
	skb->tc_index = SENT_ON;
	return bpf_redirect_neigh(skb->ifindex, &holder, sizeof(holder), 0);
}

/*
 * Whether our own kernel sends a frame for the VIP to ourselves: it does so while it takes us for the holder,
 * and no longer when it has heard another announce the VIP, though nobody may be left here to tell the maps.
 */
INLINE int is_to_ourselves(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return 0;
	for (int i = 0; i < 6; i++)
		if (eth->destination[i] != eth->source[i])
			return 0;
	return 1;
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

/* Sends a target's reply on to the client. */
INLINE int translate_reply(struct __sk_buff *skb, const struct packet *packet, struct reply *reply,
			   __u8 hops)
{
	struct endpoints ends = {
		.source = packet->destination,
		.destination = reply->client,
		.source_port = reply->vip_port,
		.destination_port = reply->client_port,
	};
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
	if (rewrite(skb, packet, hops, &ends))
		return drop(EVENT_REWRITE_FAILED);
	return bpf_redirect_neigh(ifindex, 0, 0, 0);
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

/* A packet of a client that goes to a NodePort, and whose VIP we hold. */
APART int forward(struct __sk_buff *skb, const struct packet *packet, const struct vip *vip,
		  const struct service *service, __u32 sender)
{
	if (!packet || !vip || !service)
		return VERDICT_DROP;

	__u64 now = bpf_ktime_get_coarse_ns();
	int is_syn = packet->protocol == IPPROTO_TCP &&
		     (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	/* TCP stays with its target for as long as that node is there: nobody asks the tables then. */
	int stays = packet->protocol == IPPROTO_TCP && !is_syn;
	__u32 hash = 0, target = 0;
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

	if (!old || !stays) {
		hash = flow_hash(packet, packet->source_port);
		target = choose_target(service, hash);
	}
	if (old) {
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
			else if (is_syn || (packet->tcp_flags & (TCP_FIN | TCP_RST)) ||
				 since(now, flow.seen_ns) > SECOND_NS)
				is_new = refresh_flow(&key, old, packet->tcp_flags, now);
			if (is_new < 0)
				node = 0;
		}
		if (!node) {
			close_flow(&key, &flow);
			if (stays) {
				hash = flow_hash(packet, packet->source_port);
				target = choose_target(service, hash);
			}
		}
	}
	if (!node) {
		/* A target's reply without a flow must not be taken for a client's packet. */
		if (sender && is_from_node_port(packet))
			return relay(skb, packet, vip, sender);
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

	struct endpoints ends = {
		.source = packet->destination,
		.destination = flow.target,
		.source_port = flow.source_port,
		.destination_port = flow.target_port,
	};

	if (rewrite(skb, packet, packet->hops - !is_self, &ends))
		return drop(EVENT_REWRITE_FAILED);
	return is_self ? VERDICT_NEXT : bpf_redirect_neigh(ifindex, 0, 0, 0);
}

/* Whether a TCP connection goes on that we sent to a NodePort so far. */
INLINE int has_flow(const struct packet *packet, const struct vip *vip)
{
	struct flow_key key = {
		.client = packet->source,
		.vip = packet->destination,
		.client_port = packet->source_port,
		.vip_port = packet->destination_port,
		.protocol = packet->protocol,
	};

	if (packet->protocol != IPPROTO_TCP || vip->role != ROLE_ME ||
	    (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return 0;

	struct flow *flow = bpf_map_lookup_elem(&flows, &key);

	return flow && flow->generation == vip->generation;
}

INLINE void count_sent(struct __sk_buff *skb, const struct packet *packet, __u32 id)
{
	struct stats *counters = bpf_map_lookup_elem(&stats, &id);

	if (counters) {
		counters->packets += skb->gso_segs ?: 1;
		counters->bytes += skb->len;
		counters->flows += packet->protocol == IPPROTO_TCP &&
				   (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	}
}

/*
 * A packet to a Service in mode "dsr" or "pod", whoever holds the VIP. VERDICT_UNKNOWN if its target is not
 * on a segment of ours.
 */
INLINE int direct(struct __sk_buff *skb, const struct packet *packet, const struct service *service)
{
	if (!is_allowed(packet, service))
		return drop(EVENT_SOURCE_RANGE);

	struct node *node = find_target(packet, service);
	struct link *link = node ? find_link(node, skb->ifindex) : 0;
	int is_self = node && node->flags & NODE_IS_SELF;
	__u32 sender = sending_node(skb);

	if (service->mode == MODE_POD && !is_self && !sender)
		is_self = keeps_flow(packet, service);
	/* Whoever sent it on has counted it. */
	if (is_self && !sender)
		count_sent(skb, packet, service->id);
	if (service->mode == MODE_POD && (is_self || sender))
		return to_pod(skb, packet, service, sender);
	if (is_self)
		return sender ? take_from_node() : VERDICT_NEXT;
	if (node && !link)
		return VERDICT_UNKNOWN;
	if (sender)
		return take_from_node();
	/* Without any target kube-proxy refuses at once. */
	if (!link)
		return passed();
	count_sent(skb, packet, service->id);
	return send_on(skb, packet, link);
}

/* The same where the flow tables have a say, or the target is not on a segment of ours. */
INLINE int direct_or_forward(struct __sk_buff *skb, const struct packet *packet,
			     const struct vip *vip, const struct service *service, __u32 sender)
{
	if (!is_allowed(packet, service))
		return drop(EVENT_SOURCE_RANGE);
	if (service->flags & SERVICE_HAS_FLOWS && service->node_port && has_flow(packet, vip))
		return forward(skb, packet, vip, service, sender);

	int verdict = direct(skb, packet, service);

	if (verdict != VERDICT_UNKNOWN)
		return verdict;
	if (service->node_port)
		return vip->role == ROLE_ME && packet->protocol != IPPROTO_SCTP ?
			       forward(skb, packet, vip, service, sender) :
			       relay(skb, packet, vip, 0);
	return sending_node(skb) ? take_from_node() : drop(EVENT_NO_LINK);
}

/*
 * Sends an ICMP error about a packet of a Service in mode "dsr" or "pod" to the target that sent it.
 * VERDICT_UNKNOWN if it is about something else.
 */
APART int steer_error(struct __sk_buff *skb, const struct packet *packet)
{
	struct packet quote = {};

	if (!packet)
		return VERDICT_DROP;
	if (read_quote(skb, packet, &quote) ||
	    !address_equal(&quote.source, &packet->destination))
		return VERDICT_UNKNOWN;

	struct service_key key = {
		.address = quote.source,
		.port = quote.source_port,
		.protocol = quote.protocol,
		.kind = KIND_SERVICE,
	};
	struct service *service = bpf_map_lookup_elem(&services, &key);

	if (!service || service->mode < MODE_DSR)
		return VERDICT_UNKNOWN;

	/* What the client sent has its ends the other way round. */
	struct packet sent = quote;
	__u32 sender = sending_node(skb);

	sent.source = quote.destination;
	sent.source_port = quote.destination_port;
	sent.destination = quote.source;
	sent.destination_port = quote.source_port;

	struct node *node = find_target(&sent, service);

	if (service->mode == MODE_POD &&
	    (sender || (node && node->flags & NODE_IS_SELF) || keeps_flow(&sent, service))) {
		int verdict = error_to_pod(skb, packet, &quote, &sent, service);

		if (verdict == VERDICT_UNKNOWN)
			verdict = seek(skb, packet, &sent, service, sender);
		return verdict == VERDICT_UNKNOWN ? passed() : verdict;
	}
	if (sender)
		return take_from_node();

	struct link *link = node ? find_link(node, skb->ifindex) : 0;

	if (node && node->flags & NODE_IS_SELF) {
		count(EVENT_ERROR_STEERED);
		return VERDICT_NEXT;
	}
	if (!link)
		return VERDICT_UNKNOWN;

	int verdict = send_on(skb, packet, link);

	if (verdict != VERDICT_DROP)
		count(EVENT_ERROR_STEERED);
	return verdict;
}

/* An ICMP error that came to the VIP from outside. */
INLINE int receive_error(struct __sk_buff *skb, const struct packet *packet, const struct vip *vip)
{
	int verdict = VERDICT_UNKNOWN;

	if (vip->role == ROLE_ME && packet->hops > 1)
		verdict = translate_error(skb, packet, vip, packet->hops - 1);
	if (verdict == VERDICT_UNKNOWN)
		verdict = steer_error(skb, packet);
	if (verdict != VERDICT_UNKNOWN)
		return verdict;
	if (packet->hops <= 1)
		return drop(EVENT_TTL);
	return vip->role == ROLE_ME ? drop(EVENT_UNKNOWN_ERROR) : relay(skb, packet, vip, 0);
}

INLINE struct vip *find_vip(struct __sk_buff *skb, const struct packet *packet)
{
	struct vip_key key = {.address = packet->destination, .ifindex = skb->ifindex};

	return bpf_map_lookup_elem(&vips, &key);
}

/* Whether the packet's ports are known. */
INLINE int has_ports(const struct packet *packet)
{
	if (packet->fragment == FRAGMENT_UNKNOWN)
		return 0;
	return packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP ||
	       packet->protocol == IPPROTO_SCTP;
}

INLINE struct service *find_service(const struct packet *packet)
{
	struct service_key key = {
		.address = packet->destination,
		.port = packet->destination_port,
		.protocol = packet->protocol,
		.kind = KIND_SERVICE,
	};

	return bpf_map_lookup_elem(&services, &key);
}

INLINE int ingress(struct __sk_buff *skb)
{
	struct packet packet = {};

	/* What a bridge floods to others is not for us to forward. */
	if (skb->pkt_type != PACKET_HOST || read_network(skb, &packet) ||
	    !may_be_vip(&packet.destination))
		return VERDICT_NEXT;

	int is_malformed = read_transport(skb, &packet);
	int is_to_port = !is_malformed && has_ports(&packet);
	struct service *service = is_to_port ? find_service(&packet) : 0;
	int is_direct = service && service->mode >= MODE_DSR;

	/* Nobody else's take room: only those of a client to a Service, and of what a target answers. */
	if (is_to_port && packet.fragment == FRAGMENT_FIRST &&
	    (service || node_with_address(&packet.source)))
		remember_fragment(&packet);
	/* The most frequent first: it matters neither who holds the VIP, nor what came before. */
	if (is_direct && !(service->flags & SERVICE_HAS_FLOWS)) {
		int verdict = direct(skb, &packet, service);

		if (verdict != VERDICT_UNKNOWN)
			return verdict;
	}

	struct vip *vip = find_vip(skb, &packet);

	if (!vip)
		return VERDICT_NEXT;
	if (is_malformed)
		return drop(EVENT_MALFORMED);
	if (is_neighbour_discovery(&packet))
		return VERDICT_NEXT;
	if (packet.fragment && !is_to_port)
		return drop(EVENT_FRAGMENT);
	if (is_echo_request(&packet) && ignores_echo())
		return drop(EVENT_UNSUPPORTED_PROTOCOL);
	if (is_echo_request(&packet))
		return vip->role == ROLE_ME ? answer_echo(skb, &packet) :
					      relay(skb, &packet, vip, 0);
	if (is_error(&packet))
		return receive_error(skb, &packet, vip);
	if (!is_to_port)
		return drop(EVENT_UNSUPPORTED_PROTOCOL);

	__u32 sender = 0;

	if (!is_direct || service->flags & SERVICE_HAS_FLOWS) {
		/* The node whose address it comes from: it may be the reply of a target. */
		sender = node_with_address(&packet.source);
		if (sender) {
			struct reply *reply = find_reply(&packet, vip);

			if (reply)
				return packet.hops <= 1 ? drop(EVENT_TTL) :
							  translate_reply(skb, &packet, reply,
									  packet.hops - 1);
			if (vip->role != ROLE_ME && is_from_node_port(&packet))
				return relay(skb, &packet, vip, sender);
		}
	}
	if (is_direct)
		return direct_or_forward(skb, &packet, vip, service, sender);
	if (!service) {
		if (sender)
			return is_from_node_port(&packet) ? relay(skb, &packet, vip, sender) :
							    drop(EVENT_UNKNOWN_PORT);
		/* A node that knows of a port before we do. */
		return sending_node(skb) ? take_from_node() : drop(EVENT_UNKNOWN_PORT);
	}
	/* And one that knows of endpoints before we do: without any a Service is kube-proxy's. */
	if (service->mode == MODE_OFF && sending_node(skb))
		return take_from_node();
	if (vip->role != ROLE_ME)
		return relay(skb, &packet, vip, 0);
	if (service->mode != MODE_NODE_PORT)
		return passed();
	if (!is_allowed(&packet, service))
		return drop(EVENT_SOURCE_RANGE);
	return forward(skb, &packet, vip, service, sender);
}

SEC("classifier/ingress")
int herald_ingress(struct __sk_buff *skb)
{
	return ingress(skb);
}

/* A reply that kube-proxy has given the VIP as its sender: with "dsr" nobody else sees it. */
INLINE void count_reply(struct __sk_buff *skb, const struct packet *packet)
{
	struct service_key key = {
		.address = packet->source,
		.port = packet->source_port,
		.protocol = packet->protocol,
		.kind = KIND_SERVICE,
	};
	struct service *service = has_ports(packet) ? bpf_map_lookup_elem(&services, &key) : 0;

	if (!service || service->mode < MODE_DSR)
		return;

	__u32 id = service->id;
	struct stats *counters = bpf_map_lookup_elem(&stats, &id);

	if (counters) {
		counters->reply_packets += skb->gso_segs ?: 1;
		counters->reply_bytes += skb->len;
	}
}

/* Replies of this node as a target leave here: to a NodePort's client, or from a pod as they are. */
SEC("classifier/egress")
int herald_egress(struct __sk_buff *skb)
{
	struct packet packet = {};

	if (skb->tc_index == SENT_ON || read_network(skb, &packet))
		return VERDICT_NEXT;

	int is_to_vip = may_be_vip(&packet.destination);
	int is_from_pod = may_be_pod(&packet.source);
	int is_from_vip = may_be_vip(&packet.source);

	/* An error may quote a pod, whoever sends it. */
	if ((!is_to_vip && !is_from_pod && !is_from_vip && packet.protocol != IPPROTO_ICMP &&
	     packet.protocol != IPPROTO_ICMPV6) ||
	    read_transport(skb, &packet) || (packet.fragment && !has_ports(&packet)))
		return VERDICT_NEXT;

	if (packet.fragment == FRAGMENT_FIRST)
		remember_fragment(&packet);

	if (is_from_vip)
		count_reply(skb, &packet);

	int is_about = is_error(&packet);
	int verdict = VERDICT_UNKNOWN;

	if (is_about)
		verdict = error_from_pod(skb, &packet);
	else if (is_from_pod)
		verdict = from_pod(skb, &packet);
	if (verdict != VERDICT_UNKNOWN)
		return verdict;

	struct vip *vip = is_to_vip ? find_vip(skb, &packet) : 0;

	if (!vip)
		return VERDICT_NEXT;
	if (is_about) {
		verdict = translate_error(skb, &packet, vip, packet.hops);
		return verdict == VERDICT_UNKNOWN ? VERDICT_NEXT : verdict;
	}
	if (packet.protocol != IPPROTO_TCP && packet.protocol != IPPROTO_UDP)
		return VERDICT_NEXT;

	struct reply *reply = find_reply(&packet, vip);

	if (reply)
		return translate_reply(skb, &packet, reply, packet.hops);
	if (vip->role != ROLE_ME || !vip->holder.nh_family || !is_from_node_port(&packet) ||
	    !is_to_ourselves(skb))
		return VERDICT_NEXT;
	return relay(skb, &packet, vip, node_with_address(&packet.source));
}

/* bpf_redirect_neigh and the checksum helpers are for programs the kernel counts as GPL. */
SEC("license") char licence[] = "Dual BSD/GPL";
