//! Labels that Herald reads or sets.

/// Which application an object belongs to; [`HERALD`] on everything of Herald's.
pub const NAME: &str = "app.kubernetes.io/name";
/// Which part of the application: [`CONTROLLER`] or [`SPEAKER`].
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// The value of [`NAME`].
pub const HERALD: &str = "herald";
/// The value of [`COMPONENT`] on the controller's Pods.
pub const CONTROLLER: &str = "controller";
/// The value of [`COMPONENT`] on the speakers' Pods.
pub const SPEAKER: &str = "speaker";

/// On a Node: it neither announces nor receives the traffic of load balancers.
pub const EXCLUDE_NODE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// A taint on a Node: it is off or out of reach for good, its Pods may be replaced at once.
pub const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";
/// A taint on a Node: it is cordoned. Kubernetes sets it where `spec.unschedulable` is true.
pub const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";
/// A taint on a Node: the cloud provider says that its machine is shut down.
pub const SHUTDOWN_TAINT: &str = "node.cloudprovider.kubernetes.io/shutdown";
/// A taint on a Node: the Cluster Autoscaler is about to remove it.
pub const SCALED_DOWN_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// On an `EndpointSlice`: the Service it belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
