//! A genuine Kubernetes cluster on one machine.
