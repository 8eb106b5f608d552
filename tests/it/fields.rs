//! Fields that pass, and fields that do not: claims of strangers, names that look like others, trailers, long lists.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Authority, BLOG, Client, Leaf, Origin, Pintle, Reply, blog, blog_at, eventually, output, server_config, whole,
};

/// Fields in which proxies tell servers about clients. None of them passes.
const CLAIMS: &[&str] = &[
    "Proxy",
    "Client-IP",
    "True-Client-IP",
    "X-Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "CF-Visitor",
    "X-Real-IP",
    "X-Cluster-Client-IP",
    "Fastly-Client-IP",
    "X-Original-Forwarded-For",
    "X-ProxyUser-Ip",
    "Fly-Client-IP",
    "X-Azure-ClientIP",
    "X-Azure-SocketIP",
    "X-Envoy-External-Address",
    "WL-Proxy-Client-IP",
    "Proxy-Client-IP",
    "Front-End-Https",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-Host",
    "X-Host",
    "X-Forwarded-Server",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Ssl",
    "X-Forwarded-Scheme",
    "X-Forwarded",
    "Forwarded-For",
    "X-Forward-For",
    "X-Scheme",
    "X-Url-Scheme",
    "Remote-Addr",
    "X-Remote-User",
    "SSL-Client-Cert",
    "X-SSL-Client-Verify",
    "Client-Cert",
    "X-Accel-Mapping",
    "X-Sendfile-Type",
    "X-Original-URI",
    "CloudFront-Viewer-Address",
    "X-ARR-SSL",
    "Cdn-Real-Ip",
    "Cdn-Client-Ip",
    "X-EC-Client-IP",
    "X-Edge-Client-IP",
    "Real-IP",
    "X-Peer-Ip",
    "X-Source-Ip",
    "X-IP",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-User",
    "X-Authenticated-User",
    "X-WEBAUTH-USER",
    "X-Goog-Authenticated-User-Email",
    "X-Goog-IAP-JWT-Assertion",
    "Cf-Access-Authenticated-User-Email",
    "Cf-Access-Jwt-Assertion",
    "Tailscale-User-Login",
    "X-Consumer-Username",
    "X-Userinfo",
    "X-Apigateway-Api-Userinfo",
    "X-TLS-Client-Cert",
    "X-Client-SSL",
    "X-Cert-Subject",
    "X-Override-URL",
    "X-Script-Name",
    "SCRIPT_NAME",
    "X-Backend-Host",
    "X-Base-Url",
    "Request-Uri",
    "X-Middleware-Subrequest",
    "Remote-Groups",
    "X-Pomerium-Jwt-Assertion",
    "X-Authentik-Username",
    "X-Vouch-User",
    "X-MS-Token-AAD-Id-Token",
    // What looks like one of them, or like a field that we answer for.
    "Client_IP",
    "X_Real_IP",
    "X.Original.URL",
    "X!Forwarded!Proto",
    "X~Forwarded~For",
    "X_Forwarded_Prefix",
    "Content_Length",
    "Transfer.Encoding",
    "Front_End_Https",
    "CF*Connecting*IP",
];

/// Fields of everyday, which pass.
const OTHERS: &[&str] = &[
    "Authorization",
    "Content-Language",
    "X-Requested-With",
    "X-HTTP-Method-Override",
    "X-Request-ID",
    "CDN-Loop",
    "x_a",
    "X-Amzn-Trace-Id",
    "Sec-Fetch-Mode",
    "X-Client-Version",
    "X-CSRF-Token",
    "X-WP-Nonce",
    "X-Auth-Token",
];

#[test]
fn claims_pass_from_nobody() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin);
    for listen in [""] {
        let pintle = Pintle::start_listening(&authority, listen, &config);
        let path = format!("/{}", listen.len());
        let line = |name: &&str| format!("{name}: 203.0.113.7\r\n");
        for (at, part) in CLAIMS.chunks(25).enumerate() {
            let fields: String = part.iter().chain(OTHERS).map(line).collect();
            let path = format!("{path}/h1/{at}");
            let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
            assert_eq!(connection.response("GET").status, 200);
            only_others(&origin.request(&path));
        }
        for (at, part) in CLAIMS.chunks(50).enumerate() {
            let path = format!("{path}/h2/{at}");
            let mut curl = pintle.curl();
            for name in part.iter().chain(OTHERS) {
                curl.arg("--header").arg(format!("{name}: 203.0.113.7"));
            }
            output(curl.args(["--http2", &format!("https://{BLOG}{path}")]));
            only_others(&origin.request(&path));
        }
    }
}

