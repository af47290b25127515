//! `weft-image`: writes the images of Weft as OCI archives. Everything is in the library.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use weft_image::recipes::{RECIPES, Sources};
use weft_image::{Image, Platform, write};

/// Writes the images of Weft as OCI archives, without a container engine.
///
/// The same programs give the same digests. For several architectures name the programs of each:
///   weft-image --programs target/release --programs arm64=target/aarch64-unknown-linux-gnu/release --root arm64=/srv/debian-arm64
/// where --root is a file system of that architecture with the packages iptables and nftables (debootstrap makes one).
/// The programs of one architecture and their libraries alone, for a Dockerfile: --layers.
#[derive(Debug, Parser)]
#[command(name = "weft-image", version, verbatim_doc_comment)]
struct Arguments {
    /// Where our programs are: [ARCHITECTURE=]PATH; this machine's architecture if none is named.
    #[arg(long, required = true, value_name = "[ARCH=]PATH")]
    programs: Vec<String>,
    /// Where iptables and nft are, for another architecture than this machine's.
    #[arg(long, value_name = "ARCH=PATH")]
    root: Vec<String>,
    /// Where the archives go.
    #[arg(long, default_value = "target/images", value_name = "PATH")]
    output: PathBuf,
    /// Before the names of the images.
    #[arg(long, default_value = "localhost/weft", value_name = "REGISTRY/PATH")]
    prefix: String,
    /// The tag.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// The commit that the programs are of: the label org.opencontainers.image.revision.
    #[arg(long, value_name = "COMMIT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    revision: Option<String>,
    /// Instead of images: the files of each as NAME.layer.tar.
    #[arg(long)]
    layers: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sources = sources(&arguments)?;
    std::fs::create_dir_all(&arguments.output).with_context(|| arguments.output.display().to_string())?;
    let mut out = std::io::stdout();
    for recipe in RECIPES {
        let images = sources.iter().map(|sources| recipe.make(sources)).collect::<Result<Vec<_>, _>>()?;
        if arguments.layers {
            layers(&arguments.output, recipe.name, &images)?;
            continue;
        }
        let name = format!("{}/{}:{}", arguments.prefix, recipe.name, arguments.tag);
        let path = arguments.output.join(format!("{}.tar", recipe.name));
        let digest = write(&path, &name, &images)?;
        writeln!(out, "{} {name}@{digest}", path.display())?;
    }
    Ok(())
}

/// One tar, since each image has one layer.
fn layers(output: &Path, name: &str, images: &[Image]) -> Result<()> {
    let [image] = images else { bail!("--layers takes the programs of one architecture") };
    let path = output.join(format!("{name}.layer.tar"));
    let [layer] = &image.layers[..] else { bail!("{name} has {} layers", image.layers.len()) };
    std::fs::write(&path, layer.to_tar()?).with_context(|| path.display().to_string())
}

fn sources(arguments: &Arguments) -> Result<Vec<Sources>> {
    let own = Platform::own();
    let split = |text: &str| match text.split_once('=') {
        Some((architecture, path)) => (architecture.to_owned(), PathBuf::from(path)),
        None => (own.architecture.clone(), PathBuf::from(text)),
    };
    let roots: Vec<(String, PathBuf)> = arguments.root.iter().map(|text| split(text)).collect();
    let of = |text: &String| {
        let (architecture, programs) = split(text);
        let given = roots.iter().find(|(of, _)| *of == architecture).map(|(_, path)| path.clone());
        let root = match given {
            Some(path) => path,
            None if architecture == own.architecture => "/".into(),
            None => bail!(
                "--programs {text} needs --root {architecture}=PATH: a file system with iptables and nftables for it"
            ),
        };
        let platform = Platform { os: own.os.clone(), architecture };
        Ok(Sources { programs, root, platform, version: arguments.tag.clone(), revision: arguments.revision.clone() })
    };
    arguments.programs.iter().map(of).collect()
}
