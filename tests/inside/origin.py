"""The upstream server, at the port that it is given or 8080: answers immediately, except /slow, which
it sends in pieces over three seconds."""

import http.server
import sys
import time

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8080


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        body = b"hello from the origin\n" * (60 if self.path == "/slow" else 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path != "/slow":
            self.wfile.write(body)
            return
        for at in range(0, len(body), 22):
            self.wfile.write(body[at : at + 22])
            self.wfile.flush()
            time.sleep(0.05)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
