//! Typed access to the fields of a document that keeps the path and collects every fault, not only the first.
//!
//! Like Kubernetes, a field that is `null` is an absent field.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_yaml::Value;

use crate::finding::Severity;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) field: String,
    pub(crate) text: String,
}

/// The faults of one document, in the order of reading.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: RefCell<Vec<Problem>>,
    /// Fields that are not known are no problem.
    takes_unknown: bool,
}

impl Problems {
    /// For objects of an API server, which has dropped what it does not know itself.
    pub(crate) fn of_a_server() -> Self {
        Self { takes_unknown: true, ..Self::default() }
    }

    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.found.into_inner()
    }

    fn push(&self, severity: Severity, field: &str, text: String) {
        let problem = Problem { severity, field: field.to_owned(), text };
        let mut list = self.found.borrow_mut();
        // A mapping that is none is met once for each of its fields.
        if !list.contains(&problem) {
            list.push(problem);
        }
    }
}

/// A place in a document: a value (or its absence) and the way to it.
#[derive(Debug, Clone)]
pub(crate) struct At<'a> {
    value: Option<&'a Value>,
    path: String,
    problems: &'a Problems,
}

impl<'a> At<'a> {
    pub(crate) fn root(value: &'a Value, problems: &'a Problems) -> Self {
        Self { value: Some(value), path: String::new(), problems }
    }

    /// Reports a fault of this place; the document is refused.
    pub(crate) fn error(&self, text: impl Into<String>) {
        self.problems.push(Severity::Error, &self.path, text.into());
    }

    /// Reports something doubtful; the document is taken.
    pub(crate) fn warning(&self, text: impl Into<String>) {
        self.problems.push(Severity::Warning, &self.path, text.into());
    }

    pub(crate) fn is_present(&self) -> bool {
        self.value.is_some()
    }

    /// The field of a mapping; absent when this place is absent.
    pub(crate) fn field(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let value = match self.value {
            Some(Value::Mapping(fields)) => fields.get(name).filter(|value| !value.is_null()),
            Some(_) => {
                self.error(self.expected("a mapping"));
                None
            }
            None => None,
        };
        Self { value, path, problems: self.problems }
    }

    /// The items of a list; none when absent.
    pub(crate) fn items(&self) -> Vec<Self> {
        match self.value {
            None => Vec::new(),
            Some(Value::Sequence(items)) => {
                let item = |(index, value)| Self {
                    value: Some(value),
                    path: format!("{}[{index}]", self.path),
                    problems: self.problems,
                };
                items.iter().enumerate().map(item).collect()
            }
            Some(_) => {
                self.error(self.expected("a list"));
                Vec::new()
            }
        }
    }

