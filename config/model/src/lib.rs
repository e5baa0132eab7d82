//! The shared vocabulary: validated domain values, no Kubernetes, no runtime.
