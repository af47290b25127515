//! Step 4: an AuthorizationPolicy. Who is not named is refused with a reason; the others go on.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_model::reason::Reason;
use weft_testkit::wait;

use crate::demo::claim::Claim;
use crate::demo::show::Show;
use crate::demo::stage::Stage;

/// From the file to the enforced policy; usually well under a second.
const SPREAD: Duration = Duration::from_secs(10);

/// Only the service account of the web pods may reach the cart.
const POLICY: &str = "apiVersion: weft.dev/v1alpha1
kind: AuthorizationPolicy
metadata:
  name: cart-from-web
  namespace: shop
spec:
  targetRefs:
  - {group: \"\", kind: Pod, selector: {matchLabels: {app: cart}}}
  action: Allow
  rules:
  - from:
    - serviceAccounts: [\"shop/web\"]
";

pub(super) fn act(stage: &mut Stage, show: &Show) -> Result<Vec<Claim>> {
    let url = format!("http://{}/cart/none", stage.floor.cart.at(false));
    let (before, words) = stage.curl(&stage.floor.visitor, &url)?;
    show.say(&format!("before: a visitor's curl {url} is answered: {words}"));
    let start = stage.moment()?;
    let busy = show.busy("kubectl apply -f cart-from-web.yaml");
    stage.cluster.directory().apply_yaml("policy-cart-from-web", POLICY)?;
    let refused = wait::eventually(SPREAD, "a refusal for the visitor", || {
        let (exit, words) = stage.curl(&stage.floor.visitor, &url)?;
        ensure!(exit != 0, "still answered: {words}");
        anyhow::Ok(words)
    });
    drop(busy);
    let code = Reason::PolicyNotAllowed.code();
    let named = wait::eventually(SPREAD, "the refusal in the list", || named(stage, code));
    show.say("weft connections --denied:");
    show.quote(named.as_deref().unwrap_or("(nothing)"));
    show.say(&format!("weft why {code}:"));
    show.quote(&stage.weft(1, &["why", code])?);
    stage.trade(2)?;
    Ok(vec![
        Claim::new("before the policy the visitor is answered", before == 0, words),
        Claim::of("the visitor's call now fails", refused),
        Claim::of(
            format!("the refusal has its reason, {code}"),
            named.map(|lines| format!("{} lines", lines.lines().count())),
        ),
        stage.nothing_failed("the allowed calls go on", &start)?,
    ])
}

/// Lines of both nodes that name the code. The list is written a moment after the refusal.
fn named(stage: &Stage, code: &str) -> Result<String> {
    let mut lines = Vec::new();
    for node in [1, 2] {
        let denied = stage.weft(node, &["connections", "--denied"])?;
        lines.extend(denied.lines().filter(|line| line.contains("visitor") && line.contains(code)).map(str::to_owned));
    }
    ensure!(!lines.is_empty(), "no line names {code}");
    Ok(lines.join("\n"))
}
