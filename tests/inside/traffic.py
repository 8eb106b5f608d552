"""Sends requests until SIGTERM: traffic.py [new] [kept] [plain].

At SIGTERM, prints the number of requests of each kind, the number of failures, and the first
failures. The exit code is 1 if a request failed."""

import http.client
import signal
import socket
import ssl
import sys
import threading
import time

NAME = "blog.example.com"
stop = threading.Event()
seen, failed = {}, []


def context():
    return ssl.create_default_context(cafile="/etc/pintle/blog.pem")


def check(kind, response, status):
    body = response.read()
    seen[kind] = seen.get(kind, 0) + 1
    if response.status != status or (status == 200 and body != b"hello from the origin\n"):
        failed.append(f"{kind}: status {response.status}, {len(body)} bytes")


def each(kind, connect, status, pause):
    """A connection for each request."""
    while not stop.is_set():
        try:
            connection = connect()
            connection.request("GET", "/", headers={"Connection": "close"})
            check(kind, connection.getresponse(), status)
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            failed.append(f"{kind}: {time.time():.3f} {error!r}")
        time.sleep(pause)


def new():
    """A connection for each request."""
    tls = context()
    each("new", lambda: http.client.HTTPSConnection(NAME, timeout=20, context=tls), 200, 0.005)


def kept():
    """One connection for as long as the server keeps it."""
    connection = http.client.HTTPSConnection(NAME, timeout=20, context=context())
    while not stop.is_set():
        try:
            connection.request("GET", "/")
            check("kept", connection.getresponse(), 200)
        except (OSError, http.client.HTTPException) as error:
            failed.append(f"kept: {time.time():.3f} {error!r}")
            connection.close()
        time.sleep(0.005)


def plain():
    """Redirects, by plain HTTP."""
    each("plain", lambda: http.client.HTTPConnection(NAME, timeout=20), 301, 0.01)


signal.signal(signal.SIGTERM, lambda *_: stop.set())
threads = [threading.Thread(target=globals()[kind]) for kind in sys.argv[1:] for _ in range(2)]
for thread in threads:
    thread.start()
while not stop.wait(0.2):
    pass
for thread in threads:
    thread.join()
print(", ".join(f"{count} {kind}" for kind, count in sorted(seen.items())) + f": {len(failed)} failed")
for line in failed[:5]:
    print("  " + line)
sys.exit(1 if failed or not seen else 0)
