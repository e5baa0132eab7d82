//! Label selectors, with the meaning Kubernetes gives them.

use std::collections::BTreeMap;
use std::fmt;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A label selector: all requirements must hold. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// The requirements, `matchLabels` included as [`Operator::In`] with one value.
    pub requirements: Vec<Requirement>,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of its value.
    pub operator: Operator,
}

/// What must hold of a label's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label is present with one of these values.
    In(Vec<String>),
    /// The label is absent, or has none of these values.
    NotIn(Vec<String>),
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Selector {
    /// A selector for one label with one value.
    pub fn label(key: &str, value: &str) -> Self {
        Self {
            requirements: vec![Requirement {
                key: key.to_owned(),
                operator: Operator::In(vec![value.to_owned()]),
            }],
        }
    }

    /// Whether the labels meet every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

/// As `kubectl --selector` takes it; one that matches everything is `*`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("*");
        }
        for (place, requirement) in self.requirements.iter().enumerate() {
            let separator = if place == 0 { "" } else { "," };
            let key = &requirement.key;
            match &requirement.operator {
                Operator::In(values) if values.len() == 1 => {
                    write!(f, "{separator}{key}={}", values.join(","))?;
                }
                Operator::In(values) => write!(f, "{separator}{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => {
                    write!(f, "{separator}{key} notin ({})", values.join(","))?;
                }
                Operator::Exists => write!(f, "{separator}{key}")?,
                Operator::DoesNotExist => write!(f, "{separator}!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_as_kubectl_takes_it() {
        let requirement = |key: &str, operator| Requirement {
            key: key.to_owned(),
            operator,
        };
        let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        let selector = Selector {
            requirements: vec![
                requirement("tier", Operator::In(values(&["db"]))),
                requirement("zone", Operator::In(values(&["a", "b"]))),
                requirement("env", Operator::NotIn(values(&["test"]))),
                requirement("web", Operator::Exists),
                requirement("old", Operator::DoesNotExist),
            ],
        };
        assert_eq!(
            selector.to_string(),
            "tier=db,zone in (a,b),env notin (test),web,!old"
        );
        assert_eq!(Selector::default().to_string(), "*");
    }

    #[test]
    fn every_operator_treats_an_absent_label_as_kubernetes_does() {
        let with = |operator| Selector {
            requirements: vec![Requirement {
                key: "tier".into(),
                operator,
            }],
        };
        let labels = |tier: Option<&str>| -> Labels {
            tier.map(|tier| ("tier".to_owned(), tier.to_owned()))
                .into_iter()
                .collect()
        };
        let cases = [
            (with(Operator::In(vec!["db".into()])), [true, false, false]),
            (
                with(Operator::NotIn(vec!["db".into()])),
                [false, true, true],
            ),
            (with(Operator::Exists), [true, true, false]),
            (with(Operator::DoesNotExist), [false, false, true]),
            (Selector::default(), [true, true, true]),
        ];
        for (selector, expected) in cases {
            let got = [Some("db"), Some("web"), None].map(|tier| selector.matches(&labels(tier)));
            assert_eq!(got, expected, "{selector:?}");
        }
    }
}
