//! HTTP/1.1 as pods speak it: hyper at both ends, so that a request costs the pods what it costs real ones. (A bare loop over
//! sockets that counts bytes makes the direct path 1.3 to 1.6 times faster, and every mesh look that much worse.)

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use socket2::Socket;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use super::drive::{PATIENCE, Tally, Work};
use super::seen::Seen;
use super::wire::BODY;

/// Answers, on `loops` threads that take what `listener` accepts in turn; ends when the listener is shut down.
pub(super) fn serve(listener: &Socket, loops: usize, seen: &Arc<Seen>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..loops).map(|_| mpsc::unbounded_channel()).unzip();
    for taken in receivers {
        let seen = Arc::clone(seen);
        let run = move || serve_taken(&seen, taken);
        // Without it the load finds nobody, and says so.
        let _ = std::thread::Builder::new().name("bench-http".into()).spawn(run);
    }
    for sender in senders.iter().cycle() {
        let Ok((socket, _)) = listener.accept() else { return };
        seen.open.fetch_add(1, Ordering::Relaxed);
        seen.accepted.fetch_add(1, Ordering::Relaxed);
        let _ = sender.send(socket.into());
    }
}

fn serve_taken(seen: &Arc<Seen>, mut taken: mpsc::UnboundedReceiver<std::net::TcpStream>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        while let Some(stream) = taken.recv().await {
            let seen = Arc::clone(seen);
            spawn_local(async move {
                // The client says what went wrong, if anything did.
                let _ = serve_one(stream).await;
                seen.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(())
    })
}

async fn serve_one(stream: std::net::TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = TokioIo::new(TcpStream::from_std(stream)?);
    let service = service_fn(answer);
    hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await.map_err(Error::other)
}

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    const DOTS: &[u8] = &[b'.'; BODY];
    let mut response = Response::new(Full::new(Bytes::from_static(DOTS)));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Requests on kept connections, each connection's one after the other.
#[must_use]
pub fn requests(connections: usize) -> Work {
    Arc::new(move |control, target| {
        on_one_thread(connections, |tally| {
            let control = Arc::clone(control);
            async move {
                let (mut sender, _connection) = connect(target).await?;
                while !control.over() {
                    let begin = Instant::now();
                    exchange(&mut sender, get(target, false)?).await?;
                    control.done(&mut tally.borrow_mut(), begin.elapsed());
                }
                Ok(())
            }
        })
    })
}

/// New connections, each worker's one after the other: connect, ask, read the answer, wait for the server to close.
#[must_use]
pub fn connections(workers: usize) -> Work {
    Arc::new(move |control, target| {
        on_one_thread(workers, |tally| {
            let control = Arc::clone(control);
            async move {
                while !control.over() {
                    let begin = Instant::now();
                    match once(target).await {
                        Ok(()) => control.done(&mut tally.borrow_mut(), begin.elapsed()),
                        Err(error) => tally.borrow_mut().failed(&error),
                    }
                }
                Ok(())
            }
        })
    })
}

type Shared = Rc<RefCell<Tally>>;

/// `count` tasks on a thread of their own.
fn on_one_thread<F>(count: usize, task: impl Fn(Shared) -> F) -> Tally
where
    F: Future<Output = std::io::Result<()>> + 'static,
{
    let tally = Shared::default();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => LocalSet::new().block_on(&runtime, async {
            let tasks: Vec<_> = (0..count).map(|_| spawn_local(task(Rc::clone(&tally)))).collect();
            for task in tasks {
                match task.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tally.borrow_mut().failed(&error),
                    Err(error) => tally.borrow_mut().failed(&Error::other(error)),
                }
            }
        }),
        Err(error) => tally.borrow_mut().failed(&error),
    }
    tally.take()
}

async fn connect(target: SocketAddr) -> std::io::Result<(SendRequest<Full<Bytes>>, JoinHandle<()>)> {
    let stream = in_time(TcpStream::connect(target)).await??;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Error::other)?;
    // What it ends with is known to whoever waits for an answer.
    Ok((sender, spawn_local(async { connection.await.unwrap_or_default() })))
}

fn get(target: SocketAddr, last: bool) -> std::io::Result<Request<Full<Bytes>>> {
    let request = Request::get("/api/items/42").header(HOST, target.to_string());
    let request = request.header(USER_AGENT, "weft-bench").header(ACCEPT, "*/*");
    let request = if last { request.header(CONNECTION, "close") } else { request };
    request.body(Full::default()).map_err(Error::other)
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> std::io::Result<()> {
    in_time(async {
        sender.ready().await.map_err(Error::other)?;
        read(sender.send_request(request).await.map_err(Error::other)?).await
    })
    .await?
}

async fn once(target: SocketAddr) -> std::io::Result<()> {
    let (mut sender, connection) = connect(target).await?;
    exchange(&mut sender, get(target, true)?).await?;
    in_time(connection).await?.map_err(Error::other)
}

/// Reads an answer to its end.
async fn read(response: Response<Incoming>) -> std::io::Result<()> {
    let (mut body, mut length) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        length += frame.map_err(Error::other)?.data_ref().map_or(0, Bytes::len);
    }
    if length == BODY { Ok(()) } else { Err(Error::from(ErrorKind::UnexpectedEof)) }
}

async fn in_time<T>(what: impl Future<Output = T>) -> std::io::Result<T> {
    timeout(PATIENCE, what).await.map_err(|_| Error::from(ErrorKind::TimedOut))
}
