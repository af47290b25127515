//! What is in the images of Weft: our programs, and what they execute. Static programs bring nothing along; of others, and of the packet
//! filter's, everything that they load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::archive::{Config, Image, Platform};
use crate::layer::{Layer, LayerError};
use crate::libraries::with_libraries;

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The last part of its name.
    pub name: &'static str,
    /// Our programs in it; the first is what a container runs.
    pub programs: &'static [&'static str],
    /// Whether it changes packet filters.
    filters: bool,
    /// `uid:gid` where the manifest names none.
    user: &'static str,
}

/// All of them.
pub const RECIPES: [Recipe; 2] = [
    // `weft` is there for jobs in the cluster, such as Helm's hook.
    Recipe { name: "xds-server", programs: &["weft-xds-server", "weft"], filters: false, user: "65534:65534" },
    Recipe {
        name: "node-agent",
        programs: &["weft-node-agent", "weft-node-agent-capture", "weft-node-agent-watch", "weft-cni"],
        filters: true,
        user: "0:0",
    },
];

/// Names under which one program of iptables is called.
const VERBS: [&str; 4] = ["iptables-{}-save", "iptables-{}-restore", "ip6tables-{}-save", "ip6tables-{}-restore"];

/// Where things are taken from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Our programs.
    pub programs: PathBuf,
    /// The root of a file system with the packet filter's programs, of the same architecture.
    pub root: PathBuf,
    /// For which machines both are.
    pub platform: Platform,
    /// Stamped into the image.
    pub version: String,
    /// Of which commit it is, stamped likewise where it is known.
    pub revision: Option<String>,
}

impl Recipe {
    /// Makes the image.
    ///
    /// # Errors
    /// A file is missing.
    pub fn make(&self, sources: &Sources) -> Result<Image, LayerError> {
        let mut layer = Layer::default();
        layer.directory("/tmp", 0o1777);
        for program in self.programs {
            let path = sources.programs.join(program);
            let place = format!("/usr/bin/{program}");
            layer.copy(&place, 0o755, &path)?;
            for library in crate::libraries::of(&sources.root, &path)? {
                layer.copy(&library, 0o755, &below(&sources.root, &library))?;
            }
        }
        if self.filters {
            filters(&mut layer, &sources.root)?;
        }
        let entrypoint = self.programs.first().map(|program| format!("/usr/bin/{program}"));
        let mut labels = BTreeMap::from([
            ("org.opencontainers.image.title".to_owned(), format!("weft {}", self.name)),
            ("org.opencontainers.image.version".to_owned(), sources.version.clone()),
            ("org.opencontainers.image.licenses".to_owned(), "Apache-2.0".to_owned()),
        ]);
        if let Some(revision) = &sources.revision {
            labels.insert("org.opencontainers.image.revision".to_owned(), revision.clone());
        }
        let config = Config {
            entrypoint: entrypoint.into_iter().collect(),
            // Without it a copy of 1 KB or more is up to 2.5 times as slow by luck of addresses (docs/decisions).
            environment: vec!["GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000".to_owned()],
            user: self.user.to_owned(),
            labels,
        };
        Ok(Image { platform: sources.platform.clone(), config, layers: vec![layer] })
    }
}

/// iptables with both back ends and all its extensions, and nft.
fn filters(layer: &mut Layer, root: &Path) -> Result<(), LayerError> {
    for back_end in ["nft", "legacy"] {
        let program = format!("/usr/sbin/xtables-{back_end}-multi");
        with_libraries(layer, root, &program)?;
        for verb in VERBS {
            layer.link(&format!("/usr/sbin/{}", verb.replace("{}", back_end)), &format!("xtables-{back_end}-multi"));
        }
    }
    with_libraries(layer, root, "/usr/sbin/nft")?;
    for extension in crate::libraries::in_folder(root, "xtables") {
        with_libraries(layer, root, &extension)?;
    }
    Ok(())
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
