//! The store against a CA in memory, on tokio's paused clock: an hour takes no time.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use rand::SeedableRng;
use weft_runtime::metrics::Registry;

use super::*;
use crate::authority::Signed;
use crate::clock::Clock;
use crate::request::VerifiedRequest;
use crate::signer::{DEFAULT_ROOT_TTL, LeafLifetime, RootMaterial, Signer};

const HOUR: Duration = Duration::from_secs(3600);

/// The time of day that goes with tokio's clock, and that somebody may set.
#[derive(Debug)]
struct PausedClock {
    base: Mutex<SystemTime>,
    start: Instant,
}

impl Clock for PausedClock {
    fn now(&self) -> SystemTime {
        *self.base.lock().unwrap() + self.start.elapsed()
    }
}

/// A CA that takes 100 ms per signature and can be told to fail or to hang.
struct TestAuthority {
    signer: Mutex<Arc<Signer>>,
    clock: Arc<PausedClock>,
    asked: Mutex<Vec<(SpiffeId, SystemTime)>>,
    refuse: Mutex<HashSet<SpiffeId>>,
    hang: Mutex<bool>,
    away: Mutex<bool>,
    busy: AtomicUsize,
    most_busy: AtomicUsize,
}

impl CertificateAuthority for TestAuthority {
    fn sign<'a>(&'a self, csr_pem: &'a str, identity: &'a SpiffeId, ttl: Duration) -> Signed<'a> {
        Box::pin(async move {
            self.asked.lock().unwrap().push((identity.clone(), self.clock.now()));
            let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_busy.fetch_max(busy, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.busy.fetch_sub(1, Ordering::SeqCst);
            if *self.hang.lock().unwrap() {
                std::future::pending::<()>().await;
            }
            if *self.away.lock().unwrap() {
                return Err(AuthorityError::Unavailable("connection refused".to_owned()));
            }
            if self.refuse.lock().unwrap().contains(identity) {
                let message = "not on your node".to_owned();
                return Err(AuthorityError::Refused { reason: Reason::IdentityNotOnNode, message });
            }
            let request = VerifiedRequest::from_pem(csr_pem).unwrap();
            assert_eq!(request.identity(), identity);
            let signer = self.signer.lock().unwrap().clone();
            Ok(signer.sign(&request, Some(ttl), self.clock.now()).unwrap())
        })
    }
}

struct Bench {
    store: Store,
    authority: Arc<TestAuthority>,
    root: RootMaterial,
    registry: Registry,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn signer(root: &RootMaterial, more: Option<&RootMaterial>, now: SystemTime) -> Signer {
    let more = more.map(|root| root.certificate_pem.as_str());
    Signer::load(&root.certificate_pem, &root.key_pem, more, LeafLifetime::default(), now).unwrap()
}

/// Must run inside the paused runtime.
fn bench() -> Bench {
    // A whole second, as certificates have it.
    let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let clock = Arc::new(PausedClock { base: Mutex::new(base), start: Instant::now() });
    let root = RootMaterial::create("td", DEFAULT_ROOT_TTL, clock.now()).unwrap();
    let authority = Arc::new(TestAuthority {
        signer: Mutex::new(Arc::new(signer(&root, None, clock.now()))),
        clock: clock.clone(),
        asked: Mutex::default(),
        refuse: Mutex::default(),
        hang: Mutex::default(),
        away: Mutex::default(),
        busy: AtomicUsize::new(0),
        most_busy: AtomicUsize::new(0),
    });
    let registry = Registry::new("test", "0");
    let settings = Settings { ttl: HOUR, ..Settings::default() };
    let dice = StdRng::seed_from_u64(1);
    let (store, driver) = Store::new(authority.clone(), settings, clock, dice, StoreMetrics::new(&registry));
    Bench { store, authority, root, registry, driver: tokio::spawn(driver.run()) }
}

impl Bench {
    fn asked(&self, identity: &SpiffeId) -> usize {
        self.authority.asked.lock().unwrap().iter().filter(|(asked, _)| asked == identity).count()
    }

