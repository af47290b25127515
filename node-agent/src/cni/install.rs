//! `weft-node-agent cni-install`: puts the plugin's program and our entry into a node's CNI configuration once the capture half is there,
//! keeps them there when somebody writes the configuration anew, and takes them away when told.
//!
//! At its end everything stays: a node without an agent must not start pods of the mesh in plaintext.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use clap::Args;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use weft_runtime::signals::Signals;

use super::conflist::{TYPE, Unusable, chain, listed, unchain};
use super::talk::SOCKET;

/// How often the configuration is looked at: who rewrites it is undone within a second. A look reads one small directory and
/// one small file.
const LOOK: Duration = Duration::from_millis(500);

/// Options of `cni-install`.
#[derive(Args, Clone, Debug)]
pub struct CniInstallOptions {
    /// The node's directory of CNI configurations.
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "PATH")]
    pub configurations: PathBuf,
    /// The node's directory of CNI programs.
    #[arg(long, default_value = "/opt/cni/bin", value_name = "PATH")]
    pub programs: PathBuf,
    /// The plugin. Default: `weft-cni` beside this program.
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,
    /// The socket of the capture half, on the node.
    #[arg(long, default_value = SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// Namespaces whose pods start whether an agent is there or not: those that a node and its agent need to begin with.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "kube-system,kube-public,kube-node-lease,weft-system",
        value_name = "NAMESPACES"
    )]
    pub exempt_namespaces: Vec<String>,
    /// The namespace of the agent, which is exempt as well.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub own_namespace: Option<String>,
    /// Take the entry and the program away instead of keeping them there.
    #[arg(long)]
    pub remove: bool,
    /// With --remove: keep them away until a signal, as the pods of a DaemonSet must.
    #[arg(long, requires = "remove")]
    pub stay: bool,
    /// With --remove: empty this directory as well, such as the one in which the halves of an agent met that is gone for good.
    #[arg(long, requires = "remove", value_name = "PATH")]
    pub empty: Option<PathBuf>,
}

/// Why it ends, or tries again.
#[derive(Debug, Error)]
pub enum CniInstallError {
    /// A file.
    #[error("{path}: {source}; this needs root, and both directories of the node")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No runtime or signals.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    /// The node has no network yet.
    #[error("{0} has no CNI configuration yet: the primary CNI plugin writes one")]
    NoConfiguration(PathBuf),
    /// Its network cannot have us.
    #[error("{path}: {source}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Unusable,
    },
}

/// Runs until a signal; with `--remove` alone until that is done.
///
/// # Errors
/// For the terminal.
pub fn run(options: &CniInstallOptions) -> Result<(), CniInstallError> {
    if options.remove && !options.stay {
        return remove(options).map(drop);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CniInstallError::Runtime)?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(CniInstallError::Runtime)?;
        tokio::select! {
            signal = signals.next() => tracing::info!(%signal, "ending; the node's CNI configuration stays as it is"),
            () = keep(options, if options.remove { keep_away } else { keep_there }) => {}
        }
        Ok(())
    })
}

/// One look at the node: what was done, if anything was; and what is so, where that was not said yet, or was not so in between.
type Look = fn(&CniInstallOptions, bool) -> Result<Option<String>, CniInstallError>;

async fn keep(options: &CniInstallOptions, look: Look) {
    let mut next = interval(LOOK);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    let mut begun = options.remove;
    let mut said = false;
    loop {
        next.tick().await;
        // Only at the beginning: later a node without a capture half is to start no pod of the mesh.
        if !begun && UnixStream::connect(&options.socket).is_err() {
            say(&mut told, &format!("waiting for the capture half at {}", options.socket.display()));
            continue;
        }
        begun = true;
        match look(options, said) {
            Ok(done) => {
                told.clear();
                said = true;
                if let Some(done) = done {
                    tracing::info!("{done}");
                }
            }
            Err(error) => {
                say(&mut told, &error.to_string());
                said = false;
            }
        }
    }
}

/// The last word is what `weft check` reads of a node's plugin.
fn keep_there(options: &CniInstallOptions, said: bool) -> Result<Option<String>, CniInstallError> {
    let changed = install(options)?;
    let there = if said { changed } else { changed.or_else(|| place(options)) };
    Ok(there.map(|path| format!("{}: new pods wait for their capture from now on", path.display())))
}

/// Again and again, because an agent that keeps the plugin there may still run: in an upgrade two overlap (`maxSurge`).
fn keep_away(options: &CniInstallOptions, _said: bool) -> Result<Option<String>, CniInstallError> {
    Ok(remove(options)?.then(|| "the plugin is removed".to_owned()))
}

/// Once, not twice a second.
fn say(told: &mut String, words: &str) {
    if told != words {
        tracing::warn!("{words}");
        words.clone_into(told);
    }
}

