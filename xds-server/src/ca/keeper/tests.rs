//! A whole rotation on a clock that the test turns: what is signed and what is handed out in each step, over restarts,
//! clock steps and damaged files.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tempfile::TempDir;
use weft_identity::clock::Clock;
use weft_identity::verify::{Usage, unix_time, verify_chain};
use weft_identity::{Credentials, Roots};
use weft_model::SpiffeId;

use super::*;
use crate::ca::pair::make;
use crate::ca::rotate::begin;

const LIFE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Turned(Mutex<SystemTime>);

impl Clock for Turned {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

struct Bench {
    home: TempDir,
    clock: Arc<Turned>,
    keeper: Keeper,
    signer: Reader<Signer>,
    ticks: Duration,
}

fn settings(home: &TempDir) -> CaSettings {
    CaSettings {
        state_dir: home.path().to_owned(),
        source: RootSource::Own,
        trust_domain: "cluster.local".to_owned(),
        lifetime: LeafLifetime::up_to(LIFE),
    }
}

impl Bench {
    fn new() -> Self {
        let (home, clock) = (TempDir::new().unwrap(), Arc::new(Turned(Mutex::new(SystemTime::now()))));
        let (keeper, signer) = Keeper::open(settings(&home), clock.clone(), &Registry::new("t", "0")).unwrap();
        Self { home, clock, keeper, signer, ticks: Duration::ZERO }
    }

    /// The server is killed and comes back.
    fn restart(&mut self) {
        let opened = Keeper::open(settings(&self.home), self.clock.clone(), &Registry::new("t", "0"));
        (self.keeper, self.signer) = opened.unwrap();
        self.ticks = Duration::ZERO;
    }

    /// Time passes on all clocks, with a look each minute.
    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_secs() / 60 {
            *self.clock.0.lock().unwrap() += Duration::from_secs(60);
            self.ticks += Duration::from_secs(60);
            self.look();
        }
    }

    fn look(&mut self) {
        let now = Moment { wall: self.clock.now(), ticks: self.ticks };
        self.keeper.look(now);
    }

    fn issue(&self) -> Credentials {
        let id = SpiffeId::new("cluster.local", "shop", "web").unwrap();
        self.signer.load().issue(&id, None, self.clock.now()).unwrap()
    }

    fn published(&self) -> Roots {
        Roots::from_pem(&fs::read(self.home.path().join("root-cert.pem")).unwrap()).unwrap()
    }

    fn phase(&self) -> Phase {
        phase(self.home.path()).unwrap()
    }
}

/// Whether the one takes the other's certificate, at either end of a connection.
fn accepts(roots: &Roots, other: &Credentials, now: SystemTime) -> bool {
    let (leaf, more) = other.chain().split_first().unwrap();
    let check = |usage| verify_chain(roots, leaf, more, usage, unix_time(now)).is_ok();
    check(Usage::Client) && check(Usage::Server)
}

#[test]
fn in_a_rotation_whoever_is_valid_is_accepted_by_whoever_is_valid_at_every_moment() {
    let mut bench = Bench::new();
    let first = bench.issue();
    bench.look();
    begin(bench.home.path(), "cluster.local", bench.clock.now()).unwrap();
    let error = begin(bench.home.path(), "cluster.local", bench.clock.now()).unwrap_err();
    assert!(error.to_string().contains("step 1 of 2"), "{error}");
    let mut alive: Vec<Credentials> = vec![first];
    let (mut phases, mut minute) = (Vec::new(), 0);
    while phases.last() != Some(&Phase::Steady) || phases.len() < 2 {
        bench.pass(Duration::from_secs(60));
        minute += 1;
        if minute % 17 == 0 {
            bench.restart();
        }
        if phases.last() != Some(&bench.phase()) {
            phases.push(bench.phase());
        }
        if minute % 10 == 0 {
            alive.push(bench.issue());
        }
        alive.retain(|credentials| credentials.validity().contains(bench.clock.now()));
        if minute % 5 == 0 {
            let newest = bench.issue();
            for other in &alive {
                let (here, there) = (newest.roots(), other.roots());
                let both = accepts(there, &newest, bench.clock.now()) && accepts(here, other, bench.clock.now());
                assert!(both, "minute {minute}: {phases:?}");
            }
        }
        assert!(minute < 300, "{phases:?}");
    }
    assert_eq!(phases, [Phase::Trust, Phase::Retire, Phase::Steady]);
    assert!(minute >= 150, "two lives and a quarter of each: {minute}");
    assert_eq!(bench.published().certificates().len(), 1);
    bench.look();
    let mut left: Vec<_> =
        fs::read_dir(bench.home.path().join("ca")).unwrap().map(|one| one.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["root.pem"], "nothing stays behind");
}

