//! Label selectors.

use herald_model::{Operator, Requirement, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Why a label selector cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// The operator is none of the four.
    #[error(
        "matchExpressions on {key:?} has operator {operator:?}; expected In, NotIn, Exists or DoesNotExist"
    )]
    Operator {
        /// The label.
        key: String,
        /// What was given.
        operator: String,
    },
    /// `In` and `NotIn` compare with nothing.
    #[error("matchExpressions on {key:?} has operator {operator} and no values")]
    NoValues {
        /// The label.
        key: String,
        /// Which of the two.
        operator: String,
    },
    /// `Exists` and `DoesNotExist` compare with something.
    #[error("matchExpressions on {key:?} has operator {operator}, which takes no values")]
    Values {
        /// The label.
        key: String,
        /// Which of the two.
        operator: String,
    },
}

impl InvalidSelector {
    /// A word for metrics and Events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Operator { .. } => "selector_operator",
            Self::NoValues { .. } | Self::Values { .. } => "selector_values",
        }
    }
}

/// The selector, with `matchLabels` as requirements.
///
/// # Errors
///
/// Every variant of [`InvalidSelector`].
pub fn selector(selector: &LabelSelector) -> Result<Selector, InvalidSelector> {
    let labels = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.clone()]),
        });
    let expressions = selector.match_expressions.iter().flatten().map(requirement);
    Ok(Selector {
        requirements: labels
            .map(Ok)
            .chain(expressions)
            .collect::<Result<_, _>>()?,
    })
}

fn requirement(expression: &LabelSelectorRequirement) -> Result<Requirement, InvalidSelector> {
    let LabelSelectorRequirement {
        key,
        operator,
        values,
    } = expression;
    let values = values.as_deref().unwrap_or_default();
    let (key, operator) = (key.clone(), operator.clone());
    let operator = match (operator.as_str(), values) {
        ("In" | "NotIn", []) => return Err(InvalidSelector::NoValues { key, operator }),
        ("In", values) => Operator::In(values.to_vec()),
        ("NotIn", values) => Operator::NotIn(values.to_vec()),
        ("Exists", []) => Operator::Exists,
        ("DoesNotExist", []) => Operator::DoesNotExist,
        ("Exists" | "DoesNotExist", _) => return Err(InvalidSelector::Values { key, operator }),
        _ => return Err(InvalidSelector::Operator { key, operator }),
    };
    Ok(Requirement { key, operator })
}

/// Selectors of one list; the error comes with the place in it.
pub(crate) fn selectors(
    selectors: &[LabelSelector],
) -> Result<Vec<Selector>, (usize, InvalidSelector)> {
    selectors
        .iter()
        .enumerate()
        .map(|(place, object)| selector(object).map_err(|error| (place, error)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(ToString::to_string).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        let mut object = expression("tier", "NotIn", &["db"]);
        object.match_labels = Some([("app".to_owned(), "web".to_owned())].into());
        let selector = selector(&object).unwrap();
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        assert!(selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "db")])));
        assert!(!selector.matches(&labels(&[("tier", "web")])));
    }

    #[test]
    fn the_empty_selector_matches_everything() {
        assert_eq!(selector(&LabelSelector::default()), Ok(Selector::default()));
    }

    #[test]
    fn refusals_name_the_label_and_the_operator() {
        for (object, expected) in [
            (
                expression("tier", "Is", &["db"]),
                "matchExpressions on \"tier\" has operator \"Is\"; expected In, NotIn, Exists or DoesNotExist",
            ),
            (
                expression("tier", "In", &[]),
                "matchExpressions on \"tier\" has operator In and no values",
            ),
            (
                expression("tier", "Exists", &["db"]),
                "matchExpressions on \"tier\" has operator Exists, which takes no values",
            ),
        ] {
            assert_eq!(selector(&object).unwrap_err().to_string(), expected);
        }
    }
}
