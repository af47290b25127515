//! Label selectors (`metav1.LabelSelector`).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fields::At;

/// Which labels are meant. All conditions must hold; without any it selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Selector {
    /// Labels with these values.
    pub labels: BTreeMap<String, String>,
    /// Further conditions.
    pub expressions: Vec<Expression>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expression {
    /// The label's key.
    pub key: String,
    /// What must hold for its value.
    pub operator: Operator,
    /// The values to compare with.
    pub values: Vec<String>,
}

/// How a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Operator {
    /// The value is one of these.
    In,
    /// It is none of these, or the label is absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Selector {
    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        contains(labels, &self.labels) && self.expressions.iter().all(|expression| expression.holds(labels))
    }
}

impl Expression {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// Whether `labels` has all of `wanted`.
#[must_use]
pub(crate) fn contains(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

pub(super) fn read(at: &At<'_>) -> Selector {
    at.only(&["matchLabels", "matchExpressions"]);
    let operators = [
        ("In", Operator::In),
        ("NotIn", Operator::NotIn),
        ("Exists", Operator::Exists),
        ("DoesNotExist", Operator::DoesNotExist),
    ];
    let mut expressions = Vec::new();
    for item in at.field("matchExpressions").items() {
        item.only(&["key", "operator", "values"]);
        let key = item.field("key").required_text().to_owned();
        let operator = item.field("operator");
        operator.required_text();
        let values: Vec<String> = item.field("values").items().iter().map(At::owned_text).collect();
        let Some(operator) = operator.word(&operators) else { continue };
        let wants_values = matches!(operator, Operator::In | Operator::NotIn);
        if wants_values == values.is_empty() {
            let expected = if wants_values { "at least one value" } else { "no values" };
            item.field("values").error(format!("does not fit the operator; expected {expected}"));
        }
        expressions.push(Expression { key, operator, values });
    }
    Selector { labels: at.field("matchLabels").texts(), expressions }
}