#[test]
fn the_old_key_signs_until_everybody_has_heard_of_the_new_root() {
    let mut bench = Bench::new();
    let old = bench.published();
    begin(bench.home.path(), "cluster.local", bench.clock.now()).unwrap();
    bench.look();
    let both = bench.published();
    assert_eq!((bench.phase(), both.certificates().len()), (Phase::Trust, 2));
    let during = bench.issue();
    assert!(during.roots().is_same_set(&both));
    assert!(accepts(&old, &during, bench.clock.now()), "the old root signs");
    // The clock of the server jumps a day ahead: what was issued is not older for that.
    *bench.clock.0.lock().unwrap() += Duration::from_secs(24 * 3600);
    bench.look();
    assert_eq!(bench.phase(), Phase::Trust, "a clock that was set ends no step");
    bench.pass(LIFE + LIFE / 3);
    assert_eq!(bench.phase(), Phase::Retire);
    let after = bench.issue();
    assert!(!accepts(&old, &after, bench.clock.now()), "the new one signs");
    assert!(after.roots().is_same_set(&both), "and the old one is still accepted");
    let old_file = fs::read_to_string(bench.home.path().join("ca/old.pem")).unwrap();
    assert!(!old_file.contains("PRIVATE"), "the old key is gone");
}

#[test]
fn a_damaged_next_root_stops_the_rotation_and_nothing_else() {
    let mut bench = Bench::new();
    let before = bench.published();
    let next = bench.home.path().join("ca/next.pem");
    let text = make("cluster.local", &next, bench.clock.now()).unwrap();
    fs::write(&next, &text[..text.len() / 2]).unwrap();
    bench.pass(LIFE * 3);
    assert_eq!((bench.phase(), bench.published()), (Phase::Trust, before));
    let _still = bench.issue();
    fs::remove_file(&next).unwrap();
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.phase(), Phase::Steady);
}

