//! Label selectors, with the meaning Kubernetes gives them.

use std::collections::BTreeMap;

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

#[cfg(test)]
mod tests {
    use super::*;

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
