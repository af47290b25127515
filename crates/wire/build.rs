//! Compiles the protocol definitions with protox, so that no machine needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/istio/workload.proto",
        "proto/istio/security.proto",
        "proto/istio/auth.proto",
        "proto/envoy/discovery.proto",
        "proto/weft/node.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // Sorted maps: the same value always has the same bytes, which versions are hashes of.
        .btree_map(".")
        // Encoded resources are shared between streams, not copied.
        .bytes(".envoy.service.discovery.v3.Packed")
        .compile_fds(descriptors)?;
    Ok(())
}
