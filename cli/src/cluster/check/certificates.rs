//! Certificates: what signs them, a rotation that is under way, and those of workloads. Pure.

use std::time::{Duration, SystemTime};

use weft_model::view::CertificateRow;

use super::finding::Finding;
use super::plane::configs;
use super::seen::Seen;
use crate::cluster::rotate::{is_overdue, is_under_way, words};
use crate::output;

const PLACE: &str = "root";
/// A root that ends within this, in seconds, is to be rotated now: a month leaves time for nodes that are away.
const SOON: i64 = 30 * 24 * 3600;
/// The same of a root that somebody else rotates by itself, in seconds: a rotation takes two and a half hours.
const SOON_GIVEN: i64 = 3 * 3600;

/// What is said of the root.
#[must_use]
pub fn findings(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let given = matches!(&seen.rotation, Ok(Some(rotation)) if rotation.given);
    if let Some(end) = configs(seen).filter_map(|config| config.signs_until).min() {
        findings.push(root(end - seconds(seen.now), given));
    }
    match &seen.rotation {
        Ok(Some(rotation)) if is_overdue(rotation, seen.now) => {
            findings.push(Finding::warning(PLACE, words(rotation, seen.now), "weft certs rotate --status"));
        }
        Ok(Some(rotation)) if is_under_way(rotation) => findings.push(Finding::note(PLACE, words(rotation, seen.now))),
        Ok(Some(rotation)) => findings.push(Finding::ok(PLACE, words(rotation, seen.now))),
        Ok(None) => {
            findings.push(Finding::note(PLACE, "is not in a Secret of Weft: whoever gives it (--ca-cert) rotates it"))
        }
        Err(why) => findings.push(Finding::note(PLACE, format!("a rotation under way could not be looked for: {why}"))),
    }
    findings
}

fn root(left: i64, given: bool) -> Finding {
    let fix = if given {
        "whoever writes tls.crt of the Secret weft-ca renews it, for cert-manager: cmctl renew -n weft-system CERTIFICATE"
    } else {
        "weft certs rotate"
    };
    let soon = if given { SOON_GIVEN } else { SOON };
    match left {
        ..=0 => Finding::error(PLACE, "what signs certificates is over: no node gets one any more", fix),
        left if left < soon => Finding::warning(PLACE, format!("what signs certificates ends in {}", time(left)), fix),
        left => Finding::ok(PLACE, format!("what signs certificates ends in {}", time(left))),
    }
}

/// What is said of the certificates of a node's workloads. They are renewed at the middle of their lives: one that has less than a quarter
/// left was tried again and again.
#[must_use]
pub fn leaves(rows: &[CertificateRow], now: SystemTime, place: &str) -> Vec<Finding> {
    let now = seconds(now);
    let mut findings: Vec<Finding> = rows.iter().filter_map(|row| leaf(row, now, place)).collect();
    let first = rows.iter().filter(|row| row.not_after > now).map(|row| row.not_after - now).min();
    if let (true, Some(first)) = (findings.is_empty(), first) {
        let count = match rows.len() {
            1 => "1 certificate, ends".to_owned(),
            count => format!("{count} certificates, the first ends"),
        };
        findings.push(Finding::ok(place, format!("{count} in {}", time(first))));
    }
    findings
}

fn leaf(row: &CertificateRow, now: i64, place: &str) -> Option<Finding> {
    let identity = output::identity(&row.identity);
    let why = row.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    let fix = "kubectl -n weft-system logs -l app=weft-xds-server --tail=50; weft why no-certificate";
    let left = row.not_after - now;
    match row {
        row if row.not_after == 0 => {
            Some(Finding::error(place, format!("no certificate yet for {identity}{why}"), fix))
                .filter(|_| row.last_error.is_some())
        }
        _ if left <= 0 => Some(Finding::error(place, format!("the certificate of {identity} is over{why}"), fix)),
        row if left < (row.not_after - row.not_before) / 4 => Some(Finding::warning(
            place,
            format!("the certificate of {identity} ends in {}, and was not renewed{why}", time(left)),
            fix,
        )),
        _ => None,
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// In two units: `9years 11months`, `42m 10s`.
fn time(seconds: i64) -> String {
    let whole = humantime::format_duration(Duration::from_secs(seconds.unsigned_abs())).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
