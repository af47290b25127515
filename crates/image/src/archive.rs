//! Config, manifest and index around layers: the OCI image layout (image-spec 1.1, image-layout.md) in a tar.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use crate::layer::{Layer, LayerError};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// For which machines: Go's words (`GOOS`, `GOARCH`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
}

impl Platform {
    /// The one that this program runs on.
    #[must_use]
    pub fn own() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned() }
    }
}

/// How a container of the image is started.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// `uid:gid`; empty: root.
    pub user: String,
    /// `org.opencontainers.image.version` and the like.
    pub labels: BTreeMap<String, String>,
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// For which machines.
    pub platform: Platform,
    /// How it is started.
    pub config: Config,
    /// Its files, lowest layer first.
    pub layers: Vec<Layer>,
}

/// An archive that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A layer cannot be made.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The file cannot be written.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// Writes `name` (`registry/repository:tag`) with one image for each platform to `path`, and gives its digest: that of the index,
/// the same for the same input.
///
/// # Errors
/// See [`ArchiveError`]. The file appears whole or not at all.
pub fn write(path: &Path, name: &str, images: &[Image]) -> Result<String, ArchiveError> {
    let mut blobs = BTreeMap::new();
    let manifests = images.iter().map(|image| manifest(image, &mut blobs)).collect::<Result<Vec<_>, _>>()?;
    let digest_of_index;
    let top = if let [only] = &manifests[..] {
        digest_of_index = text(&only["digest"]);
        only.clone()
    } else {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let descriptor = put(&mut blobs, INDEX, index.to_string().into_bytes());
        digest_of_index = text(&descriptor["digest"]);
        descriptor
    };
    let files = layout(name, top, blobs);
    let failed = |cause| ArchiveError::Write { path: path.to_owned(), cause };
    let partial = path.with_extension("partial");
    write_tar(&partial, &files).and_then(|()| std::fs::rename(&partial, path)).map_err(failed)?;
    Ok(digest_of_index)
}

/// The manifest of one platform, as its descriptor in an index.
fn manifest(image: &Image, blobs: &mut BTreeMap<String, Vec<u8>>) -> Result<Value, LayerError> {
    let tars = image.layers.iter().map(Layer::to_tar).collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<Value> = tars.into_iter().map(|tar| put(blobs, LAYER, tar)).collect();
    let Config { entrypoint, environment, user, labels } = &image.config;
    let config = json!({
        "architecture": image.platform.architecture,
        "os": image.platform.os,
        "config": { "Entrypoint": entrypoint, "Env": environment, "User": user, "WorkingDir": "/", "Labels": labels },
        // Layers are not compressed: their digests and those of their tars are the same.
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|layer| layer["digest"].clone()).collect::<Vec<_>>() },
    });
    let config = put(blobs, CONFIG, config.to_string().into_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let mut descriptor = put(blobs, MANIFEST, manifest.to_string().into_bytes());
    descriptor["platform"] = json!({ "os": image.platform.os, "architecture": image.platform.architecture });
    Ok(descriptor)
}

/// The files of the layout.
fn layout(name: &str, mut top: Value, blobs: BTreeMap<String, Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    // containerd takes the whole name from its own annotation; others read the tag.
    top["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [top] });
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ];
    files.extend(blobs.into_iter().map(|(digest, bytes)| (format!("blobs/sha256/{digest}"), bytes)));
    files
}

/// Stores a blob and describes it.
fn put(blobs: &mut BTreeMap<String, Vec<u8>>, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let descriptor = json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() });
    blobs.insert(digest, bytes);
    descriptor
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn write_tar(path: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let mut builder = Builder::new(io::BufWriter::new(std::fs::File::create(path)?));
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, &**bytes)?;
    }
    builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use serde_json::Value;
    use sha2::{Digest, Sha256};

    use super::{Config, Image, Platform, write};
    use crate::layer::Layer;

    fn image(architecture: &str) -> Image {
        let mut layer = Layer::default();
        layer.file("/usr/bin/program", 0o755, architecture);
        let platform = Platform { os: "linux".to_owned(), architecture: architecture.to_owned() };
        Image {
            platform,
            config: Config { entrypoint: vec!["/usr/bin/program".to_owned()], ..Config::default() },
            layers: vec![layer],
        }
    }

    fn files(path: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
        let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        };
        archive.entries().unwrap().map(read).collect()
    }

    /// Follows a descriptor, and checks what it says.
    fn follow(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!(bytes.len(), usize::try_from(descriptor["size"].as_u64().unwrap()).unwrap());
        let actual: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(actual, digest);
        bytes.clone()
    }

    #[test]
    fn every_descriptor_leads_to_what_it_describes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        let digest = write(&path, "localhost/weft/program:v1", &[image("amd64"), image("arm64")]).unwrap();
        let files = files(&path);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let top = &index["manifests"][0];
        assert_eq!(top["digest"], *digest);
        assert_eq!(top["annotations"]["io.containerd.image.name"], "localhost/weft/program:v1");
        let platforms: Value = serde_json::from_slice(&follow(&files, top)).unwrap();
        for (descriptor, architecture) in platforms["manifests"].as_array().unwrap().iter().zip(["amd64", "arm64"]) {
            assert_eq!(descriptor["platform"]["architecture"], architecture);
            let manifest: Value = serde_json::from_slice(&follow(&files, descriptor)).unwrap();
            let config: Value = serde_json::from_slice(&follow(&files, &manifest["config"])).unwrap();
            assert_eq!(config["architecture"], architecture);
            assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
            let layer = follow(&files, &manifest["layers"][0]);
            assert!(tar::Archive::new(&*layer).entries().unwrap().count() > 0);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_digest_and_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one.tar"), folder.path().join("other.tar"));
        let digest = write(&one, "localhost/weft/program:v1", &[image("amd64")]).unwrap();
        assert_eq!(digest, write(&other, "localhost/weft/program:v1", &[image("amd64")]).unwrap());
        assert_eq!(std::fs::read(one).unwrap(), std::fs::read(other).unwrap());
        assert_ne!(digest, write(&folder.path().join("x"), "localhost/weft/program:v1", &[image("arm64")]).unwrap());
        assert!(write("/no/such/place".as_ref(), "a:b", &[]).unwrap_err().to_string().contains("/no/such/place"));
    }
}
