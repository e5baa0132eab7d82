//! `IPPool`.

use herald_api::{
    AdvertisementPolicy as ApiAdvertisementPolicy, ConflictPolicy as ApiConflictPolicy, IPPool,
    Scope as ApiScope,
};
use herald_model::{
    AddressRange, AdvertisementPolicy, Allowed, ConflictPolicy, NamespaceName, ParseRangeError,
    Pool, PoolName, Scope, Selector,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::duration::duration;
use crate::meta;
use crate::selector::{InvalidSelector, selectors};

/// Why a pool cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPool {
    /// It has no addresses.
    #[error("spec.addresses is empty; expected at least one CIDR or range")]
    Empty,
    /// An entry is not a range of addresses.
    #[error("spec.addresses[{place}]")]
    Range {
        /// Its place in the list.
        place: usize,
        /// What is wrong with it.
        source: ParseRangeError,
    },
    /// Two entries have addresses in common.
    #[error("spec.addresses: {first:?} and {second:?} have addresses in common")]
    Overlap {
        /// The entry with the lower first address.
        first: String,
        /// The other.
        second: String,
    },
    /// A selector cannot be used.
    #[error("spec.allowed.{field}[{place}]")]
    Selector {
        /// Which list it is in.
        field: &'static str,
        /// Its place there.
        place: usize,
        /// What is wrong with it.
        source: InvalidSelector,
    },
    /// The time that addresses rest is not a duration.
    #[error("spec.reuseDelay {text:?} is not a duration such as 0s, 90s, 5m or 1h30m")]
    ReuseDelay {
        /// What was given.
        text: String,
    },
}

impl InvalidPool {
    /// A word for metrics and Events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "pool_empty",
            Self::Range { .. } => "pool_range",
            Self::Overlap { .. } => "pool_overlap",
            Self::Selector { source, .. } => source.kind(),
            Self::ReuseDelay { .. } => "pool_reuse_delay",
        }
    }
}

/// The pool that the object describes.
///
/// # Errors
///
/// Every variant of [`InvalidPool`].
pub fn pool(object: &IPPool) -> Result<Pool, InvalidPool> {
    let spec = &object.spec;
    Ok(Pool {
        name: PoolName::from(meta::name(&object.metadata)),
        created: meta::created(&object.metadata),
        ranges: ranges(&spec.addresses)?,
        auto_assign: spec.auto_assign,
        avoid_buggy_ips: spec.avoid_buggy_ips,
        scope: match spec.scope {
            ApiScope::External => Scope::External,
            ApiScope::Internal => Scope::Internal,
        },
        priority: spec.priority,
        allowed: Allowed {
            namespaces: spec
                .allowed
                .namespaces
                .iter()
                .map(|name| NamespaceName::from(name.as_str()))
                .collect(),
            namespace_selectors: allowed_by(
                "namespaceSelectors",
                &spec.allowed.namespace_selectors,
            )?,
            service_selectors: allowed_by("serviceSelectors", &spec.allowed.service_selectors)?,
        },
        advertisement: match spec.advertisement {
            ApiAdvertisementPolicy::Default => AdvertisementPolicy::Default,
            ApiAdvertisementPolicy::Explicit => AdvertisementPolicy::Explicit,
        },
        conflict_probe: spec.conflict_probe,
        conflict_policy: conflict_policy(spec.conflict_policy),
        reuse_delay: duration(&spec.reuse_delay).ok_or_else(|| InvalidPool::ReuseDelay {
            text: spec.reuse_delay.clone(),
        })?,
    })
}

pub(crate) const fn conflict_policy(policy: ApiConflictPolicy) -> ConflictPolicy {
    match policy {
        ApiConflictPolicy::Defend => ConflictPolicy::Defend,
        ApiConflictPolicy::Yield => ConflictPolicy::Yield,
    }
}

fn ranges(texts: &[String]) -> Result<Vec<AddressRange>, InvalidPool> {
    let ranges = texts
        .iter()
        .enumerate()
        .map(|(place, text)| {
            text.parse::<AddressRange>()
                .map_err(|source| InvalidPool::Range { place, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if ranges.is_empty() {
        return Err(InvalidPool::Empty);
    }
    let mut sorted: Vec<_> = ranges.iter().copied().zip(texts).collect();
    sorted.sort();
    for pair in sorted.windows(2) {
        if let [(first, first_text), (second, second_text)] = pair
            && first.intersection(*second).is_some()
        {
            return Err(InvalidPool::Overlap {
                first: (*first_text).clone(),
                second: (*second_text).clone(),
            });
        }
    }
    Ok(ranges)
}

fn allowed_by(
    field: &'static str,
    objects: &[LabelSelector],
) -> Result<Vec<Selector>, InvalidPool> {
    selectors(objects).map_err(|(place, source)| InvalidPool::Selector {
        field,
        place,
        source,
    })
}

#[cfg(test)]
mod tests;
