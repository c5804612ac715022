"""What notifiers speak to: an HTTP server whose first answer to `/hook` is 500, and an SMTP server. Each message is a line
of JSON on standard output; the first line tells the ports.
"""

import http.server
import json
import socketserver
import sys
import threading

lock = threading.Lock()
refused = threading.Event()


def tell(**message):
    with lock:
        print(json.dumps(message), flush=True)


class Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        refuse = self.path == "/hook" and not refused.is_set()
        if self.path == "/hook":
            refused.set()
        self.send_response(500 if refuse else 200)
        self.end_headers()
        tell(kind="refused" if refuse else "http", path=self.path, headers={name.lower(): value for name, value in self.headers.items()}, body=body)

    def log_message(self, *_):
        pass


class Mail(socketserver.StreamRequestHandler):
    def handle(self):
        def say(text):
            self.wfile.write(text.encode() + b"\r\n")

        say("220 receiver")
        message = {"kind": "mail", "to": []}
        while line := self.rfile.readline().decode().strip():
            word = line.split(":")[0].upper()
            if word.startswith(("EHLO", "HELO")):
                say("250 receiver")
            elif word == "MAIL FROM":
                message["from"] = line
                say("250 ok")
            elif word == "RCPT TO":
                message["to"].append(line)
                say("250 ok")
            elif word == "DATA":
                say("354 go on")
                data = []
                while (part := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    data.append(part)
                message["data"] = data
                tell(**message)
                say("250 ok")
            elif word == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


socketserver.ThreadingTCPServer.daemon_threads = True
web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
mail = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
tell(kind="ports", web=web.server_address[1], mail=mail.server_address[1])
for server in (web, mail):
    threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
