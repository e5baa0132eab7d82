//! `L2Advertisement`.

use herald_api::L2Advertisement;
use herald_model::{
    Advertisement, AdvertisementName, InterfacePattern, PoolName, Selector, WeightedSelector,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::meta;
use crate::selector::{InvalidSelector, selector, selectors};

/// Why an advertisement cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAdvertisement {
    /// A selector cannot be used.
    #[error("spec.{field}[{place}]")]
    Selector {
        /// Which list it is in.
        field: &'static str,
        /// Its place there.
        place: usize,
        /// What is wrong with it.
        source: InvalidSelector,
    },
    /// A weight is out of bounds.
    #[error("spec.preferredNodeSelectors[{place}].weight is {weight}; expected 1 to 100")]
    Weight {
        /// The entry's place in the list.
        place: usize,
        /// What was given.
        weight: i32,
    },
    /// An entry can be no interface's name.
    #[error(
        "spec.interfaces[{place}] is {text:?}; expected a name or a glob such as eth0 or bond*"
    )]
    Interface {
        /// The entry's place in the list.
        place: usize,
        /// What was given.
        text: String,
    },
}

impl InvalidAdvertisement {
    /// A word for metrics and Events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Selector { source, .. } => source.kind(),
            Self::Weight { .. } => "advertisement_weight",
            Self::Interface { .. } => "advertisement_interface",
        }
    }
}

/// The advertisement that the object describes.
///
/// # Errors
///
/// Every variant of [`InvalidAdvertisement`].
pub fn advertisement(object: &L2Advertisement) -> Result<Advertisement, InvalidAdvertisement> {
    let spec = &object.spec;
    Ok(Advertisement {
        name: AdvertisementName::from(meta::name(&object.metadata)),
        pools: spec
            .pools
            .iter()
            .map(|name| PoolName::from(name.as_str()))
            .collect(),
        pool_selectors: list("poolSelectors", &spec.pool_selectors)?,
        service_selectors: list("serviceSelectors", &spec.service_selectors)?,
        node_selectors: list("nodeSelectors", &spec.node_selectors)?,
        preferred_nodes: spec
            .preferred_node_selectors
            .iter()
            .enumerate()
            .map(|(place, preferred)| {
                let weight = u8::try_from(preferred.weight)
                    .ok()
                    .filter(|weight| (1..=100).contains(weight))
                    .ok_or(InvalidAdvertisement::Weight {
                        place,
                        weight: preferred.weight,
                    })?;
                let preference = selector(&preferred.preference).map_err(|source| {
                    InvalidAdvertisement::Selector {
                        field: "preferredNodeSelectors",
                        place,
                        source,
                    }
                })?;
                Ok(WeightedSelector { weight, preference })
            })
            .collect::<Result<_, _>>()?,
        interfaces: spec
            .interfaces
            .iter()
            .enumerate()
            .map(|(place, text)| interface(place, text))
            .collect::<Result<_, _>>()?,
    })
}

fn list(
    field: &'static str,
    objects: &[LabelSelector],
) -> Result<Vec<Selector>, InvalidAdvertisement> {
    selectors(objects).map_err(|(place, source)| InvalidAdvertisement::Selector {
        field,
        place,
        source,
    })
}

/// The kernel allows neither spaces nor slashes nor colons in a name (`net/core/dev.c`,
/// `dev_valid_name`).
fn interface(place: usize, text: &str) -> Result<InterfacePattern, InvalidAdvertisement> {
    let refused = |c: char| c.is_whitespace() || c == '/' || c == ':';
    if text.is_empty() || text.contains(refused) {
        Err(InvalidAdvertisement::Interface {
            place,
            text: text.to_owned(),
        })
    } else {
        Ok(InterfacePattern(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use herald_api::{L2AdvertisementSpec, PreferredNodeSelector};

    use super::*;
    use crate::sentence;

    fn labelled(key: &str, value: &str) -> LabelSelector {
        LabelSelector {
            match_labels: Some([(key.to_owned(), value.to_owned())].into()),
            match_expressions: None,
        }
    }

    fn preferred(weight: i32) -> PreferredNodeSelector {
        PreferredNodeSelector {
            weight,
            preference: labelled("rack", "a"),
        }
    }

    fn convert(spec: L2AdvertisementSpec) -> Result<Advertisement, InvalidAdvertisement> {
        advertisement(&L2Advertisement::new("lan", spec))
    }

    #[test]
    fn every_field_is_carried_over() {
        let spec = L2AdvertisementSpec {
            pools: vec!["public".to_owned()],
            pool_selectors: vec![labelled("zone", "1")],
            service_selectors: vec![labelled("tier", "web")],
            node_selectors: vec![labelled("edge", "yes")],
            preferred_node_selectors: vec![preferred(100)],
            interfaces: vec!["eth0".to_owned(), "bond*".to_owned()],
        };
        assert_eq!(
            convert(spec),
            Ok(Advertisement {
                name: "lan".into(),
                pools: ["public".into()].into(),
                pool_selectors: vec![Selector::label("zone", "1")],
                service_selectors: vec![Selector::label("tier", "web")],
                node_selectors: vec![Selector::label("edge", "yes")],
                preferred_nodes: vec![WeightedSelector {
                    weight: 100,
                    preference: Selector::label("rack", "a"),
                }],
                interfaces: vec![
                    InterfacePattern("eth0".to_owned()),
                    InterfacePattern("bond*".to_owned())
                ],
            })
        );
    }

    #[test]
    fn weights_are_from_1_to_100() {
        for weight in [i32::MIN, -1, 0, 101, 256] {
            let spec = L2AdvertisementSpec {
                preferred_node_selectors: vec![preferred(1), preferred(weight)],
                ..L2AdvertisementSpec::default()
            };
            assert_eq!(
                convert(spec).unwrap_err().to_string(),
                format!("spec.preferredNodeSelectors[1].weight is {weight}; expected 1 to 100")
            );
        }
    }

    #[test]
    fn a_refused_interface_is_named_with_its_place() {
        for text in ["", "eth0 ", "eth/0", "eth0:1"] {
            let spec = L2AdvertisementSpec {
                interfaces: vec!["eth0".to_owned(), text.to_owned()],
                ..L2AdvertisementSpec::default()
            };
            let got = convert(spec).unwrap_err();
            assert!(
                sentence(&got).starts_with(&format!("spec.interfaces[1] is {text:?}")),
                "{got}"
            );
        }
    }
}
