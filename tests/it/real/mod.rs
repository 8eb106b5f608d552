//! Real software on both sides: nginx, Varnish and WordPress behind pintle, Varnish and nginx in front of it, curl and
//! Chromium as its clients. All of it is Debian's; tests/run installs it.

mod chromium;
mod nginx;
mod nginx_http2;
mod varnish;
mod wordpress;
mod wordpress_cache;
