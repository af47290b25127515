//! The programs of a cluster, built from their Go modules once and kept in the folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use weft_image::{Config, Image, Layer, Platform};

use crate::wait;

/// As in `kube/go.mod`.
pub const KUBERNETES: &str = "v1.34.4";

/// The name of the image that holds a pod's namespaces.
pub const PAUSE: &str = "localhost/weft/pause:v1";

/// What clusters are made of, in the order of their importance.
pub const CLUSTER: [&str; 3] = ["kube", "coredns", "pause"];

/// What else tests use.
pub const TOOLS: [&str; 1] = ["helm"];

/// Builds what is missing or older than its source, and the images. The first time that takes 7 to 14 minutes of two cores for what clusters
/// are made of, and one or two for Helm; then seconds.
///
/// # Errors
/// Go is not there, or a build fails.
pub fn build(folder: &Path, programs: &[&str], say: &dyn Fn(&str)) -> Result<()> {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin)?;
    for name in programs {
        let (source, program) = (source(name), bin.join(name));
        if !is_older(&program, &source)? {
            continue;
        }
        say(&format!("building {name} (the first time this takes minutes) ..."));
        let begin = Instant::now();
        go_build(name, &source, &program, folder, say)?;
        say(&format!("built {name} in {} s", begin.elapsed().as_secs()));
    }
    images(folder)
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn is_older(program: &Path, source: &Path) -> Result<bool> {
    let Ok(built) = fs::metadata(program).and_then(|metadata| metadata.modified()) else { return Ok(true) };
    for entry in fs::read_dir(source).with_context(|| source.display().to_string())? {
        if entry?.metadata()?.modified()? > built {
            return Ok(true);
        }
    }
    Ok(false)
}

fn go_build(name: &str, source: &Path, program: &Path, folder: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let log = folder.join(format!("{name}-build.log"));
    let output = fs::File::create(&log)?;
    let mut command = Command::new("go");
    // No workspace, no vendor folder, no other toolchain: what go.mod says. The version is told, because the server says it and
    // clients look at it.
    command
        .args(["build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", &link_flags(), "-o"])
        .arg(program)
        .arg(package(name))
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut child =
        command.spawn().context("cannot run go: `make cluster-up` needs Go 1.24 or newer (https://go.dev/dl)")?;
    let mut told = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            // With -v, a line for each package.
            let packages = fs::read_to_string(&log)?.lines().count();
            say(&format!("  {name}: {packages} packages"));
        }
        wait::pause(Duration::from_millis(100));
    };
    if !status.success() {
        let text = fs::read_to_string(&log)?;
        let lines: Vec<&str> = text.lines().collect();
        bail!("building {name} failed:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
    }
    Ok(())
}

/// Ours, but for what is used as its makers' own main package has it.
fn package(name: &str) -> &'static str {
    if name == "helm" { "helm.sh/helm/v3/cmd/helm" } else { "." }
}

/// A name that a program does not have does nothing.
fn link_flags() -> String {
    let mut flags = "-s -w".to_owned();
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    // Which Kubernetes `helm template` renders for.
    for package in ["pkg/chartutil", "pkg/lint/rules"] {
        let package = format!("helm.sh/helm/v3/{package}");
        flags += &format!(" -X {package}.k8sVersionMajor=1 -X {package}.k8sVersionMinor={minor}");
    }
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        flags +=
            &format!(" -X {package}.gitVersion={KUBERNETES} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}");
    }
    flags
}

/// The images that every cluster has: what pods stand on, DNS, and a toolbox for tests.
pub const IMAGES: [&str; 3] = ["pause", "coredns", "toolbox"];

/// busybox and curl: a shell, an HTTP server (`httpd`) and clients, for pods of tests.
pub const TOOLBOX: &str = "localhost/weft/toolbox:v1";

fn images(folder: &Path) -> Result<()> {
    IMAGES.iter().try_for_each(|name| image(folder, name).map(drop))
}

/// Writes one of [`IMAGES`] if it is not there or older than its program, and says where it is.
///
/// # Errors
/// Its program is not there.
pub fn image(folder: &Path, name: &str) -> Result<PathBuf> {
    let archive = image_file(folder, name);
    let binary = if name == "toolbox" { "/bin/busybox".into() } else { folder.join("bin").join(name) };
    let of_program = fs::metadata(&binary).and_then(|metadata| metadata.modified());
    let of_program = of_program.with_context(|| binary.display().to_string())?;
    if archive.exists() && fs::metadata(&archive)?.modified()? > of_program {
        return Ok(archive);
    }
    fs::create_dir_all(archive.parent().context("a file lies in a folder")?)?;
    let mut layer = Layer::default();
    let (image, entrypoint) = match name {
        "pause" => (PAUSE, program(&mut layer, &binary, "/pause")?),
        "coredns" => (crate::dns::IMAGE, program(&mut layer, &binary, "/coredns")?),
        _ => (TOOLBOX, toolbox(&mut layer, &binary)?),
    };
    let config = Config { entrypoint: vec![entrypoint], ..Config::default() };
    weft_image::write(&archive, image, &[Image { platform: Platform::own(), config, layers: vec![layer] }])?;
    Ok(archive)
}

fn program(layer: &mut Layer, binary: &Path, place: &str) -> Result<String> {
    layer.copy(place, 0o755, binary)?;
    Ok(place.to_owned())
}

/// busybox's own shell prefers its applets; what resolves names must not be a static program of glibc's, hence curl.
fn toolbox(layer: &mut Layer, busybox: &Path) -> Result<String> {
    layer.copy("/bin/busybox", 0o755, busybox)?.directory("/tmp", 0o1777).directory("/www", 0o755);
    let applets = crate::shell::run(Command::new(busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer.link(&format!("/bin/{applet}"), "busybox");
    }
    weft_image::libraries::with_libraries(layer, Path::new("/"), "/usr/bin/curl")?;
    for library in ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"] {
        for place in ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu"] {
            let path = format!("{place}/{library}");
            if Path::new(&path).exists() {
                weft_image::libraries::with_libraries(layer, Path::new("/"), &path)?;
            }
        }
    }
    layer.file("/etc/nsswitch.conf", 0o644, "hosts: files dns\n").file("/etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\n");
    Ok("/bin/sh".to_owned())
}

/// Where an image's archive is kept.
#[must_use]
pub fn image_file(folder: &Path, name: &str) -> PathBuf {
    folder.join("images").join(format!("{name}.tar"))
}
