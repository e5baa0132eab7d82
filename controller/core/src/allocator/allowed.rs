//! Which Services a pool serves.

use herald_model::{Allowed, Selector};

use super::Ask;

/// What a pool allows only, in words that fit after "allows only"; `None`: it allows the asker.
///
/// (namespaces ∪ namespace selectors) ∩ service selectors; a part that is empty allows all.
pub(super) fn limit(allowed: &Allowed, ask: Ask<'_>) -> Option<String> {
    let namespace = &ask.service.key.namespace;
    let anywhere = allowed.namespaces.is_empty() && allowed.namespace_selectors.is_empty();
    let here = || {
        allowed.namespaces.contains(namespace)
            || allowed
                .namespace_selectors
                .iter()
                .any(|selector| ask.namespace.is_some_and(|labels| selector.matches(labels)))
    };
    if !anywhere && !here() {
        let named = allowed.namespaces.iter().map(ToString::to_string);
        let selected = allowed.namespace_selectors.iter().map(labelled);
        let all: Vec<String> = named.chain(selected).collect();
        return Some(format!(
            "namespaces {}, and {namespace} is none of them",
            any_of(&all)
        ));
    }
    let selectors = &allowed.service_selectors;
    let selected = |selector: &Selector| selector.matches(&ask.service.labels);
    if selectors.is_empty() || selectors.iter().any(selected) {
        return None;
    }
    let all: Vec<String> = selectors.iter().map(labelled).collect();
    Some(format!("Services {}", any_of(&all)))
}

fn labelled(selector: &Selector) -> String {
    format!("with labels {selector}")
}

/// The first few: a condition's message is for people.
fn any_of(all: &[String]) -> String {
    const IN_FULL: usize = 4;
    let more = match all.len().saturating_sub(IN_FULL) {
        0 => String::new(),
        more => format!(" or {more} more"),
    };
    let full: Vec<&str> = all.iter().take(IN_FULL).map(String::as_str).collect();
    full.join(" or ") + &more
}