fn only_others(received: &crate::harness::Received) {
    for name in CLAIMS {
        assert!(received.fields(name).iter().all(|value| !value.contains("203.0.113.7")), "{name}: {}", received.head);
    }
    for name in OTHERS {
        assert_eq!(received.field(name), Some("203.0.113.7"), "{name}");
    }
}

#[test]
fn rules_hold_for_names_that_look_alike() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        let fields = "X_Powered_By: PHP\r\nX.Powered.By: PHP\r\nX-Powered-By: PHP\r\nX_Test: 1\r\nx.test: 2\r\n";
        Reply::new("200 OK", fields, "")
    });
    let rules = "[site.request_headers]\nset = { \"X-Edge\" = \"pintle\" }\nremove = [\"X-User\", \"A_b\"]\n\
                 [site.response_headers]\nset = { \"X-Test\" = \"ours\" }\nremove = [\"X-Powered-By\"]\n";
    let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + rules));
    let names = [
        "X-Edge", "x_edge", "X.Edge", "X!Edge", "X~Edge", "X-User", "X_User", "X.User", "x|user", "X*USER", "A-B",
        "A.b",
    ];
    let fields: String = names.iter().map(|name| format!("{name}: evil\r\n")).collect();
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET /rules HTTP/1.1\r\nHost: {BLOG}\r\n{fields}X-Users: 1\r\nXEdge: 2\r\n\r\n"));
    let response = connection.response("GET");
    assert_eq!((response.one("x-test"), response.field("x-powered-by")), ("ours", None));
    for name in ["x_test", "x.test", "x_powered_by", "x.powered.by"] {
        assert_eq!(response.field(name), None, "{name}");
    }
    let received = origin.request("/rules");
    assert!(!received.head.contains("evil"), "{}", received.head);
    assert_eq!(received.fields("x-edge"), ["pintle"]);
    assert_eq!((received.field("x-users"), received.field("xedge")), (Some("1"), Some("2")));
}

/// A member for each field, and a field for each member: the time is that of reading them, and not of comparing all.
#[test]
fn fields_that_long_connection_lists_name() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let limits = "[limits]\nheader_size = \"1MiB\"\nfield_size = \"1MiB\"\nheader_count = 128\n";
    let pintle = Pintle::start(&authority, &(limits.to_owned() + &blog(&authority, &origin)));
    let fields: String = (0..110).map(|n| format!("X-F{n}: {n}\r\n")).collect();
    let list: String = (0..60_000).map(|n| format!("x-f{},", n * 2)).collect();
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    for n in 0..5 {
        connection.send(format!("GET /{n} HTTP/1.1\r\nHost: {BLOG}\r\n{fields}Connection: {list}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, 200);
        let received = origin.request(&format!("/{n}"));
        for n in 0..110 {
            assert_eq!(received.field(&format!("x-f{n}")).is_some(), n % 2 == 1, "{n}");
        }
    }
    let long: String = (0..60_000).map(|n| format!("10.0.0.{}, ", n % 250)).collect();
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "Via"] {
        connection.send(format!("GET /{name} HTTP/1.1\r\nHost: {BLOG}\r\n{name}: {long}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, 200);
    }
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\nTrailer: X-User, X-Test,X_Test\r\nTrailer: Host\r\n\r\n2\r\nok\r\n\
                       0\r\nX-Test: sum\r\nX_Test: evil\r\nX-User: evil\r\ngrpc-status: 0\r\nAuthorization: evil\r\n\
                       CF-Connecting-IP: 192.0.2.1\r\n\r\n";

#[test]
fn trailers_pass_by_name_alone() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{CHUNKED}").into_bytes()));
    let both = |rule: &str| format!("[site.request_headers]\n{rule}[site.response_headers]\n{rule}");
    let named = "trailers = [\"X-test\", \"X-User\"]\nremove = [\"X-User\"]\n";
    for (rules, passing) in [(String::new(), ""), (both(named), "X-Test: sum\r\n")] {
        let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + &rules));
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        let path = format!("/{}", passing.len());
        connection.send(format!("POST {path} HTTP/1.1\r\nHost: {BLOG}\r\n{CHUNKED}"));
        let response = connection.response("POST");
        let trailers: String = response.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let announced = (!passing.is_empty()).then_some("X-Test");
        assert_eq!((trailers.as_str(), response.field("trailer")), (passing, announced));
        let received = origin.request(&path);
        assert_eq!((received.trailers.as_str(), received.field("trailer")), (passing, announced));
        assert_eq!(received.head.matches("Trailer:").count(), announced.into_iter().count());
        assert_eq!(received.body, b"ok");
        // HTTP/2 the same.
        let curl = output(pintle.curl().args(["--http2", "--include", &format!("https://{BLOG}/h2")]));
        assert_eq!(curl.contains("x-test: sum"), !passing.is_empty(), "{curl}");
        assert!(!curl.contains("evil") && !curl.contains("grpc-status"), "{curl}");
        assert_eq!(
            curl.to_ascii_lowercase().matches("trailer: x-test").count(),
            announced.into_iter().count(),
            "{curl}"
        );
        assert_eq!(eventually("it", || Some(origin.request("/h2"))).field("te"), None);
    }
}

