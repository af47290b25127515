//! Makes every part of the control plane, joins them, and ends them in order.
//!
//! ```text
//! source -> pipeline (translate, catalog) -> ads -> nodes
//!              ^                              ca -> nodes (placement says who may have what)
//!              '---------- captured <- reports <-- nodes -> status (conditions of policies)
//! ```

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use weft_identity::control::{Incoming, ServingSource};
use weft_identity::signer::{LeafLifetime, Signer};
use weft_model::Uid;
use weft_runtime::admin::{Admin, Exposure, bind};
use weft_runtime::metrics::Registry;
use weft_runtime::readiness::{Guard, Readiness};
use weft_runtime::shared::Reader;
use weft_runtime::signals::Signals;
use weft_runtime::{drain, logging};
use weft_wire::proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;

use crate::ca::{CaMetrics, CaSettings, CertificateService, Keeper, RootSource};
use crate::config::Arguments;
use crate::pipeline::{Pipeline, Served};
use crate::platform::Platform;
use crate::sections::{Sources, register, shown_settings};
use crate::serve::{self, Ads, AdsSettings, Nodes, Reports, ServeMetrics};

/// Runs until a signal comes, then drains.
///
/// # Errors
/// When it cannot start: the state directory, a file or an address is unusable.
pub async fn run(arguments: Arguments, logging: logging::Handle) -> anyhow::Result<()> {
    weft_identity::tls::install_default_provider();
    let mut signals = Signals::new()?;
    let registry = Registry::new("weft-xds-server", env!("CARGO_PKG_VERSION"));
    let readiness = Readiness::new();
    let mut tasks = JoinSet::new();

    let mut platform = Platform::open(&arguments, &registry).await?;
    let cluster = platform.cluster.take();
    if let Some(cluster) = &cluster {
        cluster.fetch_root(&arguments).await.context("the root of the certificate authority")?;
    }
    let (keeper, signer) =
        Keeper::open(ca_settings(&arguments, cluster.is_some()), weft_identity::clock::system(), &registry)?;
    tasks.spawn(keeper.run());
    if let Some(cluster) = &cluster {
        cluster.publish_roots(&arguments, signer.clone(), &mut tasks);
    }
    let (pipeline, served) = Pipeline::new(platform.outcomes.clone(), platform.captured.clone(), arguments.mesh());
    tasks.spawn(pipeline.run());
    tasks.spawn(open_when_read(served.clone(), readiness.wait_for("source: read for the first time")));

    let nodes = Nodes::new();
    let sources = Sources {
        served: served.clone(),
        outcomes: platform.outcomes.clone(),
        nodes: nodes.clone(),
        tokens: platform.tokens.clone(),
        signer: signer.clone(),
        settings: shown_settings(&arguments),
    };
    let admin = register(Admin::new(readiness.clone(), registry.clone()).logging(logging), &sources);
    let (pages, page_watch) = drain::channel();
    let page_listener = bind(arguments.admin, "--admin").await?;
    if let Some(address) = arguments.health {
        let listener = bind(address, "--health").await?;
        tasks.spawn(admin.clone().serve(listener, Exposure::Observers, page_watch.clone()));
    }
    tasks.spawn(admin.serve(page_listener, Exposure::Everything, page_watch));

    let (trigger, watch) = drain::channel();
    if let Some(cluster) = &cluster {
        let leadership = cluster.keep_status(&arguments, (&served, &nodes), watch.clone(), &mut tasks);
        cluster.keep_root(&arguments, (signer.clone(), leadership), &mut tasks);
    }
    let metrics = ServeMetrics::new(&registry);
    let ads = Ads::new(AdsSettings {
        catalog: served.catalog.clone(),
        nodes,
        metrics: metrics.clone(),
        drain: watch.clone(),
        limits: weft_wire::delta::Limits::default(),
        reports_due: (!platform.remembers).then(|| tokio::time::Instant::now() + serve::REPORTS_TIME),
    });
    let placement = served.placement.clone();
    let node_of = move |uid: &Uid| placement.read(|placement| placement.node_of(uid).cloned());
    let reports = Reports::new(platform.keep.clone(), node_of, metrics);
    let certificates = certificates(&arguments, &signer, &served, &registry);
    let incoming = incoming(&arguments, signer).await?;
    let authenticate = platform.authenticate.clone();
    let more = |routes: tonic::service::Routes| {
        let certificates = IstioCertificateServiceServer::new(certificates);
        routes.add_service(certificates.max_decoding_message_size(crate::ca::REQUEST_LIMIT))
    };
    let mut server = tokio::spawn(serve::serve(incoming, authenticate, (ads, reports), more, watch));
    tracing::info!(listen = %arguments.listen, admin = %arguments.admin, source = %arguments.source, "serving");

    let ended = tokio::select! {
        signal = signals.next() => {
            tracing::info!(?signal, "draining");
            Ok(())
        }
        outcome = &mut server => Err(anyhow::anyhow!("the gRPC server ended: {outcome:?}")),
        Some(task) = tasks.join_next() => Err(anyhow::anyhow!("a part of the control plane ended: {task:?}")),
    };
    let outcome = trigger.drain(arguments.drain_deadline).await;
    tracing::info!(?outcome, "drained");
    drop(platform);
    let _outcome = pages.drain(Duration::from_secs(1)).await;
    tasks.shutdown().await;
    ended
}

/// `shared`: the root is the cluster's, in a Secret.
fn ca_settings(arguments: &Arguments, shared: bool) -> CaSettings {
    let source = match (&arguments.ca_cert, &arguments.ca_key) {
        (Some(certificate), Some(key)) => RootSource::Given {
            certificate: certificate.clone(),
            key: key.clone(),
            more_roots: arguments.ca_roots.clone(),
        },
        _ if shared => RootSource::Shared,
        _ => RootSource::Own,
    };
    CaSettings {
        state_dir: arguments.state_dir.clone(),
        source,
        trust_domain: arguments.trust_domain.clone(),
        lifetime: LeafLifetime::up_to(arguments.certificate_life),
    }
}

fn certificates(
    arguments: &Arguments,
    signer: &Reader<Signer>,
    served: &Served,
    registry: &Registry,
) -> CertificateService {
    let placement = served.placement.clone();
    CertificateService::new(
        signer.clone(),
        &arguments.trust_domain,
        Arc::new(|extensions| serve::caller_of(extensions).map(|caller| caller.node)),
        Arc::new(move |node, identity| placement.read(|placement| placement.runs_on(node, identity))),
        weft_identity::clock::system(),
        CaMetrics::new(registry),
    )
}

/// Listens, with a certificate for every name that agents may know this server by.
async fn incoming(arguments: &Arguments, signer: Reader<Signer>) -> anyhow::Result<Incoming> {
    let listener: TcpListener = bind(arguments.listen, "--listen").await?;
    let source = ServingSource::new(signer, &arguments.serving_names(), weft_identity::clock::system())?;
    Ok(Incoming::tls(listener, source))
}

/// Ready means: whoever subscribes now gets the whole mesh.
async fn open_when_read(served: Served, gate: Guard) {
    let mut catalog = served.catalog;
    if catalog.wait_until(Option::is_some).await.is_ok() {
        drop(gate);
    }
    std::future::pending::<()>().await;
}