    /// As [`items`](Self::items), but a list that is written down must not be empty: an empty list of conditions could
    /// be meant as "nobody" or as "everybody".
    pub(crate) fn filled_items(&self) -> Vec<Self> {
        let items = self.items();
        if items.is_empty() && matches!(self.value, Some(Value::Sequence(_))) {
            self.error("an empty list can be read in two ways; expected at least one entry, or the field left out");
        }
        items
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match self.value {
            None => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.error(self.expected("a text"));
                None
            }
        }
    }

    pub(crate) fn owned_text(&self) -> String {
        self.text().unwrap_or_default().to_owned()
    }

    /// The text, which must be there and not empty.
    pub(crate) fn required_text(&self) -> &'a str {
        match (self.value, self.text()) {
            (_, Some(text)) if !text.is_empty() => text,
            (Some(Value::String(_)) | None, _) => {
                self.error("is missing; expected a text");
                ""
            }
            _ => "",
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.value {
            None => None,
            Some(Value::Bool(value)) => Some(*value),
            Some(_) => {
                self.error(self.expected("true or false"));
                None
            }
        }
    }

    /// A whole number from 0, where machines write it: anything else counts as absent.
    pub(crate) fn count(&self) -> Option<u64> {
        self.value?.as_u64()
    }

    /// A port number, 1 to 65535.
    pub(crate) fn port(&self) -> Option<u16> {
        let value = self.value?;
        let port = value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
        if port.is_none() {
            self.error(self.expected("a port number from 1 to 65535"));
        }
        port
    }

    /// A port number or a port's name.
    pub(crate) fn port_or_name(&self) -> Option<Result<u16, &'a str>> {
        match self.value {
            Some(Value::String(name)) if !name.is_empty() => Some(Err(name)),
            Some(Value::String(_)) | None => None,
            Some(_) => self.port().map(Ok),
        }
    }

    /// An IP address; IPv6 as Kubernetes writes it, without brackets or zone.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let text = self.text()?;
        let address = text.parse().ok();
        if address.is_none() {
            self.error(format!("is '{text}'; expected an IP address"));
        }
        address
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let expected: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(format!("is '{text}'; expected {}", alternatives(&expected)));
        }
        found
    }

    /// A mapping from text to text: labels, annotations, selectors.
    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        match self.value {
            None => {}
            Some(Value::Mapping(fields)) => {
                for name in fields.keys() {
                    let Some(name) = name.as_str() else {
                        self.error("has a key that is not a text; put it in quotes");
                        continue;
                    };
                    // A null is the empty text here, as in Kubernetes.
                    texts.insert(name.to_owned(), self.field(name).owned_text());
                }
            }
            Some(_) => self.error(self.expected("a mapping from text to text")),
        }
        texts
    }

    /// Refuses every field that is not in the list.
    pub(crate) fn only(&self, known: &[&str]) {
        self.each_unknown(known, |_, _| true);
    }

    /// Refuses unknown fields that look like a misspelt one of `read`. For parts that machines write and that grow with
    /// the versions of Kubernetes.
    pub(crate) fn no_misspelt(&self, read: &[&str]) {
        self.each_unknown(read, |name, known| similar(name, known).is_some());
    }

    fn each_unknown(&self, known: &[&str], refuse: impl Fn(&str, &[&str]) -> bool) {
        let fields = match self.value {
            None => return,
            Some(Value::Mapping(fields)) => fields,
            Some(_) => return self.error(self.expected("a mapping")),
        };
        if self.problems.takes_unknown {
            return;
        }
        for name in fields.keys() {
            match name.as_str() {
                None => self.error("has a key that is not a text"),
                Some(name) if known.contains(&name) || !refuse(name, known) => {}
                Some(name) => {
                    let hint = match similar(name, known) {
                        Some(meant) => format!("unknown field; did you mean '{meant}'?"),
                        None => format!("unknown field; expected {}", alternatives(known)),
                    };
                    self.field_path_error(name, hint);
                }
            }
        }
    }

    fn field_path_error(&self, name: &str, text: String) {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        self.problems.push(Severity::Error, &path, text);
    }

    fn expected(&self, what: &str) -> String {
        let is = match self.value {
            None | Some(Value::Null) => "nothing".to_owned(),
            Some(Value::Bool(value)) => format!("the boolean {value}"),
            Some(Value::Number(number)) => format!("the number {number}"),
            Some(Value::String(text)) => format!("the text '{text}'"),
            Some(Value::Sequence(_)) => "a list".to_owned(),
            Some(Value::Mapping(_)) => "a mapping".to_owned(),
            Some(Value::Tagged(_)) => "a tagged value".to_owned(),
        };
        format!("is {is}; expected {what}")
    }
}

/// `a, b or c`.
fn alternatives(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// The known word that was probably meant: equal but for case, the same letters in another order, or at most two edits away.
fn similar<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let letters = |word: &str| {
        let mut bytes = word.to_lowercase().into_bytes();
        bytes.sort_unstable();
        bytes
    };
    let distance_of = |candidate: &&&str| {
        if letters(word) == letters(candidate) {
            return usize::from(!word.eq_ignore_ascii_case(candidate));
        }
        distance(&word.to_lowercase(), &candidate.to_lowercase())
    };
    let nearest = known.iter().min_by_key(distance_of)?;
    let limit = if nearest.len() < 5 { 1 } else { 2 };
    (distance_of(&nearest) <= limit).then_some(*nearest)
}

/// Levenshtein distance in bytes.
fn distance(left: &str, right: &str) -> usize {
    // Field names are short; a long word is not a misspelt one, and must not cost quadratic time.
    const LONGEST: usize = 64;
    if left.len() > LONGEST || right.len() > LONGEST {
        return LONGEST;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}
