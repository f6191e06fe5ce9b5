#!/usr/bin/env python3
"""A web server that misbehaves on purpose, in the ways nginx cannot. Prints its port, then serves until killed.

The first part of the path names the behaviour; what follows makes the path (and its counter) unique to a test. Bodies are
DATA, 300 000 bytes that server and test compute alike. A control path, /count/<rest>, answers how often /<rest> was asked.
"""

import socket
import socketserver
import struct
import sys
import threading
import time
from collections import Counter

DATA = bytes((i * 7 + (i >> 8) * 13) & 0xFF for i in range(300000))
OTHER = bytes(reversed(DATA))
HTML = b"\n  <!DOCTYPE html><html><body>Please log in</body></html>"
seen = Counter()
last_headers = {}
here = Counter()
lock = threading.Lock()


class Handler(socketserver.StreamRequestHandler):
    def head(self, status, *headers):
        self.wfile.write(f"HTTP/1.1 {status}\r\n".encode() + "".join(h + "\r\n" for h in headers).encode() + b"\r\n")

    def whole(self, body, *headers):
        self.head("200 OK", f"Content-Length: {len(body)}", *headers)
        self.wfile.write(body)

    def rest(self, body, start, *headers):
        self.head("206 Partial Content", f"Content-Length: {len(body) - start}",
                  f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}", *headers)
        self.wfile.write(body[start:])

    def cut(self):
        """End as a crashed server does: with a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def handle(self):
        line = self.rfile.readline().decode("latin-1").split()
        if len(line) < 2:
            return
        headers = {}
        while True:
            h = self.rfile.readline().decode("latin-1").strip()
            if not h:
                break
            name, _, value = h.partition(":")
            headers[name.strip().lower()] = value.strip()
        path = line[1].split("?")[0]
        if path.startswith("http://"):  # asked as a proxy
            path = "/proxied" + path[path.index("/", 7):]
        if path.startswith("/count/"):
            rest = path[len("/count"):]
            self.whole(f"{seen[rest]} {last_headers.get(rest, {}).get('range', '-')}".encode())
            return
        seen[path] += 1
        last_headers[path] = headers
        start = None
        if headers.get("range", "").startswith("bytes="):
            start = int(headers["range"][6:].split("-")[0])
        try:
            getattr(self, "do_" + path.split("/")[1].replace("-", "_"))(path, seen[path], start, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def do_proxied(self, path, n, start, headers):
        self.whole(DATA)

    def do_concurrent(self, path, n, start, headers):
        """Counts how many are here at the same time: /most/ says how many there were at most."""
        with lock:
            here["now"] += 1
            here["most"] = max(here["most"], here["now"])
        time.sleep(0.05)
        with lock:
            here["now"] -= 1
        self.whole(path.encode())

    def do_most(self, path, n, start, headers):
        self.whole(str(here["most"]).encode())

    def do_auth(self, path, n, start, headers):
        """What the client would tell about itself."""
        self.whole((headers.get("authorization", "none") + " for " + path).encode())

    def do_good(self, path, n, start, headers):
        self.whole(DATA)

    def do_cut_resume(self, path, n, start, headers):
        """Half of it, then a reset; the rest when asked for with the right If-Range."""
        if start is not None and headers.get("if-range") == '"one"':
            self.rest(DATA, start, 'ETag: "one"')
            return
        self.head("200 OK", f"Content-Length: {len(DATA)}", 'ETag: "one"')
        self.wfile.write(DATA[:150000])
        time.sleep(0.1)
        self.cut()

    def do_cut_pinned(self, path, n, start, headers):
        """No validator at all: only a digest makes going on safe."""
        if start is not None:
            self.rest(DATA, start)
            return
        self.head("200 OK", f"Content-Length: {len(DATA)}")
        self.wfile.write(DATA[:150000] if n == 1 else DATA)
        time.sleep(0.1)
        if n == 1:
            self.cut()

    def do_cut_often(self, path, n, start, headers):
        """70 000 bytes at a time: more breaks than attempts, but each brings the end nearer."""
        at = start or 0
        if at:
            self.head("206 Partial Content", f"Content-Length: {len(DATA) - at}",
                      f"Content-Range: bytes {at}-{len(DATA) - 1}/{len(DATA)}", 'ETag: "one"')
        else:
            self.head("200 OK", f"Content-Length: {len(DATA)}", 'ETag: "one"')
        self.wfile.write(DATA[at:at + 70000])
        time.sleep(0.05)

    def do_cut_norange(self, path, n, start, headers):
        """Breaks once, and knows no ranges."""
        self.head("200 OK", f"Content-Length: {len(DATA)}", 'ETag: "one"')
        self.wfile.write(DATA[:150000] if n == 1 else DATA)

    def do_cut_changed(self, path, n, start, headers):
        """Breaks, and is another file afterwards: If-Range does not match, so all of the new one comes."""
        if n == 1:
            self.head("200 OK", f"Content-Length: {len(DATA)}", 'ETag: "one"')
            self.wfile.write(DATA[:150000])
            return
        self.whole(OTHER, 'ETag: "two"')

    def do_range_liar(self, path, n, start, headers):
        """Answers a range with another one."""
        if start is not None:
            self.rest(DATA, start + 1000, 'ETag: "one"')
        elif n == 1:
            self.head("200 OK", f"Content-Length: {len(DATA)}", 'ETag: "one"')
            self.wfile.write(DATA[:150000])
        else:
            self.whole(DATA, 'ETag: "one"')

    def do_bad_rest(self, path, n, start, headers):
        """Serves a rest that does not belong to the beginning."""
        if start is not None:
            self.rest(OTHER, start, 'ETag: "one"')
        elif n == 1:
            self.head("200 OK", f"Content-Length: {len(DATA)}", 'ETag: "one"')
            self.wfile.write(DATA[:150000])
        else:
            self.whole(DATA, 'ETag: "one"')

    def do_short(self, path, n, start, headers):
        """Always promises more than it sends."""
        self.head("200 OK", f"Content-Length: {len(DATA) + 1000}")
        self.wfile.write(DATA)

    def do_nolength(self, path, n, start, headers):
        """The end of the connection is the end of the file, or of the network."""
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + DATA)

    def do_chunked(self, path, n, start, headers):
        self.head("200 OK", "Transfer-Encoding: chunked")
        for i in range(0, len(DATA), 50000):
            self.wfile.write(b"%x\r\n" % 50000 + DATA[i:i + 50000] + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def do_chunked_cut(self, path, n, start, headers):
        self.head("200 OK", "Transfer-Encoding: chunked")
        self.wfile.write(b"%x\r\n" % 50000 + DATA[:50000] + b"\r\n")

    def do_endless(self, path, n, start, headers):
        self.head("200 OK", "Transfer-Encoding: chunked")
        while True:
            self.wfile.write(b"%x\r\n" % 50000 + DATA[:50000] + b"\r\n")

    def do_stall(self, path, n, start, headers):
        """Half of it, and then silence."""
        if start is not None:
            self.rest(DATA, start, 'ETag: "one"')
            return
        self.head("200 OK", f"Content-Length: {len(DATA)}", 'ETag: "one"')
        self.wfile.write(DATA[:150000])
        self.wfile.flush()
        time.sleep(30)

    def do_busy(self, path, n, start, headers):
        """503 twice, then well."""
        if n <= 2:
            self.head("503 Service Unavailable", "Content-Length: 0", "Retry-After: 0")
        else:
            self.whole(DATA)

    def do_down(self, path, n, start, headers):
        self.head("503 Service Unavailable", "Content-Length: 4")
        self.wfile.write(b"down")

    def do_status(self, path, n, start, headers):
        """/status/<number>/..."""
        self.head(path.split("/")[2] + " So", "Content-Length: 2")
        self.wfile.write(b"no")

    def do_html(self, path, n, start, headers):
        self.whole(HTML, "Content-Type: text/html; charset=utf-8")

    def do_html_as_octets(self, path, n, start, headers):
        self.whole(HTML, "Content-Type: application/octet-stream")

    def do_to(self, path, n, start, headers):
        """/to/<target with ! for />: a redirect."""
        self.head("302 Found", "Location: " + path[len("/to/"):].replace("!", "/"), "Content-Length: 0")

    def do_loop(self, path, n, start, headers):
        self.head("302 Found", "Location: " + path, "Content-Length: 0")

    def do_closed(self, path, n, start, headers):
        """Not a byte."""
        self.cut()

    def do_etag_weird(self, path, n, start, headers):
        self.whole(DATA, 'ETag: "' + "x" * 5000 + '"', "Content-Range: bytes 5-1/0", "Retry-After: -4")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
