//! `weft-cluster`: a real Kubernetes cluster on this machine, for tests. All of it is in the library.

fn main() -> anyhow::Result<()> {
    weft_cluster::run()
}