/// An upstream with HTTP/2 that answers as gRPC does, and tells the TE that it got.
fn grpc(leaf: &Leaf) -> (SocketAddr, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(server_config(leaf, &[b"h2"]));
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(socket).await else { return };
                let Ok(mut connection) = h2::server::handshake(tls).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let te_sent = request.headers().get("te").map_or("", |te| te.to_str().unwrap());
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("trailer", "x-known, x-user")
                        .header("x-test", te_sent);
                    let mut send = respond.send_response(response.body(()).unwrap(), false).unwrap();
                    send.send_data(Bytes::from("message"), false).unwrap();
                    let mut trailers = http::HeaderMap::new();
                    for name in [
                        "grpc-status",
                        "grpc-message",
                        "grpc-status-details-bin",
                        "x-known",
                        "x-user",
                        "x-other",
                        "x-test",
                    ] {
                        trailers.insert(name, "0".parse().unwrap());
                    }
                    send.send_trailers(trailers).unwrap();
                }
            });
        }
    });
    (address, runtime)
}

#[test]
fn trailers_of_grpc_pass() {
    let authority = Authority::new();
    let (address, runtime) = grpc(&authority.leaf("upstream", &["up.example.net"]));
    let options = format!("[site.upstream_options]\nconnect = \"{address}\"\nca = {:?}\n", authority.ca_path());
    let rules = "[site.response_headers]\nremove = [\"X-User\"]\n";
    let config = blog_at(&authority, "https://up.example.net") + &options + rules;
    let pintle = Pintle::start(&authority, &config);
    let ask = async |kind: &str| {
        let mut sender = crate::http2::connect(&authority, &pintle).await.ready().await.unwrap();
        let request = http::Request::builder()
            .method("POST")
            .uri(format!("https://{BLOG}/service/Method"))
            .header("content-type", kind)
            .header("te", "trailers");
        let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let mut response = response.await.unwrap();
        let te = response.headers()["x-test"].to_str().unwrap().to_owned();
        let announced = response.headers().get("trailer").map(|names| names.to_str().unwrap().to_owned());
        assert_eq!(announced.as_deref(), (!te.is_empty()).then_some("x-known"));
        assert_eq!(whole(response.body_mut()).await.unwrap(), b"message");
        let trailers = response.body_mut().trailers().await.unwrap().unwrap_or_default();
        let mut names: Vec<String> = trailers.keys().map(ToString::to_string).collect();
        names.sort();
        (te, names)
    };
    runtime.block_on(async {
        for kind in ["application/grpc", "application/grpc+proto", "Application/GRPC; x=y"] {
            let (te, names) = ask(kind).await;
            let want = ["grpc-message", "grpc-status", "grpc-status-details-bin", "x-known"];
            assert_eq!((te.as_str(), names), ("trailers", want.map(str::to_owned).to_vec()), "{kind}");
        }
        for kind in ["application/grpc-web", "application/json", "application/grpcx"] {
            assert_eq!(ask(kind).await, (String::new(), Vec::new()), "{kind}");
        }
    });
}
