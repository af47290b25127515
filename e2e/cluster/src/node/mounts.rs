//! The root file system of a node: the machine's own, with all changes in memory, and on disk what a machine keeps on its disk.
//!
//! Thus every path that a DaemonSet mounts from its host (/run, /opt/cni/bin, /etc/cni/net.d, /proc, /var/lib/kubelet) is the node's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{pivot_root, sethostname};

use super::groups::{Hierarchy, hierarchies};
use crate::plan::{Node, Plan};
use crate::texts::{self, FOLDER, KUBELET};

/// Kept on disk over a "reboot". containerd's own overlays cannot lie on an overlay anyway.
const KEPT: [&str; 5] = ["var/lib/containerd", "var/lib/kubelet", "var/log", "opt/cni", "etc/cni/net.d"];

/// What the kubelet writes for the whole machine at its start, and ends if it cannot; it is content to find the value there.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Makes the root file system and moves into it.
///
/// # Errors
/// A mount fails: names it.
pub fn make(plan: &Plan, node: &Node) -> Result<()> {
    // Read before /sys is another one.
    let hierarchies = hierarchies()?;
    sethostname(&node.name)?;
    // Nothing of this gets out.
    bind_flags(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let base = plan.own("nodes").join(&node.name);
    let root = overlay(&base.join("root"))?;
    for (kind, place) in [("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "run"), ("tmpfs", "tmp")] {
        special(kind, &root.join(place), None)?;
    }
    bind(Path::new("/dev"), &root.join("dev"))?;
    groups(&root, &hierarchies)?;
    for kept in KEPT {
        let disk = base.join("disk").join(kept);
        fs::create_dir_all(&disk)?;
        fs::create_dir_all(root.join(kept))?;
        bind(&disk, &root.join(kept))?;
    }
    let folder = root.join(FOLDER.trim_start_matches('/'));
    fs::create_dir_all(&folder)?;
    bind(&plan.folder, &folder)?;
    // By its usual name, for those who look for it.
    let kubelet = root.join(KUBELET.trim_start_matches('/'));
    fs::write(&kubelet, "")?;
    bind(&plan.program("kube"), &kubelet)?;
    sysctls(&root, &base.join("root/sysctls"))?;
    fill(plan, node, &root)?;
    // runc's own pivot_root needs a root that is a mount, so a chroot would not do.
    std::env::set_current_dir(&root)?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("the old root")?;
    std::env::set_current_dir("/")?;
    // For volumes of the kubelet, and mounts that pods see from the host (HostToContainer).
    bind_flags(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SHARED)
}

/// The machine's root below, memory above. The upper layer must not lie below the lower one on one file system, hence the tmpfs.
fn overlay(place: &Path) -> Result<PathBuf> {
    fs::create_dir_all(place)?;
    special("tmpfs", place, None)?;
    let part = |name: &str| -> Result<PathBuf> {
        let path = place.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    };
    let (upper, work, merged) = (part("upper")?, part("work")?, part("merged")?);
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    special("overlay", &merged, Some(&options))?;
    Ok(merged)
}

/// Every hierarchy afresh, seen from the node's own group. Without version 2: runc 1.1 would take the machine for a hybrid one.
fn groups(root: &Path, hierarchies: &[Hierarchy]) -> Result<()> {
    let base = root.join("sys/fs/cgroup");
    special("tmpfs", &base, None)?;
    for hierarchy in hierarchies {
        let place = base.join(hierarchy.place.file_name().context("a hierarchy is mounted below /sys/fs/cgroup")?);
        fs::create_dir_all(&place)?;
        special("cgroup", &place, Some(&hierarchy.options))?;
    }
    Ok(())
}

fn sysctls(root: &Path, files: &Path) -> Result<()> {
    for (name, value) in SYSCTLS {
        let (file, place) = (files.join(name), root.join("proc/sys").join(name));
        if place.exists() {
            fs::create_dir_all(file.parent().context("below the folder")?)?;
            fs::write(&file, format!("{value}\n"))?;
            bind(&file, &place)?;
        }
    }
    Ok(())
}

/// Files that the programs read.
fn fill(plan: &Plan, node: &Node, root: &Path) -> Result<()> {
    // The plugins where an installer expects them, once: what somebody put beside them stays.
    let plugins = root.join("opt/cni/bin");
    if !plugins.join("ptp").exists() {
        fs::create_dir_all(&plugins)?;
        for name in ["ptp", "host-local", "portmap", "loopback", "bridge"] {
            let from = Path::new("/usr/lib/cni").join(name);
            fs::copy(&from, plugins.join(name)).with_context(|| from.display().to_string())?;
        }
    }
    let network = root.join("etc/cni/net.d/10-pods.conflist");
    if fs::read_dir(root.join("etc/cni/net.d"))?.next().is_none() {
        fs::write(network, serde_json::to_string_pretty(&texts::cni(node))?)?;
    }
    let own = |what: &str| plan.own(what);
    fs::write(own("resolv.conf"), "nameserver 127.0.0.1\n")?;
    fs::write(own("containerd.toml"), texts::containerd())?;
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?.1;
    let kubelet = texts::kubelet(plan, node, limit);
    fs::write(own(&format!("{}-kubelet.json", node.name)), serde_json::to_string_pretty(&kubelet)?)?;
    let proxy = texts::kube_proxy(plan, node);
    fs::write(own(&format!("{}-proxy.json", node.name)), serde_json::to_string_pretty(&proxy)?)?;
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("cannot bind {} to {}", from.display(), to.display()))
}

fn bind_flags(place: &Path, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("{flags:?} of {}", place.display()))
}

fn special(kind: &str, place: &Path, options: Option<&str>) -> Result<()> {
    mount(Some(kind), place, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} at {} ({options:?})", place.display()))
}
