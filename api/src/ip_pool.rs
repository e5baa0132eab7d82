//! `IPPool`: where addresses come from. Written by people.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// A pool of addresses that `LoadBalancer` Services get theirs from.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "heraldlb.io",
    version = "v1alpha1",
    kind = "IPPool",
    plural = "ippools",
    shortname = "pool",
    category = "herald",
    status = "IPPoolStatus",
    derive = "PartialEq",
    doc = "A pool of addresses that Services of type LoadBalancer get theirs from.",
    printcolumn(
        name = "Addresses",
        type_ = "string",
        json_path = ".spec.addresses",
        priority = 1
    ),
    printcolumn(
        name = "Auto Assign",
        type_ = "boolean",
        json_path = ".spec.autoAssign"
    ),
    printcolumn(
        name = "IPv4 Total",
        type_ = "string",
        json_path = ".status.ipv4.total"
    ),
    printcolumn(
        name = "IPv4 Assigned",
        type_ = "string",
        json_path = ".status.ipv4.assigned"
    ),
    printcolumn(
        name = "IPv4 Available",
        type_ = "string",
        json_path = ".status.ipv4.available"
    ),
    printcolumn(
        name = "IPv6 Total",
        type_ = "string",
        json_path = ".status.ipv6.total"
    ),
    printcolumn(
        name = "IPv6 Assigned",
        type_ = "string",
        json_path = ".status.ipv6.assigned"
    ),
    printcolumn(
        name = "IPv6 Available",
        type_ = "string",
        json_path = ".status.ipv6.available"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolSpec {
    /// CIDRs (`192.0.2.0/24`) and ranges (`192.0.2.10-192.0.2.60`, both ends included); families
    /// may be mixed.
    #[schemars(schema_with = "schema::address_ranges")]
    pub addresses: Vec<String>,

    /// Whether Services that ask for nothing in particular may get an address from here; `false`:
    /// only Services that name the pool or one of its addresses.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Whether IPv4 addresses that end in .0 or .255 are left out, as some old routers and clients
    /// drop them.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// `External`: for Services that ask for no scope or an external one. `Internal`: only for
    /// Services that ask for an internal address.
    #[serde(default)]
    pub scope: Scope,

    /// Pools with a higher number are tried first, those with the same number by name;
    /// from -1000000 to 1000000.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,

    /// Which Services may get an address from here; all of them if nothing is said.
    #[serde(default)]
    pub allowed: Allowed,

    /// `Default`: announced by every node when no advertisement selects the pool. `Explicit`: only
    /// when one does.
    #[serde(default)]
    pub advertisement: AdvertisementPolicy,

    /// Whether the LAN is asked before a new address is used.
    #[serde(default = "yes")]
    pub conflict_probe: bool,

    /// What is done when a machine that is no node of the cluster answers for an address in use.
    /// `Defend`: it is kept, and announced again. `Yield`: nobody announces it until that machine has
    /// been silent for a minute.
    #[serde(default)]
    pub conflict_policy: ConflictPolicy,

    /// How long a freed address rests before it is given again, such as `0s`, `90s`, `5m` or
    /// `1h30m`.
    #[serde(default = "no_delay")]
    #[schemars(schema_with = "schema::duration")]
    pub reuse_delay: String,
}

impl Default for IPPoolSpec {
    /// What the API server fills in, and no addresses.
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            auto_assign: yes(),
            avoid_buggy_ips: false,
            scope: Scope::default(),
            priority: 0,
            allowed: Allowed::default(),
            advertisement: AdvertisementPolicy::default(),
            conflict_probe: yes(),
            conflict_policy: ConflictPolicy::default(),
            reuse_delay: no_delay(),
        }
    }
}

const fn yes() -> bool {
    true
}

fn no_delay() -> String {
    "0s".to_owned()
}

/// The scope of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// For Services that ask for no scope or an external one.
    #[default]
    External,
    /// Only for Services that ask for an internal address.
    Internal,
}

/// Who announces a pool that no advertisement selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AdvertisementPolicy {
    /// Every node, on every segment.
    #[default]
    Default,
    /// Nobody.
    Explicit,
}

/// What is done when a stranger on the LAN answers for an address in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConflictPolicy {
    /// It is kept, and announced again, at most every ten seconds.
    #[default]
    Defend,
    /// Nobody announces it until the stranger has been silent for a minute.
    Yield,
}

/// Which Services a pool serves: those in one of the namespaces, named or selected, that also match
/// one of the Service selectors. An empty list allows all; a selector that matches nothing allows
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allowed {
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::namespaces")]
    pub namespaces: Vec<String>,

    /// Namespaces by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::selectors")]
    pub namespace_selectors: Vec<LabelSelector>,

    /// Services by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::selectors")]
    pub service_selectors: Vec<LabelSelector>,
}

/// What has become of a pool. Written by the controller.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// Its IPv4 addresses; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<AddressCounts>,

    /// Its IPv6 addresses; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<AddressCounts>,

    /// `Ready`: whether the pool is valid and serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Numbers of addresses, as decimal text, since those of IPv6 do not fit a JSON number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressCounts {
    /// All that can be given.
    pub total: String,
    /// Those that Services hold.
    pub assigned: String,
    /// Those that can be given now.
    pub available: String,
}
