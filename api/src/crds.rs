//! The definitions that a cluster needs before it knows Herald's objects.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{IPPool, L2Advertisement, Speaker, VirtualIP};

/// The definition of each of the four kinds, in the order of their names.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        IPPool::crd(),
        L2Advertisement::crd(),
        Speaker::crd(),
        VirtualIP::crd(),
    ]
}

/// The files of the definitions: name and YAML text, as they are in `helm/crds/`.
///
/// # Errors
///
/// When a definition cannot be written as YAML, which is a mistake in its type.
pub fn crd_files() -> Result<Vec<(String, String)>, serde_saphyr::SerializeError> {
    crds()
        .iter()
        .map(|crd| {
            let file = format!("{}.yaml", crd.spec.names.plural);
            Ok((file, serde_saphyr::to_string(crd)?))
        })
        .collect()
}

#[cfg(test)]
mod tests;
