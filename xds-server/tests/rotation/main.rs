//! Replicas of the control plane that share the root of a Secret, and rotate it together: with real files, clocks and connections, and an
//! API server of our own.

#![expect(clippy::unwrap_used, reason = "a test dies of what it did not expect")]

mod api;
mod replica;

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use weft_identity::Credentials;
use weft_identity::signer::{DEFAULT_ROOT_TTL, RootMaterial};
use weft_identity::verify::{Usage, unix_time, verify_chain};
use weft_kubernetes::rotation::{RootSecret, Rotation, Step};

use crate::api::{Api, NAMESPACE, PODS, SECRET};
use crate::replica::{Replica, encoded};

/// Some times what a rotation takes here, on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(60);
/// A CA as cert-manager makes one with `privateKey.algorithm: RSA` and its default encoding: `openssl req -x509 -newkey rsa:2048 -nodes
/// -subj /CN=given -days 36500 -addext keyUsage=critical,keyCertSign,cRLSign`, the key through `openssl rsa -traditional`.
const RSA: (&str, &str) = (include_str!("data/rsa.crt"), include_str!("data/rsa.key"));

fn root() -> RootMaterial {
    RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, SystemTime::now()).unwrap()
}

fn rotation(api: &Api) -> Rotation {
    Rotation::read(&serde_json::from_value(api.get(SECRET)["metadata"]["annotations"].clone()).unwrap_or_default())
}

/// Whether the one takes the other's certificate, at either end of a connection.
fn accepts(one: &Credentials, other: &Credentials, now: SystemTime) -> bool {
    let (leaf, more) = other.chain().split_first().unwrap();
    let check = |usage| verify_chain(one.roots(), leaf, more, usage, unix_time(now)).is_ok();
    check(Usage::Client) && check(Usage::Server)
}

