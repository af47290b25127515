//! Finds the network namespaces of pods that nobody names one for: a pod's processes are in a control group that has the pod's uid in
//! its path, and the oldest of them is the one that holds the pod's namespaces for as long as it lives (the sandbox's "pause").
//!
//! What is found is a claim, not a proof: whoever enters looks for the pod's address first (`netns.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::pods::{PodSpec, PodUid};

/// Length of a uid of Kubernetes: a UUID in text (RFC 9562 section 4).
const UUID: usize = 36;

/// Remembers where pods are.
#[derive(Debug)]
pub(super) struct Placer {
    proc: PathBuf,
    found: BTreeMap<PodUid, String>,
}

impl Default for Placer {
    fn default() -> Self {
        Self { proc: "/proc".into(), found: BTreeMap::new() }
    }
}

impl Placer {
    /// The same pods, with a namespace where one is named or can be found. Looks at the processes of this machine only when a pod has an
    /// address and no namespace: some 20 us each.
    pub(super) fn place(&mut self, pods: &[PodSpec]) -> Vec<PodSpec> {
        self.found.retain(|uid, path| pods.iter().any(|pod| pod.uid == *uid) && Path::new(path).exists());
        let lost: BTreeSet<&str> = pods.iter().filter(|pod| self.is_lost(pod)).map(|pod| pod.uid.as_str()).collect();
        if !lost.is_empty() {
            self.found.extend(search(&self.proc, &lost));
        }
        let placed = |pod: &PodSpec| PodSpec {
            netns: pod.netns.clone().or_else(|| self.found.get(&pod.uid).cloned()),
            ..pod.clone()
        };
        pods.iter().map(placed).collect()
    }

    /// Whether to look again.
    pub(super) fn is_looking(&self, pods: &[PodSpec]) -> bool {
        pods.iter().any(|pod| self.is_lost(pod))
    }

    fn is_lost(&self, pod: &PodSpec) -> bool {
        let is_of_kubernetes = pod.uid.as_str().len() == UUID;
        pod.netns.is_none() && is_of_kubernetes && !pod.addresses.is_empty() && !self.found.contains_key(&pod.uid)
    }
}

/// The oldest process of each pod.
fn search(proc: &Path, uids: &BTreeSet<&str>) -> BTreeMap<PodUid, String> {
    let mut oldest: BTreeMap<PodUid, (u64, PathBuf)> = BTreeMap::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // Processes that end meanwhile are none.
        let Ok(groups) = fs::read_to_string(path.join("cgroup")) else { continue };
        let Some(uid) = uid_of(&groups).filter(|uid| uids.contains(&**uid)) else { continue };
        let Some(start) = fs::read_to_string(path.join("stat")).ok().and_then(|stat| start_of(&stat)) else { continue };
        let best = oldest.entry(PodUid::from(uid)).or_insert_with(|| (start, path.clone()));
        if start < best.0 {
            *best = (start, path);
        }
    }
    let place = |path: PathBuf| path.join("ns/net").to_string_lossy().into_owned();
    oldest.into_iter().map(|(uid, (_, path))| (uid, place(path))).collect()
}

/// The pod's uid in `/proc/PID/cgroup`: `.../pod1234-.../...` (driver cgroupfs), or with underscores in the name of a slice (driver
/// systemd).
fn uid_of(groups: &str) -> Option<String> {
    groups.match_indices("pod").find_map(|(at, _)| {
        let text = groups.get(at + 3..at + 3 + UUID)?.replace('_', "-");
        let is_uuid = text.char_indices().all(|(place, letter)| match place {
            8 | 13 | 18 | 23 => letter == '-',
            _ => letter.is_ascii_hexdigit(),
        });
        is_uuid.then_some(text)
    })
}

/// When the process began (proc_pid_stat(5), field 22), in ticks since boot; the name before may hold anything.
fn start_of(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const WEB: &str = "11111111-2222-3333-4444-555555555555";

    #[rstest]
    #[case("12:memory:/kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/abc\n", Some(WEB))]
    #[case(
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice/cri-containerd-x.scope",
        Some(WEB)
    )]
    #[case("0::/../../pod11111111-2222-3333-4444-555555555555/x", Some(WEB))]
    #[case("0::/system.slice/podman.service", None)]
    #[case("0::/podé111111-2222-3333-4444-555555555555aa", None)]
    #[case("0::/pod1111", None)]
    fn the_uid_in_a_group(#[case] groups: &str, #[case] expected: Option<&str>) {
        assert_eq!(uid_of(groups).as_deref(), expected);
    }

    fn process(proc: &Path, pid: u32, uid: &str, start: u64) {
        let folder = proc.join(pid.to_string());
        fs::create_dir_all(folder.join("ns")).unwrap();
        fs::write(folder.join("ns/net"), "").unwrap();
        fs::write(folder.join("cgroup"), format!("4:cpu:/kubepods/pod{uid}/x\n")).unwrap();
        fs::write(folder.join("stat"), format!("{pid} (a) b) S 1{} {start} 0\n", " 0".repeat(17))).unwrap();
    }

    fn spec(uid: &str, netns: Option<&str>) -> PodSpec {
        PodSpec {
            uid: uid.into(),
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "default".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            netns: netns.map(str::to_owned),
            strict: false,
            enrolled: true,
            probe_ports: BTreeSet::new(),
        }
    }

    #[test]
    fn a_pod_is_where_its_oldest_process_is_and_stays_there_until_that_ends() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        process(proc, 20, WEB, 200);
        process(proc, 30, WEB, 100);
        process(proc, 40, "99999999-2222-3333-4444-555555555555", 50);
        fs::create_dir(proc.join("self")).unwrap();
        let mut placer = Placer { proc: proc.to_owned(), found: BTreeMap::new() };
        let pods = [spec(WEB, None), spec("hand/written", None), spec(WEB, Some("named"))];
        assert!(placer.is_looking(&pods));
        let places: Vec<Option<String>> = placer.place(&pods).into_iter().map(|pod| pod.netns).collect();
        let pause = proc.join("30/ns/net").display().to_string();
        assert_eq!(places, [Some(pause.clone()), None, Some("named".to_owned())]);
        assert!(!placer.is_looking(&pods));
        process(proc, 10, WEB, 10);
        assert_eq!(placer.place(&pods[..1])[0].netns, Some(pause), "it does not wander");
        fs::remove_dir_all(proc.join("30")).unwrap();
        assert_eq!(placer.place(&pods[..1])[0].netns, Some(proc.join("10/ns/net").display().to_string()));
        assert_eq!(placer.place(&[]), []);
        assert!(placer.found.is_empty());
    }
}
