//! The listeners of the admin pages, metrics and health, which a proxy and its successor share for a moment.
//!
//! ```text
//! first of its node:  bind, listen, serve ------------------------> retired: a second more, then closed
//! successor:               bind beside (SO_REUSEPORT), wait ... ready, or nobody answers there: listen, serve
//! ```
//!
//! A bound socket that does not listen gets no connection, so the older one answers until the younger one is ready. The
//! kernel lets only the same user share. Whoever holds a port and is no proxy of this node and handover socket is an error.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use weft_model::view::ConfigView;
use weft_runtime::admin::{Admin, BindError, Exposure, bind};
use weft_runtime::drain::{self, Watch};
use weft_runtime::readiness::Readiness;
use weft_runtime::shared::Reader;

use crate::config::ProxyOptions;
use crate::worker::served::Served;

/// Connections that wait for a page.
const BACKLOG: u32 = 128;
/// How long a page that is asked who it is may take; it is on this machine.
const ANSWER: Duration = Duration::from_secs(2);
/// The longest answer that is read, bytes; with the findings of a large mesh it has some 100 KB.
const LONGEST_ANSWER: u64 = 4 << 20;
/// How often it is looked whether the older proxy still answers.
const LOOK: Duration = Duration::from_millis(200);
/// A retired proxy's pages go on for this long: its successor begins to listen at about the same moment.
const OVERLAP: Duration = Duration::from_secs(1);

/// Setting that names the handover socket in `weft config`; with the node it says whose successor a proxy is.
pub(super) const HANDOVER: &str = "handover";

/// The listeners, bound.
pub(super) struct Pages {
    places: Vec<Place>,
    /// Another proxy of this node answers there.
    beside: bool,
}

struct Place {
    address: SocketAddr,
    setting: &'static str,
    exposure: Exposure,
    socket: TcpSocket,
}

impl Pages {
    /// Binds all three, so that a taken port is said at the start.
    ///
    /// # Errors
    /// [`BindError`].
    pub(super) async fn bind(options: &ProxyOptions, node: &str, handover: &Path) -> Result<Self, BindError> {
        let mut beside = false;
        let mut places = Vec::new();
        for (address, setting, exposure) in [
            (options.admin, "--admin", Exposure::Everything),
            (options.metrics, "--metrics", Exposure::Observers),
            (options.health, "--health", Exposure::Observers),
        ] {
            // Alone if possible: sharing with a program that happens to be of the same user must be an error.
            match bind(address, setting).await {
                Ok(free) => drop(free),
                Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
                    beside = beside || is_ours(options.admin, node, handover).await;
                    if !beside {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            let socket = share(address).map_err(|source| BindError { address, setting: setting.into(), source })?;
            places.push(Place { address, setting, exposure, socket });
        }
        if beside {
            tracing::info!("another proxy of this node answers on the ports of the pages; taking them over when ready");
        }
        Ok(Self { places, beside })
    }

    /// Answers until the watch is signalled; not while a newer proxy serves.
    pub(super) async fn serve(mut self, admin: Admin, readiness: Readiness, mut served: Reader<Served>, drain: Watch) {
        let over = drain.observer();
        loop {
            if self.beside {
                wait_for_turn(&readiness, self.places[0].address).await;
            }
            let (round, watch) = drain::channel();
            let mut tasks = JoinSet::new();
            let places: Vec<_> =
                self.places.iter().map(|place| (place.address, place.setting, place.exposure)).collect();
            for place in self.places {
                match place.socket.listen(BACKLOG) {
                    Ok(listener) => _ = tasks.spawn_local(admin.clone().serve(listener, place.exposure, watch.clone())),
                    Err(error) => tracing::error!(%error, setting = place.setting, "this page is not served"),
                }
            }
            drop(watch);
            tokio::select! {
                _ = over.signalled() => {}
                retired = served.wait_until(Served::is_retired) => if retired.is_ok() { sleep(OVERLAP).await },
            }
            // Requests that are open are answered.
            let _outcome = round.drain(OVERLAP).await;
            if over.mode().is_some() || served.wait_until(|served| !served.is_retired()).await.is_err() {
                return;
            }
            // The newer one has died and this one serves again.
            self.places = Vec::new();
            self.beside = true;
            for (address, setting, exposure) in places {
                match share(address) {
                    Ok(socket) => self.places.push(Place { address, setting, exposure, socket }),
                    Err(error) => tracing::error!(%error, setting, "this page is not served any more"),
                }
            }
        }
    }
}

fn share(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Until this proxy is ready, or nobody answers there any more: what it waits for must then be visible.
async fn wait_for_turn(readiness: &Readiness, admin: SocketAddr) {
    let nobody = async {
        while TcpStream::connect(admin).await.is_ok() {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = readiness.ready() => {}
        () = nobody => {}
    }
}

/// Whether a proxy of the same node and handover socket answers on an admin port.
async fn is_ours(admin: SocketAddr, node: &str, handover: &Path) -> bool {
    match timeout(ANSWER, ask(admin)).await {
        Ok(Ok(view)) => {
            let is = |name: &str, value: &str| view.settings.get(name).is_some_and(|found| found == value);
            is("node", node) && is(HANDOVER, &handover.display().to_string())
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, %admin, "whoever answers there is no proxy");
            false
        }
        Err(_late) => false,
    }
}

async fn ask(admin: SocketAddr) -> io::Result<ConfigView> {
    let mut stream = TcpStream::connect(admin).await?;
    // Version 1.0: the answer ends with the connection and is not cut into chunks.
    stream.write_all(b"GET /debug/config HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "not the answer of a proxy");
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(strange)? + 4;
    serde_json::from_slice(&answer[body..]).map_err(|_| strange())
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::share;

    #[tokio::test]
    async fn a_bound_socket_beside_a_listener_gets_nothing_until_it_listens() {
        let first = share("127.0.0.1:0".parse().unwrap()).unwrap().listen(8).unwrap();
        let address = first.local_addr().unwrap();
        let second = share(address).unwrap();
        assert!(TcpListener::bind(address).await.is_err(), "who does not share gets nothing");
        for _ in 0..20 {
            let _caller = TcpStream::connect(address).await.unwrap();
            first.accept().await.unwrap();
        }
        let second = second.listen(8).unwrap();
        drop(first);
        let _caller = TcpStream::connect(address).await.unwrap();
        second.accept().await.unwrap();
    }
}