/// Issues with every replica and holds all that is valid against each other, until `done`.
async fn until(replicas: &[&Replica], alive: &mut Vec<Credentials>, what: &str, mut done: impl FnMut() -> bool) {
    let begin = tokio::time::Instant::now();
    while !done() {
        assert!(begin.elapsed() < DEADLINE, "{what}: not in time");
        alive.extend(replicas.iter().map(|replica| replica.issue()));
        let now = SystemTime::now();
        alive.retain(|credentials| credentials.validity().contains(now));
        for one in alive.iter().rev().take(replicas.len()) {
            for other in alive.iter() {
                assert!(accepts(one, other, now) && accepts(other, one, now), "{what}: one refuses another");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn replicas_rotate_together_and_whoever_is_valid_is_accepted_whoever_leads() {
    let api = Api::start().await;
    let (mut a, b) = (Replica::start(&api, "a").await, Replica::start(&api, "b").await);
    let first = a.root();
    assert_eq!(b.root(), first, "one of them made it, the other took it");
    // A replica of an older version, say, that says nothing.
    api.pod("mute");
    let secret = RootSecret::new(api.client().await, NAMESPACE);
    let (said, version) = secret.look().await.unwrap().unwrap();
    assert_eq!(said, Rotation::default());
    assert!(!secret.ask("1234567", SystemTime::now()).await.unwrap(), "somebody else was faster");
    assert!(secret.ask(&version, SystemTime::now()).await.unwrap());

    let mut alive = Vec::new();
    let is_step = |step, counted: bool| {
        rotation(&api).mark.is_some_and(|mark| mark.step == step && mark.counted.is_some() == counted)
    };
    until(&[&a, &b], &mut alive, "the next root", || is_step(Step::Trust, false)).await;
    until(&[&a, &b], &mut alive, "both roots", || a.roots() == 2 && b.roots() == 2).await;
    let mut looks = 0;
    until(&[&a, &b], &mut alive, "some looks of the leader", || {
        looks += 1;
        looks > 20
    })
    .await;
    assert!(is_step(Step::Trust, false), "not before every replica has it");
    assert_eq!(rotation(&api).requested, None, "asked for once");
    api.remove(&format!("{PODS}/mute"));
    until(&[&a, &b], &mut alive, "the count", || is_step(Step::Trust, true)).await;
    // The first one ends, and begins anew with nothing but the Secret.
    a.end().await;
    until(&[&b], &mut alive, "another leader", || b.leads()).await;
    a = Replica::start(&api, "a").await;
    until(&[&a, &b], &mut alive, "the new root to sign", || is_step(Step::Retire, true)).await;
    assert!(!api.get(SECRET)["data"]["old.pem"].is_null() && api.get(SECRET)["data"]["next.pem"].is_null());
    until(&[&a, &b], &mut alive, "the end", || rotation(&api).ended.is_some()).await;
    until(&[&a, &b], &mut alive, "one root", || a.roots() == 1 && b.roots() == 1).await;
    assert_eq!(a.root(), b.root());
    assert_ne!(a.root(), first);
    let left = api.get(SECRET)["data"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(left, ["root.pem"]);
}

fn tls(certificate: &str, key: &str) -> Value {
    json!({ "tls.crt": encoded(certificate), "tls.key": encoded(key), "ca.crt": encoded(certificate) })
}

#[tokio::test]
async fn a_root_that_cert_manager_writes_is_taken_and_followed_with_overlap() {
    let api = Api::start().await;
    let (first, second) = (root(), root());
    let object = |data: Value| json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": "weft-ca" }, "data": data });
    api.put(SECRET, object(tls(&first.certificate_pem, &first.key_pem)));
    let replica = Replica::start(&api, "a").await;
    assert_eq!(replica.root(), first.certificate_pem);
    let mut alive = Vec::new();
    let written = || rotation(&api).given && api.get(SECRET)["data"]["root.pem"].is_string();
    until(&[&replica], &mut alive, "the root in the Secret", written).await;
    // It renews: its own keys of the Secret, and nothing else.
    api.change(SECRET, |secret| {
        secret["metadata"]["annotations"]["weft.dev/rotate"] = "by hand".into();
        for (name, value) in tls(&second.certificate_pem, &second.key_pem).as_object().unwrap() {
            secret["data"][name] = value.clone();
        }
    });
    until(&[&replica], &mut alive, "both", || replica.roots() == 2).await;
    assert_eq!(replica.root(), first.certificate_pem, "the old one signs until everybody knows the new one");
    until(&[&replica], &mut alive, "the new one to sign", || replica.root() == second.certificate_pem).await;
    until(&[&replica], &mut alive, "the end", || rotation(&api).ended.is_some() && replica.roots() == 1).await;
    // Somebody writes the whole Secret anew, with a root of another kind.
    api.put(SECRET, object(tls(RSA.0, RSA.1)));
    until(&[&replica], &mut alive, "both", || replica.roots() == 2).await;
    assert_eq!(replica.root(), second.certificate_pem);
    assert!(api.get(SECRET)["data"]["root.pem"].is_string(), "the root that signs is in the Secret again");
}

#[tokio::test]
async fn a_root_that_was_put_into_the_secret_beforehand_is_used_as_it_is() {
    let api = Api::start().await;
    let ours = root();
    let text = format!("{}{}", &*ours.key_pem, ours.certificate_pem);
    api.put(SECRET, json!({ "metadata": { "name": "weft-ca" }, "data": { "root.pem": encoded(&text) } }));
    let (a, b) = (Replica::start(&api, "a").await, Replica::start(&api, "b").await);
    until(&[&a, &b], &mut Vec::new(), "a leader", || a.leads() || b.leads()).await;
    assert_eq!((a.root(), b.root()), (ours.certificate_pem.clone(), ours.certificate_pem.clone()));
    assert_eq!(api.get(SECRET)["data"], json!({ "root.pem": encoded(&text) }));
    // An empty one is nobody's: no root is made in its place.
    let api = Api::start().await;
    api.put(
        SECRET,
        json!({ "metadata": { "name": "weft-ca" }, "data": { "tls.crt": encoded(&ours.certificate_pem) } }),
    );
    let error = Replica::fetch(&api, tempfile::tempdir().unwrap().path()).await.unwrap_err();
    assert!(error.to_string().contains("neither 'root.pem' nor 'tls.crt' and 'tls.key'"), "{error}");
    // One that is over gives way to one that is not, also when nobody was there to rotate.
    let api = Api::start().await;
    let day = Duration::from_secs(24 * 3600);
    let over = RootMaterial::create("cluster.local", day, SystemTime::now() - 2 * day).unwrap();
    let mut data = tls(&ours.certificate_pem, &ours.key_pem);
    data["root.pem"] = encoded(&format!("{}{}", over.certificate_pem, &*over.key_pem)).into();
    api.put(SECRET, json!({ "metadata": { "name": "weft-ca" }, "data": data }));
    let replica = Replica::start(&api, "a").await;
    assert_eq!(replica.root(), ours.certificate_pem);
    until(&[&replica], &mut Vec::new(), "the root in the Secret", || rotation(&api).given).await;
    assert_eq!((replica.root(), replica.roots()), (ours.certificate_pem.clone(), 1));
    // A certificate and the key of another one change nothing.
    let api = Api::start().await;
    api.put(SECRET, json!({ "metadata": { "name": "weft-ca" }, "data": tls(RSA.0, RSA.1) }));
    let replica = Replica::start(&api, "a").await;
    until(&[&replica], &mut Vec::new(), "the root in the Secret", || rotation(&api).given).await;
    api.change(SECRET, |secret| secret["data"]["tls.crt"] = encoded(&ours.certificate_pem).into());
    let mut looks = 0;
    until(&[&replica], &mut Vec::new(), "some looks", || {
        looks += 1;
        looks > 20
    })
    .await;
    assert_eq!((replica.root(), rotation(&api).mark), (RSA.0.to_owned(), None));
}
