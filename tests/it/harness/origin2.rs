//! An origin that speaks HTTP/2 over TLS, and answers as the test says.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use h2::server::SendResponse;
use http::request::Parts;
use tokio_rustls::TlsAcceptor;

use super::{Authority, Leaf, blog_at, server_config, whole};

/// A running origin. Its thread ends with the test's process.
pub struct Http2Origin {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Parts>>>,
}

impl Http2Origin {
    /// Answers each request, once its body is there, as the function does it.
    pub fn start(leaf: &Leaf, answer: impl Fn(&Parts, &mut SendResponse<Bytes>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let acceptor = TlsAcceptor::from(server_config(leaf, &[b"h2"]));
        let received: Arc<Mutex<Vec<Parts>>> = Arc::default();
        let (list, answer) = (received.clone(), Arc::new(answer));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let (acceptor, list, answer) = (acceptor.clone(), list.clone(), answer.clone());
                    tokio::spawn(async move {
                        let tls = acceptor.accept(socket).await?;
                        let mut connection = h2::server::handshake(tls).await.map_err(std::io::Error::other)?;
                        while let Some(Ok((request, mut respond))) = connection.accept().await {
                            let (list, answer) = (list.clone(), answer.clone());
                            tokio::spawn(async move {
                                let (parts, mut body) = request.into_parts();
                                let _ = whole(&mut body).await;
                                list.lock().unwrap().push(parts.clone());
                                answer(&parts, &mut respond);
                            });
                        }
                        Ok::<_, std::io::Error>(())
                    });
                }
            });
        });
        Self { address, received }
    }

    /// A site for [`super::BLOG`] in front of it. Its certificate is for `up.example.net`.
    pub fn site(&self, authority: &Authority) -> String {
        let options =
            format!("[site.upstream_options]\nconnect = \"{}\"\nca = {:?}\n", self.address, authority.ca_path());
        blog_at(authority, "https://up.example.net") + &options
    }

    pub fn received(&self) -> Vec<Parts> {
        self.received.lock().unwrap().clone()
    }
}
