//! `VirtualIP`: one per address in use, and the lock on it. Written by Herald.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConflictPolicy, schema};

/// The claim on an address and the plan for it. Written by the controller.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "heraldlb.io",
    version = "v1alpha1",
    kind = "VirtualIP",
    plural = "virtualips",
    shortname = "vip",
    category = "herald",
    status = "VirtualIPStatus",
    derive = "PartialEq",
    validation = Rule::new(schema::NAMED_AFTER_ADDRESS)
        .message("metadata.name: expected the address with hyphens: 192-0-2-10, or 2001-0db8-0000-0000-0000-0000-0000-000a"),
    doc = "An address that Services hold: who holds it, who announces it, and how its traffic is forwarded. Written by Herald, not by people.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(
        name = "Service",
        type_ = "string",
        json_path = ".spec.services[*].name"
    ),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.segments[*].node"
    ),
    printcolumn(
        name = "Interface",
        type_ = "string",
        json_path = ".status.segments[*].interface"
    ),
    printcolumn(
        name = "Forwarding",
        type_ = "string",
        json_path = ".status.forwarding"
    ),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = ".status.segments[*].since"
    ),
    printcolumn(
        name = "Namespace",
        type_ = "string",
        json_path = ".spec.services[*].namespace",
        priority = 1
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".spec.phase",
        priority = 1
    ),
    printcolumn(
        name = "Pool",
        type_ = "string",
        json_path = ".spec.pool",
        priority = 1
    ),
    printcolumn(
        name = "Targets",
        type_ = "integer",
        json_path = ".status.targets",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("(self.phase == 'Resting') == has(self.until)")
        .message("expected a time in until in phase Resting, and none in another")
        .field_path(".until")
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPSpec {
    /// The address.
    #[schemars(schema_with = "schema::vip_address")]
    pub address: String,

    /// The pool it came from; empty if no pool has it any more.
    #[schemars(length(max = 253))]
    pub pool: String,

    /// The version of the plan; the controller raises it whenever the plan changes.
    #[schemars(schema_with = "schema::epoch")]
    pub epoch: i64,

    /// Where the address is in its life.
    pub phase: VipPhase,

    /// When it stops resting; only in phase `Resting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,

    /// Who announces it.
    pub announce: Announcers,

    /// What its pool wants done when a stranger on the LAN answers for it.
    #[serde(default)]
    pub conflict_policy: ConflictPolicy,

    /// The advertisements that decided who announces it; none if `announce` is not `Listed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::object_names")]
    pub advertisements: Vec<String>,

    /// The Services that hold it; several if they share it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub services: Vec<ServiceReference>,

    /// Who is to announce it, segment by segment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub segments: Vec<PlannedSegment>,
}

/// Where an address is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum VipPhase {
    /// Claimed; the LAN is being asked whether the address is free.
    Probing,
    /// In use.
    #[default]
    Active,
    /// Given back or put aside, not to be given again before `until`.
    Resting,
}

/// Who announces an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Announcers {
    /// Any node, as no advertisement selects it.
    #[default]
    All,
    /// Those that the listed advertisements allow.
    Listed,
    /// Nobody: its pool wants an advertisement and there is none.
    None,
}

/// One life of one Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReference {
    /// The Service's namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its uid.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,
}

/// The plan for an address on one segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSegment {
    /// The segment.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Up to three nodes, the planned holder first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub candidates: Vec<Candidate>,
}

/// A node, in one of its lives on the segment, that may hold the address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The number of its life on the segment.
    #[schemars(range(min = 0))]
    pub incarnation: i64,
}

/// What has become of an address. Written by the speaker that holds it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPStatus {
    /// Who announces it, segment by segment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub segments: Vec<AnnouncedSegment>,

    /// How its traffic is forwarded; absent until somebody forwards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,

    /// Why it is not forwarded as was asked; absent if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub forwarding_reason: Option<String>,

    /// The number of nodes (with `pod`: of pods) that its traffic is spread over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub targets: Option<i32>,

    /// The segments on which the LAN was asked for it before it is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::segment_names")]
    pub probed: Vec<String>,

    /// The segments on which nobody announces it, as a stranger answers for it there and its
    /// pool has conflict policy `Yield`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::segment_names")]
    pub yielded: Vec<String>,

    /// `Announced`, `Forwarding` and `Conflict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Who announces an address on one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncedSegment {
    /// The segment.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The node that answers for the address.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The node's interface in the segment.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
    /// The MAC address it answers with.
    #[schemars(schema_with = "schema::mac")]
    pub mac: String,
    /// The version of the plan it acted on.
    #[schemars(schema_with = "schema::epoch")]
    pub epoch: i64,
    /// Since when.
    pub since: Time,
    /// Why it holds the address, in one word, such as `Planned`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// How an address's traffic reaches its Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// Straight to a pod.
    Pod,
    /// By MAC address to a node, which answers the client itself.
    Dsr,
    /// To a node's `NodePort`, with the address as source.
    NodePort,
    /// Not by Herald: kube-proxy on the announcing node takes it.
    Off,
}
