//! What the programs count.

use std::collections::BTreeMap;
use std::fmt;

/// The counters of one Service on this node, summed over CPUs. They only rise, and start again when
/// the maps are made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Packets sent on to targets; what the network card merged counts as many.
    pub packets: u64,
    /// Their bytes, link headers included.
    pub bytes: u64,
    /// New flows: TCP connections by their SYN, UDP by address and port; in modes `dsr` and `pod` only
    /// TCP, and a repeated SYN again.
    pub flows: u64,
    /// Replies sent on to clients; in mode `dsr` there are none, as targets answer clients themselves, and
    /// in mode `pod` the target counts them.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
}

impl ServiceCounters {
    /// The numbers of `struct stats` in `speaker/ebpf/maps.h`, in their order.
    pub const FIELDS: usize = 5;

    /// Adds one CPU's share.
    pub fn add(&mut self, share: [u64; Self::FIELDS]) {
        let [packets, bytes, flows, reply_packets, reply_bytes] = share;
        self.packets += packets;
        self.bytes += bytes;
        self.flows += flows;
        self.reply_packets += reply_packets;
        self.reply_bytes += reply_bytes;
    }
}

/// All counters of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By the number that [`Compiled::service_ids`](crate::Compiled::service_ids) gives.
    pub services: BTreeMap<u32, ServiceCounters>,
    /// How often each thing happened.
    pub events: BTreeMap<Event, u64>,
}

macro_rules! events {
    ($($(#[$doc:meta])* $event:ident = $name:literal,)*) => {
        /// Something that happened to a packet for a VIP, in the order of `enum event` in
        /// `speaker/ebpf/maps.h`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Event {
            $($(#[$doc])* $event,)*
        }

        impl Event {
            /// Every event; the position is its index in the map `events`.
            pub const ALL: &[Self] = &[$(Self::$event,)*];

            /// The event's name, a metric label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$event => $name,)*
                }
            }
        }
    };
}

events! {
    /// Dropped: the VIP has no such port.
    UnknownPort = "unknown_port",
    /// Dropped: neither TCP, UDP, an echo request, an ICMP error nor, with a Service for it,
    /// SCTP.
    UnsupportedProtocol = "unsupported_protocol",
    /// Dropped: a fragment whose first one did not come before it, or of what has no ports.
    Fragment = "fragment",
    /// Dropped: shorter than its headers, or with more than four IPv6 extension headers.
    Malformed = "malformed",
    /// Dropped: its hop limit is used up.
    Ttl = "ttl",
    /// Dropped: the client is outside `loadBalancerSourceRanges`.
    SourceRange = "source_range",
    /// Dropped: it is not known who holds the VIP.
    NoHolder = "no_holder",
    /// Dropped: another node handed it to us, and we do not hold the VIP.
    Loop = "loop",
    /// Dropped: a target's reply whose client is not known.
    StrayReply = "stray_reply",
    /// Dropped: every source port that was tried is in use towards this target.
    NoSourcePort = "no_source_port",
    /// Dropped: it is not known where the target is on the segment.
    NoLink = "no_link",
    /// Dropped: an ICMP error about a packet of no flow that is known here.
    UnknownError = "unknown_error",
    /// Dropped: the kernel refused to change it.
    RewriteFailed = "rewrite_failed",
    /// Handed to the holder.
    Relayed = "relayed",
    /// Left to kube-proxy: the Service is not forwarded by us, or has no target.
    PassedToStack = "passed_to_stack",
    /// Left to kube-proxy: another node sent it here by its MAC address.
    FromNode = "from_node",
    /// Echo request answered.
    EchoAnswered = "echo_answered",
    /// An ICMP error was sent on to the client or the target that it concerns.
    ErrorTranslated = "error_translated",
    /// An ICMP error was sent on to the target whose packet it is about.
    ErrorSteered = "error_steered",
    /// A TCP flow was taken over in its middle, from another holder.
    FlowAdopted = "flow_adopted",
    /// A flow got another source port than the client's: it will not survive a change of holder.
    SourcePortChanged = "source_port_changed",
    /// A flow was pinned to a pod of this node.
    PodChosen = "pod_chosen",
    /// Left to kube-proxy: the pods that were tried have a flow from the same client and port, which came
    /// to another address or port.
    PodTaken = "pod_taken",
    /// Left to kube-proxy: this node has no pod of the Service.
    NoPod = "no_pod",
    /// A packet of a connection that is not known here was sent on to the node that had its slot before.
    HandedBack = "handed_back",
}

impl Event {
    /// Whether the packet was dropped.
    pub const fn is_drop(self) -> bool {
        (self as usize) < (Self::Relayed as usize)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_those_of_the_c_header_in_its_order() {
        let header = include_str!("../../ebpf/maps.h");
        let in_c: Vec<String> = header
            .lines()
            .filter_map(|line| line.trim().strip_prefix("EVENT_")?.strip_suffix(','))
            .map(str::to_lowercase)
            .collect();
        let here: Vec<&str> = Event::ALL.iter().map(|event| event.as_str()).collect();
        assert_eq!(in_c, here);
    }
}