    async fn get(&self, identity: &SpiffeId, seconds: u64) -> Result<Arc<Credentials>, StoreError> {
        self.store.wait(identity, Instant::now() + Duration::from_secs(seconds)).await
    }
}

fn id(number: usize) -> SpiffeId {
    SpiffeId::new("td", "ns", &format!("sa{number}")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn fetches_shares_and_forgets() {
    let bench = bench();
    assert_eq!(bench.store.credentials(&id(0)).map(|_| ()), None);
    let error = bench.get(&id(0), 1).await.unwrap_err();
    assert_eq!((error.reason(), error.detail.as_str()), (Reason::NoCertificate, "no pod of this node uses it"));
    bench.store.ensure(&id(0), Priority::WarmUp);
    bench.store.ensure(&id(0), Priority::WarmUp);
    let got = bench.get(&id(0), 1).await.unwrap();
    assert_eq!((got.identity(), bench.asked(&id(0))), (&id(0), 1));
    bench.store.release(&id(0));
    assert!(bench.store.credentials(&id(0)).is_some(), "one pod is left");
    assert!(bench.registry.encode().contains("weft_certificate_expiry_timestamp_seconds{identity="));
    bench.store.release(&id(0));
    assert!(bench.store.credentials(&id(0)).is_none());
    assert!(bench.store.rows().is_empty());
    assert!(!bench.registry.encode().contains("weft_certificate_expiry_timestamp_seconds{identity="));
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_served_by_a_prefetch_under_way_and_ends_at_its_deadline() {
    let bench = bench();
    *bench.authority.hang.lock().unwrap() = true;
    bench.store.ensure(&id(0), Priority::WarmUp);
    let start = Instant::now();
    let error = bench.get(&id(0), 5).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(error.detail, "the CA has not answered yet");
    *bench.authority.hang.lock().unwrap() = false;
    // The CA is given up after 10 s, then the pause, then it answers.
    assert!(bench.get(&id(0), 8).await.is_ok());
    assert_eq!(bench.asked(&id(0)), 2);
}

#[tokio::test(start_paused = true)]
async fn renews_at_half_life_and_tells_who_listens() {
    let bench = bench();
    bench.store.ensure(&id(0), Priority::WarmUp);
    let first = bench.get(&id(0), 1).await.unwrap();
    let mut changes = bench.store.changes();
    let start = Instant::now();
    changes.next().await;
    let after = start.elapsed().as_secs_f64();
    assert!((0.44 * 3600.0..0.56 * 3600.0).contains(&after), "{after}");
    let second = bench.store.credentials(&id(0)).unwrap();
    assert_ne!(first.serial(), second.serial());
    assert!(second.validity().not_after > first.validity().not_after);
    assert_eq!(bench.store.rows()[0].serial, second.serial());
}

#[tokio::test(start_paused = true)]
async fn the_old_certificate_serves_until_it_expires_and_never_after() {
    let bench = bench();
    bench.store.ensure(&id(0), Priority::WarmUp);
    let first = bench.get(&id(0), 1).await.unwrap();
    bench.authority.refuse.lock().unwrap().insert(id(0));
    let remaining = first.validity().remaining(bench.authority.clock.now());
    tokio::time::sleep(remaining - Duration::from_secs(2)).await;
    assert_eq!(bench.store.credentials(&id(0)).unwrap().serial(), first.serial());
    let state = bench.store.rows().remove(0);
    assert_eq!(state.state, "renewing");
    assert!(bench.asked(&id(0)) > 5, "{state:?}");
    assert!(state.last_error.unwrap().contains("identity-not-on-node"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(bench.store.credentials(&id(0)).is_none(), "expired");
    assert_eq!(bench.store.rows()[0].state, "expired");
    let text = bench.registry.encode();
    assert!(text.contains(r#"weft_certificate_failures_total{reason="identity-not-on-node"}"#), "{text}");
    bench.authority.refuse.lock().unwrap().clear();
    assert!(bench.get(&id(0), 151).await.is_ok(), "the longest pause is 150 s");
}

#[tokio::test(start_paused = true)]
async fn eight_at_once_and_live_traffic_first() {
    let bench = bench();
    for number in 0..40 {
        bench.store.ensure(&id(number), Priority::WarmUp);
    }
    let start = Instant::now();
    bench.get(&id(39), 10).await.unwrap();
    assert!(start.elapsed() <= Duration::from_millis(210), "second batch at the latest: {:?}", start.elapsed());
    for number in 0..40 {
        bench.get(&id(number), 10).await.unwrap();
    }
    assert_eq!(bench.authority.most_busy.load(Ordering::SeqCst), 8);
    assert_eq!(bench.authority.asked.lock().unwrap().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_refused_identity_backs_off_alone() {
    let bench = bench();
    bench.authority.refuse.lock().unwrap().insert(id(0));
    bench.store.ensure(&id(0), Priority::Live);
    bench.store.ensure(&id(1), Priority::WarmUp);
    assert!(bench.get(&id(1), 1).await.is_ok());
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = bench.asked(&id(0));
    // 0.6, 1.2, ... 150 s: eight doublings are over after 160 s, then one per 120 to 150 s.
    assert!((9..=13).contains(&asked), "{asked}");
    assert!(bench.get(&id(0), 1).await.unwrap_err().detail.contains("not on your node"));
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_left_meanwhile_is_not_published() {
    let bench = bench();
    bench.store.ensure(&id(0), Priority::WarmUp);
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.store.release(&id(0));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.asked(&id(0)), 1);
    assert!(bench.store.credentials(&id(0)).is_none());
    assert_eq!(bench.store.shared.published.load().len(), 0);
}

/// As long as nobody says that the CA is back, it is found within 15 s; a stream to the control plane says so at once.
#[tokio::test(start_paused = true)]
async fn a_ca_that_was_away_until_the_certificates_expired_is_found_again_soon() {
    let bench = bench();
    for told in [false, true] {
        bench.store.ensure(&id(0), Priority::WarmUp);
        let first = bench.get(&id(0), 1).await.unwrap();
        *bench.authority.away.lock().unwrap() = true;
        tokio::time::sleep(first.validity().remaining(bench.authority.clock.now()) + 2 * HOUR).await;
        let error = bench.get(&id(0), 1).await.unwrap_err();
        assert_eq!(error.reason(), Reason::NoCertificate);
        assert!(error.detail.contains("connection refused"), "{error}");
        *bench.authority.away.lock().unwrap() = false;
        let back = Instant::now();
        if told {
            bench.store.retry();
        }
        bench.get(&id(0), 20).await.unwrap();
        let limit = if told { Duration::from_millis(200) } else { Duration::from_millis(15_200) };
        assert!(back.elapsed() <= limit, "told: {told}, {:?}", back.elapsed());
        bench.store.release(&id(0));
    }
}

/// The clock of the machine is set while everything runs; the CA's goes with it, or does not.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_costs_no_certificate_for_long() {
    let bench = bench();
    let clock = &bench.authority.clock;
    bench.store.ensure(&id(0), Priority::WarmUp);
    let first = bench.get(&id(0), 1).await.unwrap();
    *clock.base.lock().unwrap() += 10 * HOUR;
    assert!(bench.store.credentials(&id(0)).is_none(), "an expired one is not given out");
    let second = bench.get(&id(0), 1).await.expect("who needs it wakes the driver");
    assert_ne!(first.serial(), second.serial());
    // Back again: the one in use begins in the future, and no peer with the right time takes it.
    *clock.base.lock().unwrap() -= 10 * HOUR;
    let mut changes = bench.store.changes();
    tokio::time::timeout(LONGEST_SLEEP + Duration::from_secs(1), changes.next()).await.expect("looks each minute");
    let third = bench.store.credentials(&id(0)).unwrap();
    assert!(third.validity().contains(clock.now()));
    // A little back, within the time that certificates are dated back: half life is counted in true time.
    *clock.base.lock().unwrap() -= Duration::from_secs(50);
    let renewed = tokio::time::timeout(HOUR * 56 / 100, changes.next()).await;
    assert!(renewed.is_ok() && bench.store.credentials(&id(0)).unwrap().serial() != third.serial());
}

#[tokio::test(start_paused = true)]
async fn another_bundle_of_roots_is_taken_by_all_certificates_soon() {
    let bench = bench();
    for number in 0..3 {
        bench.store.ensure(&id(number), Priority::WarmUp);
        bench.get(&id(number), 1).await.unwrap();
    }
    let clock = &bench.authority.clock;
    let next = RootMaterial::create("td", DEFAULT_ROOT_TTL, clock.now()).unwrap();
    let both = Arc::new(signer(&bench.root, Some(&next), clock.now()));
    *bench.authority.signer.lock().unwrap() = both.clone();
    bench.store.changes().next().await; // the first one is renewed at its half life
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..3 {
        assert!(bench.store.credentials(&id(number)).unwrap().roots().is_same_set(both.roots()), "{number}");
    }
    assert!(bench.store.bundle().unwrap().is_same_set(both.roots()));
    // The CA was replaced by one that nobody knows, and somebody who noticed says so.
    *bench.authority.signer.lock().unwrap() = Arc::new(signer(&next, None, clock.now()));
    let asked = bench.authority.asked.lock().unwrap().len();
    bench.store.renew_all();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.authority.asked.lock().unwrap().len(), asked + 3);
}
