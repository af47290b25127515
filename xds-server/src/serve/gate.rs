//! The gate before all services: a request goes on with its [`Caller`](super::Caller), or is answered with a refusal.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use super::caller::{Authenticate, identify};

/// Puts a [`Gate`] before a service.
#[derive(Clone)]
pub(super) struct GateLayer(pub(super) Arc<dyn Authenticate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, authenticate: self.0.clone() }
    }
}

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Gate<S> {
    inner: S,
    authenticate: Arc<dyn Authenticate>,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let authenticate = self.authenticate.clone();
        // The one that was said to be ready, not its clone.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            let metadata = MetadataMap::from_headers(request.headers().clone());
            match identify(&*authenticate, &metadata, remote(&request)).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(refusal) => Ok(Status::into_http(refusal)),
            }
        })
    }
}

fn remote(request: &Request<Body>) -> Option<std::net::SocketAddr> {
    request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr)
}
