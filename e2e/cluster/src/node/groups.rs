//! Control groups of version 1: one of its own for each node in every hierarchy. Two kubelets in one tree would end each other's
//! pods as orphans.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::plan::{Node, Plan};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub place: PathBuf,
    /// The options that mount it again: its controllers, or its name.
    pub options: String,
}

/// The hierarchies of this machine.
///
/// # Errors
/// It has none of version 1: says what to do.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let found = parse(&fs::read_to_string("/proc/mounts")?);
    if !found.iter().any(|hierarchy| hierarchy.options.split(',').any(|option| option == "memory")) {
        bail!(
            "this machine has no control groups of version 1 with the memory controller, and the local cluster has not learnt version 2 \
             yet; use kind (`make e2e PROVIDER=kind`), or boot with systemd.unified_cgroup_hierarchy=0"
        );
    }
    Ok(found)
}

/// Lines of /proc/mounts: `cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0`.
fn parse(mounts: &str) -> Vec<Hierarchy> {
    const GENERAL: [&str; 8] = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "xattr"];
    let hierarchy = |line: &str| {
        let mut fields = line.split(' ');
        let (_, place, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let own: Vec<&str> = options
            .split(',')
            .filter(|option| !GENERAL.contains(option) && !option.starts_with("release_agent="))
            .collect();
        // A hierarchy without a controller has a name instead, and `none` in place of controllers.
        let none = if own.iter().any(|option| option.starts_with("name=")) && own.len() == 1 { "none," } else { "" };
        (kind == "cgroup").then(|| Hierarchy { place: place.into(), options: format!("{none}{}", own.join(",")) })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

/// Makes a node's groups and puts this process into them.
///
/// # Errors
/// One cannot be made.
pub fn join(plan: &Plan, node: &Node) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = group(&hierarchy, plan, node);
        fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
        // A group without processors and memory takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            hand_down(&hierarchy.place, &group, file)?;
        }
        let file = group.join("cgroup.procs");
        fs::write(&file, std::process::id().to_string()).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Removes the groups of a cluster's nodes. Nobody may live in them.
///
/// # Errors
/// Somebody does.
pub fn remove(plan: &Plan) -> Result<()> {
    for hierarchy in hierarchies()? {
        let top = hierarchy.place.join(&plan.name);
        if top.exists() {
            remove_tree(&top).with_context(|| top.display().to_string())?;
        }
    }
    Ok(())
}

fn group(hierarchy: &Hierarchy, plan: &Plan, node: &Node) -> PathBuf {
    hierarchy.place.join(&plan.name).join(&node.name)
}

/// From the top to the group, each level from the one above.
fn hand_down(top: &Path, group: &Path, file: &str) -> Result<()> {
    let below = group.strip_prefix(top)?;
    let mut at = top.to_owned();
    for part in below {
        let value = match fs::read_to_string(at.join(file)) {
            Ok(value) => value,
            Err(_) => return Ok(()), // another hierarchy
        };
        at.push(part);
        fs::write(at.join(file), value).with_context(|| at.join(file).display().to_string())?;
    }
    Ok(())
}

/// Groups are removed as directories; their files cannot be.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_mounted_is_mounted_again_with_the_same_words() {
        let text = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                    cgroup /sys/fs/cgroup/cpu cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n\
                    cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,release_agent=/lib/x,name=systemd 0 0\n\
                    cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0\n\
                    cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found: Vec<String> = parse(text).into_iter().map(|hierarchy| hierarchy.options).collect();
        assert_eq!(found, ["cpu,cpuacct", "none,name=systemd", "none,name=systemd"]);
    }
}
