//! Annotations that Herald reads or writes.

/// On a Service: take the address from this pool.
pub const POOL: &str = "heraldlb.io/pool";
/// On a Service: the addresses it asks for, one per family, comma separated.
pub const ADDRESSES: &str = "heraldlb.io/addresses";
/// On a Service: Services with the same key may share an address.
pub const SHARING_KEY: &str = "heraldlb.io/sharing-key";
/// On a Service: `internal` or `external`.
pub const SCOPE: &str = "heraldlb.io/scope";
/// On a Service: `auto`, `pod`, `dsr`, `nodeport` or `off`.
pub const FORWARDING: &str = "heraldlb.io/forwarding";
/// Written by Herald on a Service: the pool its addresses came from.
pub const ALLOCATED_FROM: &str = "heraldlb.io/allocated-from";
/// On a Node, with the name of an interface after it: the segment that interface is in.
pub const SEGMENT_PREFIX: &str = "heraldlb.io/segment.";

/// `MetalLB`'s form of [`POOL`], newer spelling first.
pub const METALLB_POOL: [&str; 2] = [
    "metallb.io/address-pool",
    "metallb.universe.tf/address-pool",
];
/// `MetalLB`'s form of [`ADDRESSES`], newer spelling first.
pub const METALLB_ADDRESSES: [&str; 2] = [
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
];
/// `MetalLB`'s form of [`SHARING_KEY`], newer spelling first.
pub const METALLB_SHARING_KEY: [&str; 2] = [
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
];

/// What a cloud vendor's annotation must say to mean "internal".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InternalWhen {
    /// Exactly this value, letter case aside.
    Is(&'static str),
    /// Anything but the empty text.
    Set,
    /// Anything but the empty text and exactly this value.
    Not(&'static str),
}

impl InternalWhen {
    /// Whether the annotation's value asks for an internal address.
    pub fn holds(self, value: &str) -> bool {
        match self {
            Self::Is(wanted) => value.trim().eq_ignore_ascii_case(wanted),
            Self::Set => !value.trim().is_empty(),
            Self::Not(no) => !["", no].contains(&value.trim()),
        }
    }
}

/// The annotations by which Services ask a cloud vendor for an internal load balancer, as the
/// Kubernetes documentation lists them; to Herald they mean [`SCOPE`] `internal`.
pub const VENDOR_INTERNAL: [(&str, InternalWhen); 11] = [
    // Google
    (
        "networking.gke.io/load-balancer-type",
        InternalWhen::Is("Internal"),
    ),
    (
        "cloud.google.com/load-balancer-type",
        InternalWhen::Is("Internal"),
    ),
    // Amazon, the tree's and the load balancer controller's. The former took anything for yes that
    // was set and not "false", as "0.0.0.0/0" in the documentation of old (`EnsureLoadBalancer` in
    // pkg/cloudprovider/providers/aws/aws.go).
    (
        "service.beta.kubernetes.io/aws-load-balancer-internal",
        InternalWhen::Not("false"),
    ),
    (
        "service.beta.kubernetes.io/aws-load-balancer-scheme",
        InternalWhen::Is("internal"),
    ),
    // Microsoft
    (
        "service.beta.kubernetes.io/azure-load-balancer-internal",
        InternalWhen::Is("true"),
    ),
    // OpenStack
    (
        "service.beta.kubernetes.io/openstack-internal-load-balancer",
        InternalWhen::Is("true"),
    ),
    // IBM
    (
        "service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type",
        InternalWhen::Is("private"),
    ),
    // Alibaba
    (
        "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type",
        InternalWhen::Is("intranet"),
    ),
    // Tencent: the value names a subnet
    (
        "service.kubernetes.io/qcloud-loadbalancer-internal-subnetid",
        InternalWhen::Set,
    ),
    // Baidu
    (
        "service.beta.kubernetes.io/cce-load-balancer-internal-vpc",
        InternalWhen::Is("true"),
    ),
    // Oracle
    (
        "service.beta.kubernetes.io/oci-load-balancer-internal",
        InternalWhen::Is("true"),
    ),
];

/// On the Secret with the observer ring's keys: another value asks for another key.
pub const ROTATE: &str = "heraldlb.io/rotate";
/// On the same Secret: the last value of [`ROTATE`] that was acted on.
pub const ROTATED: &str = "heraldlb.io/rotated";
