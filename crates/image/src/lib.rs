//! Container images without a container engine: files in, an OCI archive out (image-spec 1.1, "image layout" in a tar).
//!
//! `ctr images import`, `kind load image-archive`, `podman load` and `skopeo copy oci-archive:` take it. The same files give the
//! same bytes, so the same digest: no time, no user and no order of a directory gets in. One archive may hold the image for several
//! platforms.
//!
//! - [`layer`]: the files, and the tar that holds them.
//! - [`archive`]: config, manifest and index around layers.
//! - [`recipes`]: what is in the images of Weft.
//! - [`libraries`]: what a program of the machine needs beside it to run elsewhere.

pub mod archive;
pub mod layer;
pub mod libraries;
pub mod recipes;

pub use archive::{Config, Image, Platform, write};
pub use layer::{Layer, LayerError};
