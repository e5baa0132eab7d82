//! What a Service asks for, by annotations and by `spec.loadBalancerIP`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use herald_api::annotations;
use herald_model::{Family, ForwardingMode, PoolName, Request, Scope};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta;

/// All that annotations say.
pub(super) struct Asked {
    /// Pool and addresses, and the first sentence about what makes no sense.
    pub(super) request: Request,
    /// Who it may share with.
    pub(super) sharing_key: Option<Arc<str>>,
    /// Internal or external.
    pub(super) scope: Scope,
    /// How its traffic is to be forwarded.
    pub(super) forwarding: ForwardingMode,
}

/// Reads a Service's annotations. What cannot be understood counts as not said, and the first such
/// thing is told in `request.invalid`.
pub(super) fn read(meta: &ObjectMeta, spec: &ServiceSpec) -> Asked {
    let mut invalid = None;
    let pool = noted(
        &mut invalid,
        one_of(meta, annotations::POOL, annotations::METALLB_POOL),
    );
    let addresses = noted(&mut invalid, addresses(meta, spec));
    let sharing_key = noted(
        &mut invalid,
        one_of(
            meta,
            annotations::SHARING_KEY,
            annotations::METALLB_SHARING_KEY,
        ),
    );
    let scope = noted(&mut invalid, scope(meta));
    let forwarding = noted(&mut invalid, forwarding(meta));
    Asked {
        request: Request {
            pool: pool.map(PoolName::from),
            addresses,
            invalid: invalid.map(Arc::from),
        },
        sharing_key: sharing_key.map(Arc::from),
        scope,
        forwarding,
    }
}

/// The value, or the default for one that makes no sense, which is then noted unless something was
/// before.
fn noted<T: Default>(invalid: &mut Option<String>, result: Result<T, String>) -> T {
    result.unwrap_or_else(|sentence| {
        invalid.get_or_insert(sentence);
        T::default()
    })
}

/// The annotations of a Service that have an older form of the name, each with the one to write.
pub fn deprecated_annotations(service: &Service) -> Vec<(&'static str, &'static str)> {
    [
        (annotations::METALLB_POOL, annotations::POOL),
        (annotations::METALLB_ADDRESSES, annotations::ADDRESSES),
        (annotations::METALLB_SHARING_KEY, annotations::SHARING_KEY),
    ]
    .into_iter()
    .map(|([_newer, oldest], ours)| (oldest, ours))
    .filter(|(oldest, _)| meta::annotation(&service.metadata, oldest).is_some())
    .collect()
}

/// The annotations of one meaning that are set: ours first.
fn set<'a>(
    meta: &'a ObjectMeta,
    ours: &'static str,
    metallb: [&'static str; 2],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let [newer, older] = metallb;
    [ours, newer, older]
        .into_iter()
        .filter_map(|key| Some((key, meta::annotation(meta, key)?)))
}

fn differ(first: (&str, &str), second: (&str, &str)) -> String {
    let ((first, first_value), (second, second_value)) = (first, second);
    format!(
        "annotations {first} ({first_value:?}) and {second} ({second_value:?}) differ; remove one"
    )
}

/// The one value of annotations that mean the same.
fn one_of<'a>(
    meta: &'a ObjectMeta,
    ours: &'static str,
    metallb: [&'static str; 2],
) -> Result<Option<&'a str>, String> {
    let mut found = set(meta, ours, metallb);
    let Some(first) = found.next() else {
        return Ok(None);
    };
    match found.find(|other| other.1 != first.1) {
        Some(other) => Err(differ(first, other)),
        None => Ok(Some(first.1)),
    }
}

fn addresses(meta: &ObjectMeta, spec: &ServiceSpec) -> Result<Vec<IpAddr>, String> {
    let mut found = set(meta, annotations::ADDRESSES, annotations::METALLB_ADDRESSES);
    let first = found.next();
    let field = spec
        .load_balancer_ip
        .as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty());
    match (first, field) {
        (None, None) => Ok(Vec::new()),
        (None, Some(text)) => list("spec.loadBalancerIP", text),
        (Some((key, _)), Some(text)) => Err(format!(
            "annotation {key} and spec.loadBalancerIP ({text:?}) are both set; remove one"
        )),
        (Some(first), None) => {
            let wanted = annotated(first)?;
            let as_set = |list: &[IpAddr]| list.iter().copied().collect::<BTreeSet<_>>();
            for other in found {
                if as_set(&annotated(other)?) != as_set(&wanted) {
                    return Err(differ(first, other));
                }
            }
            Ok(wanted)
        }
    }
}

fn annotated((key, text): (&str, &str)) -> Result<Vec<IpAddr>, String> {
    list(&format!("annotation {key}"), text)
}

/// Addresses separated by commas, at most one of each family.
fn list(place: &str, text: &str) -> Result<Vec<IpAddr>, String> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for entry in text.split(',').map(str::trim) {
        let address = entry
            .parse::<IpAddr>()
            .map_err(|_not_one| {
                format!("{place} has {entry:?}; expected an IP address, or one of each family separated by a comma")
            })?
            .to_canonical();
        let family = Family::of(address);
        if addresses.iter().any(|other| Family::of(*other) == family) {
            return Err(format!(
                "{place} has more than one {family} address; expected at most one of each family"
            ));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn scope(meta: &ObjectMeta) -> Result<Scope, String> {
    if let Some(value) = meta::annotation(meta, annotations::SCOPE) {
        return if value.eq_ignore_ascii_case("internal") {
            Ok(Scope::Internal)
        } else if value.eq_ignore_ascii_case("external") {
            Ok(Scope::External)
        } else {
            Err(format!(
                "annotation {} is {value:?}; expected internal or external",
                annotations::SCOPE
            ))
        };
    }
    let internal = annotations::VENDOR_INTERNAL
        .iter()
        .any(|(key, when)| meta::annotation(meta, key).is_some_and(|value| when.holds(value)));
    Ok(if internal {
        Scope::Internal
    } else {
        Scope::External
    })
}

fn forwarding(meta: &ObjectMeta) -> Result<ForwardingMode, String> {
    const MODES: [ForwardingMode; 5] = [
        ForwardingMode::Auto,
        ForwardingMode::Pod,
        ForwardingMode::Dsr,
        ForwardingMode::NodePort,
        ForwardingMode::Off,
    ];
    let Some(value) = meta::annotation(meta, annotations::FORWARDING) else {
        return Ok(ForwardingMode::default());
    };
    MODES
        .into_iter()
        .find(|mode| value.eq_ignore_ascii_case(mode.as_str()))
        .ok_or_else(|| {
            format!(
                "annotation {} is {value:?}; expected auto, pod, dsr, nodeport or off",
                annotations::FORWARDING
            )
        })
}