/// One look: what is missing is put in. Returns the configuration if it was changed.
///
/// # Errors
/// [`CniInstallError`]; calling again completes what was begun.
pub fn install(options: &CniInstallOptions) -> Result<Option<PathBuf>, CniInstallError> {
    // First: a configuration that names a program that is not there starts no pod at all.
    install_program(options)?;
    let entry = entry(options);
    for path in candidates(&options.configurations)? {
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        let is_list = path.extension().is_some_and(|ending| ending == "conflist");
        let wanted = if is_list { chain(&text, &entry) } else { listed(&text, &entry).map(Some) };
        match wanted {
            Ok(None) => return Ok(None),
            Ok(Some(wanted)) => {
                let list = path.with_extension("conflist");
                replace(&list, wanted.as_bytes(), 0o600)?;
                if !is_list {
                    // It would be read first.
                    fs::remove_file(&path).map_err(failed(&path))?;
                }
                return Ok(Some(list));
            }
            // Container runtimes take the next one, too.
            Err(Unusable::Broken(_) | Unusable::NoPlugins) => {}
            Err(source) => return Err(CniInstallError::Unusable { path, source }),
        }
    }
    Err(CniInstallError::NoConfiguration(options.configurations.clone()))
}

/// The configuration that has our entry.
fn place(options: &CniInstallOptions) -> Option<PathBuf> {
    let has = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| matches!(unchain(&text), Ok(Some(_))));
    candidates(&options.configurations).ok()?.into_iter().find(has)
}

/// Takes our entry out of every configuration, then the program away. True: something was there.
///
/// # Errors
/// [`CniInstallError`]; calling again completes what was begun.
pub fn remove(options: &CniInstallOptions) -> Result<bool, CniInstallError> {
    let mut found = false;
    for path in candidates(&options.configurations)? {
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        if let Ok(Some(without)) = unchain(&text) {
            replace(&path, without.as_bytes(), 0o600)?;
            found = true;
        }
    }
    let program = options.programs.join(TYPE);
    found |= program.exists();
    gone(fs::remove_file(&program)).map_err(failed(&program))?;
    options.empty.as_deref().map_or(Ok(()), empty)?;
    Ok(found)
}

/// The directory itself stays: it is a mount point here.
fn empty(directory: &Path) -> Result<(), CniInstallError> {
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        let path = entry.path();
        let is_directory = entry.file_type().map_err(failed(&path))?.is_dir();
        gone(if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }).map_err(failed(&path))?;
    }
    Ok(())
}

/// What is not there needs no removal.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn entry(options: &CniInstallOptions) -> Value {
    let mut exempt = options.exempt_namespaces.clone();
    exempt.extend(options.own_namespace.clone());
    exempt.sort();
    exempt.dedup();
    json!({ "type": TYPE, "socket": options.socket, "exemptNamespaces": exempt })
}

fn install_program(options: &CniInstallOptions) -> Result<(), CniInstallError> {
    let from = match &options.plugin {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(failed(Path::new("/proc/self/exe")))?.with_file_name(TYPE),
    };
    let to = options.programs.join(TYPE);
    let size = |path: &Path| fs::metadata(path).map(|metadata| (metadata.len(), metadata.modified().ok()));
    let (ours, there) = (size(&from).map_err(failed(&from))?, size(&to).ok());
    // One of another version may have the same length; it is not newer than ours.
    let is_same = there.is_some_and(|there| there.0 == ours.0 && there.1 == ours.1);
    if is_same {
        return Ok(());
    }
    let bytes = fs::read(&from).map_err(failed(&from))?;
    replace(&to, &bytes, 0o755)?;
    let time = ours.1.unwrap_or(std::time::SystemTime::UNIX_EPOCH);
    let file = fs::File::options().write(true).open(&to).map_err(failed(&to))?;
    file.set_modified(time).map_err(failed(&to))
}

/// Configurations in the order in which container runtimes look at them.
fn candidates(directory: &Path) -> Result<Vec<PathBuf>, CniInstallError> {
    let entries = fs::read_dir(directory).map_err(failed(directory))?;
    let is_one = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ending == "conflist" || ending == "conf" || ending == "json")
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
    paths.sort();
    Ok(paths)
}

/// Beside it, then into its place: whoever reads finds the old or the new. The ending keeps container runtimes from the new one before.
fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), CniInstallError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".weft-new");
    let beside = PathBuf::from(beside);
    // What somebody gave the file stays.
    let mode = fs::metadata(path).map_or(mode, |metadata| metadata.permissions().mode() & 0o7777);
    let write = || {
        fs::write(&beside, contents)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
        fs::File::open(&beside)?.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> CniInstallError {
    let path = path.to_path_buf();
    move |source| CniInstallError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests;
