"""Two HTTP servers on loopback that tell what they were sent. Prints their ports.

GET /to?CODE:URL redirects; /echo answers with the request's headers and body as JSON; /binary does so between bytes that
are no UTF-8; /seen lists the requests that this port has had.
"""

import http.server
import json
import threading


def server():
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("utf-8", "replace")
            path, _, query = self.path.partition("?")
            if path == "/seen":
                return self.reply(200, json.dumps(seen).encode())
            told = json.dumps({"headers": dict(self.headers), "body": body})
            seen.append([self.command, self.path, told])
            if path == "/to":
                code, _, url = query.partition(":")
                return self.reply(int(code), b"", ("Location", url))
            self.reply(200, b"\xff\xfe" + told.encode() + b"\xff" if path == "/binary" else told.encode())

        def reply(self, code, body, *headers):
            self.send_response(code)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


servers = [server(), server()]
print(*(one.server_address[1] for one in servers), flush=True)
threading.Thread(target=servers[0].serve_forever, daemon=True).start()
servers[1].serve_forever()
