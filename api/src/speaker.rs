//! `Speaker`: what the speaker of one node says of itself. Named after the node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// What people tell a speaker.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "heraldlb.io",
    version = "v1alpha1",
    kind = "Speaker",
    plural = "speakers",
    category = "herald",
    status = "SpeakerStatus",
    derive = "PartialEq",
    doc = "What the speaker of one node says of itself: where it can announce, and how it forwards. Named after the node; written by Herald.",
    printcolumn(
        name = "Segments",
        type_ = "string",
        json_path = ".status.segments[*].name"
    ),
    printcolumn(
        name = "Interfaces",
        type_ = "string",
        json_path = ".status.segments[*].interface",
        priority = 1
    ),
    printcolumn(
        name = "Data Plane",
        type_ = "string",
        json_path = ".status.dataPlane.mode"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerSpec {
    /// Whether the speaker is to remove everything of Herald's from its node, as before an
    /// uninstallation.
    #[serde(default)]
    pub retire: bool,
}

/// What a speaker says of itself. Written by that speaker, when something changes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatus {
    /// Its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub version: String,

    /// The kernel's boot id: it changes when the node starts anew.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub boot_id: String,

    /// The ring keys it accepts, by their ids in the Secret; the one it sends with first. None: it
    /// takes part in no ring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub key_ids: Vec<u32>,

    /// The segments it can announce on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into(), "interface".into()]))]
    pub segments: Vec<SpeakerSegment>,

    /// How it forwards; absent until it is set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlane>,

    /// The mode of the node's kube-proxy, as far as its traces tell: `ipvs`, or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kube_proxy_mode: Option<String>,

    /// `Ready`: whether it can announce and forward.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl SpeakerStatus {
    /// The mode of kube-proxy that is told of.
    pub const IPVS: &str = "ipvs";
}

/// One L2 segment as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerSegment {
    /// The segment's name, the same on every node in it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The node's interface in it.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
    /// That interface's MAC address.
    #[schemars(schema_with = "schema::mac")]
    pub mac: String,
    /// The interface's addresses with their prefix lengths, link-local ones left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::prefixes")]
    pub prefixes: Vec<String>,
    /// The next hops of the interface's default routes, link-local ones left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::gateways")]
    pub gateways: Vec<String>,
    /// Whether the interface is up and has carrier.
    pub carrier: bool,
    /// The number of the node's life on the segment.
    #[schemars(range(min = 0))]
    pub incarnation: i64,
}

/// How a speaker forwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlane {
    /// How its program is attached to the interfaces.
    pub mode: DataPlaneMode,
    /// Why it is not a better one; absent if it is the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// How a speaker's program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataPlaneMode {
    /// By a tcx link.
    Tcx,
    /// As a filter of a clsact queueing discipline, on kernels without tcx.
    Clsact,
    /// Not at all: kube-proxy takes the traffic.
    None,
}
