//! The root's files: made once, kept secret, refused when anything about them is wrong.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rstest::rstest;
use tempfile::TempDir;
use weft_identity::signer::{DEFAULT_ROOT_TTL, RootMaterial};
use weft_model::SpiffeId;

use super::*;

fn now() -> SystemTime {
    SystemTime::now()
}

fn start(state_dir: &Path) -> Result<Signer, RootError> {
    load(state_dir, &RootSource::Own, "cluster.local", LeafLifetime::default(), now())
}

fn mode(path: &Path) -> u32 {
    mode_of(path).unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_root_is_made_once_and_found_again() {
    let home = TempDir::new().unwrap();
    let state = home.path().join("not/there/yet");
    let first = start(&state).unwrap();
    assert_eq!((mode(&state.join("ca")), mode(&state.join("ca/root.pem"))), (0o700, 0o600));
    assert_eq!(mode(&state.join("root-cert.pem")), 0o644);
    let public = fs::read_to_string(state.join("root-cert.pem")).unwrap();
    assert_eq!(public, first.roots().to_pem());
    assert!(!public.contains("PRIVATE"));
    let secret = fs::read(state.join("ca/root.pem")).unwrap();

    fs::write(state.join("root-cert.pem"), "damaged").unwrap();
    let second = start(&state).unwrap();
    assert_eq!(second.roots(), first.roots());
    assert_eq!(fs::read(state.join("ca/root.pem")).unwrap(), secret);
    assert_eq!(fs::read_to_string(state.join("root-cert.pem")).unwrap(), public, "written anew at each start");
    let left: Vec<_> = fs::read_dir(state.join("ca")).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file stays: {left:?}");
    let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
    assert!(second.issue(&id, None, now()).is_ok());
    let ten_years = Duration::from_secs(10 * 365 * 24 * 3600 - 60);
    assert!(first.validity().remaining(now()) > ten_years);
}

#[test]
fn a_root_that_a_second_server_made_meanwhile_stays() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("root.pem");
    create(&path, b"first").unwrap();
    create(&path, b"late").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file stays");
}

#[rstest]
#[case::file("ca/root.pem", 0o644)]
#[case::file_group("ca/root.pem", 0o640)]
#[case::directory("ca", 0o755)]
fn a_readable_secret_is_refused(#[case] path: &str, #[case] bad: u32) {
    let home = TempDir::new().unwrap();
    start(home.path()).unwrap();
    set_mode(&home.path().join(path), bad);
    let error = start(home.path()).unwrap_err();
    assert!(matches!(error, RootError::Open { mode, .. } if mode == bad), "{error}");
    assert!(error.to_string().contains("chmod"), "{error}");
}

#[rstest]
#[case::empty(|_: &str| String::new(), "CERTIFICATE")]
#[case::key_only(|text: &str| key_block(text), "CERTIFICATE")]
#[case::cut(|text: &str| text[..text.len() - 40].to_owned(), "PRIVATE KEY")]
fn half_a_file_is_refused_and_kept(#[case] damage: fn(&str) -> String, #[case] missing_block: &str) {
    let home = TempDir::new().unwrap();
    start(home.path()).unwrap();
    let path = home.path().join("ca/root.pem");
    let damaged = damage(&fs::read_to_string(&path).unwrap());
    fs::write(&path, &damaged).unwrap();
    let error = start(home.path()).unwrap_err();
    assert!(matches!(&error, RootError::Half { missing, .. } if *missing == missing_block), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
}

#[test]
fn a_damaged_or_expired_root_is_refused() {
    let home = TempDir::new().unwrap();
    start(home.path()).unwrap();
    let late = now() + 2 * DEFAULT_ROOT_TTL;
    let error = load(home.path(), &RootSource::Own, "td", LeafLifetime::default(), late).unwrap_err();
    assert!(matches!(error, RootError::Unusable { .. }), "{error}");
    let path = home.path().join("ca/root.pem");
    let text = fs::read_to_string(&path).unwrap();
    let other = RootMaterial::create("td", DEFAULT_ROOT_TTL, now()).unwrap();
    fs::write(&path, format!("{}{}", other.certificate_pem, key_block(&text))).unwrap();
    let error = start(home.path()).unwrap_err();
    assert!(matches!(error, RootError::Unusable { .. }), "{error}");
}

#[test]
fn an_unusable_state_directory_is_named() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = start(&file).unwrap_err().to_string();
    assert!(error.contains("file") && error.contains("--state-dir"), "{error}");
    assert!(start(&file.join("below")).unwrap_err().to_string().contains("--state-dir"));
}

#[test]
fn a_given_root_is_used_and_must_be_secret() {
    let home = TempDir::new().unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| home.path().join(name));
    let root = RootMaterial::create("cluster.local", DEFAULT_ROOT_TTL, now()).unwrap();
    fs::write(&certificate, &root.certificate_pem).unwrap();
    fs::write(&key, root.key_pem.as_bytes()).unwrap();
    let source = RootSource::Given { certificate: certificate.clone(), key: key.clone(), more_roots: None };
    let state = home.path().join("state");
    let load = || load(&state, &source, "cluster.local", LeafLifetime::default(), now());
    set_mode(&key, 0o644);
    assert!(matches!(load(), Err(RootError::Open { .. })));
    set_mode(&key, 0o440);
    let signer = load().unwrap();
    assert_eq!(fs::read_to_string(state.join("root-cert.pem")).unwrap(), signer.roots().to_pem());
    assert!(!state.join("ca").exists(), "no root of our own beside a given one");
    fs::remove_file(&certificate).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("tls.crt"), "{error}");
}