#[test]
fn a_given_certificate_that_is_replaced_is_taken_without_a_restart() {
    let home = TempDir::new().unwrap();
    let clock = Arc::new(Turned(Mutex::new(SystemTime::now())));
    let [certificate, key, more] = ["tls.crt", "tls.key", "more.crt"].map(|name| home.path().join(name));
    let root = || weft_identity::signer::RootMaterial::create("td", LIFE * 24, clock.now()).unwrap();
    let write = |root: &weft_identity::signer::RootMaterial| {
        fs::write(&certificate, &root.certificate_pem).unwrap();
        fs::write(&key, root.key_pem.as_bytes()).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    let (first, second) = (root(), root());
    write(&first);
    fs::write(&more, &second.certificate_pem).unwrap();
    let source =
        RootSource::Given { certificate: certificate.clone(), key: key.clone(), more_roots: Some(more.clone()) };
    let settings = CaSettings { source, state_dir: home.path().join("state"), ..settings(&home) };
    let (mut keeper, signer) = Keeper::open(settings, clock.clone(), &Registry::new("t", "0")).unwrap();
    assert_eq!(signer.load().roots().certificates().len(), 2);
    fs::write(&certificate, &second.certificate_pem).unwrap();
    keeper.look(Moment { wall: clock.now(), ticks: LIFE });
    assert_eq!(signer.version(), 0, "the key is not there yet: signing as before");
    write(&second);
    fs::write(&more, &first.certificate_pem).unwrap();
    keeper.look(Moment { wall: clock.now(), ticks: LIFE });
    assert_eq!(signer.version(), 1);
    let roots = fs::read_to_string(home.path().join("state/root-cert.pem")).unwrap();
    assert_eq!(roots, format!("{}{}", second.certificate_pem, first.certificate_pem));
}

/// As when a mounted Secret of cert-manager changes.
#[test]
fn a_given_root_that_nobody_has_heard_of_signs_when_everybody_has_and_the_one_before_it_is_kept() {
    let mut bench = Bench::new();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| bench.home.path().join(name));
    let write = |root: &weft_identity::signer::RootMaterial| {
        fs::write(&certificate, &root.certificate_pem).unwrap();
        fs::write(&key, root.key_pem.as_bytes()).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o440)).unwrap();
    };
    let root = |life| weft_identity::signer::RootMaterial::create("td", life, bench.clock.now()).unwrap();
    let (first, second, third) = (root(LIFE * 24), root(LIFE * 24), root(LIFE * 48));
    write(&first);
    let source = RootSource::Given { certificate: certificate.clone(), key: key.clone(), more_roots: None };
    let settings = CaSettings { source, ..settings(&bench.home) };
    (bench.keeper, bench.signer) = Keeper::open(settings, bench.clock.clone(), &Registry::new("t", "0")).unwrap();
    let mut alive = vec![bench.issue()];
    write(&second);
    let mut seen = Vec::new();
    for minute in 0..200 {
        bench.pass(Duration::from_secs(60));
        if minute % 10 == 0 {
            alive.push(bench.issue());
        }
        alive.retain(|credentials| credentials.validity().contains(bench.clock.now()));
        let newest = bench.issue();
        for other in &alive {
            let both =
                accepts(other.roots(), &newest, bench.clock.now()) && accepts(newest.roots(), other, bench.clock.now());
            assert!(both, "minute {minute}: {seen:?}");
        }
        if seen.last() != Some(&(bench.keeper.phase(), bench.published().certificates().len())) {
            seen.push((bench.keeper.phase(), bench.published().certificates().len()));
        }
    }
    assert_eq!(seen, [(Phase::Trust, 2), (Phase::Retire, 2), (Phase::Steady, 1)]);
    let published = fs::read_to_string(bench.home.path().join("root-cert.pem")).unwrap();
    assert_eq!(published, second.certificate_pem);
    // One that comes when the one before it is over has nothing to wait for.
    bench.pass(LIFE * 22);
    write(&third);
    bench.look();
    assert!(accepts(&bench.published(), &bench.issue(), bench.clock.now()));
    assert!(fs::read_to_string(bench.home.path().join("root-cert.pem")).unwrap().starts_with(&third.certificate_pem));
}

/// Each replica would go on by its own clock, and be called back by the Secret, for ever.
#[test]
fn a_shared_root_goes_to_the_next_step_when_the_files_say_so_and_not_by_the_clock() {
    let mut bench = Bench::new();
    let shared = CaSettings { source: RootSource::Shared, ..settings(&bench.home) };
    (bench.keeper, bench.signer) = Keeper::open(shared, bench.clock.clone(), &Registry::new("t", "0")).unwrap();
    begin(bench.home.path(), "cluster.local", bench.clock.now()).unwrap();
    bench.pass(LIFE * 3);
    assert_eq!(
        (bench.phase(), bench.published().certificates().len()),
        (Phase::Trust, 2),
        "both are given to everybody"
    );
    end_step(bench.home.path(), Phase::Trust).unwrap();
    bench.pass(LIFE * 3);
    assert_eq!((bench.phase(), bench.published().certificates().len()), (Phase::Retire, 2));
    end_step(bench.home.path(), Phase::Retire).unwrap();
    bench.pass(Duration::from_secs(60));
    assert_eq!((bench.phase(), bench.published().certificates().len()), (Phase::Steady, 1));
}
