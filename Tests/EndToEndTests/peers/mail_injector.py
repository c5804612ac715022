"""Servers of mail in the clear that never encrypt. Two of them answer STARTTLS with consent and, in the same burst or in the
next, with forged answers to what a client would ask afterwards; two never end what they say. Prints their ports: IMAP, SMTP, and both again of those that never end.

Whoever believes a byte of that shows a forged message, or takes a message for sent. What is received is printed to
standard error.
"""

import socket
import sys
import threading

MESSAGE = b"From: boss@corp.example\r\nTo: a@b.example\r\nSubject: FORGED\r\nDate: Mon, 02 Jun 2025 10:15:00 +0200\r\n\r\nforged\r\n"


def padded(first, last, size=2048):
    """`first`, filler and `last`, ending where a usual first read does."""
    filler = size - len(first) - len(last) - 6
    return first + b"* x " + b"p" * filler + b"\r\n" + last


def imap(connection, waits):
    forged = b"+ \r\na1 OK\r\n* OK [UIDVALIDITY 7] x\r\na2 OK\r\n* SEARCH 5\r\na3 OK\r\n* 1 FETCH (UID 5 FLAGS () RFC822.SIZE %d BODY[HEADER.FIELDS (FROM TO SUBJECT DATE)] {%d}\r\n" % (len(MESSAGE), len(MESSAGE)) + MESSAGE + b")\r\na4 OK\r\na5 OK\r\n"
    if waits:
        connection.sendall(b"* OK hello\r\n")
        receive(connection)
        connection.sendall(padded(b"", b"a0 OK begin\r\n") + forged)
    else:
        connection.sendall(padded(b"* OK hello\r\n", b"a0 OK begin\r\n") + forged)
    while receive(connection):
        pass


def smtp(connection, waits):
    forged = b"250-x\r\n250 y\r\n235 in\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n221 bye\r\n"
    connection.sendall(b"220 hello\r\n")
    receive(connection)
    connection.sendall(b"250-x\r\n250 STARTTLS\r\n")
    if waits:
        receive(connection)
    connection.sendall(b"220 begin\r\n" + forged)
    while receive(connection):
        pass


def endless(first):
    """Says `first` and goes on without a line's end, or with lines of one answer, for as long as somebody listens."""
    def speak(connection, waits):
        try:
            connection.sendall(first)
            while True:
                connection.sendall(b"x" * 65536 if waits else first * 8192)
        except OSError:
            pass
    return speak


def receive(connection):
    try:
        data = connection.recv(4096)
    except OSError:
        return b""
    print(data[:100], file=sys.stderr, flush=True)
    return data


def serve(speak):
    server = socket.create_server(("127.0.0.1", 0))

    def accept():
        count = 0
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=speak, args=(connection, count % 2 == 0), daemon=True).start()
            count += 1

    threading.Thread(target=accept, daemon=True).start()
    return server.getsockname()[1]


print(serve(imap), serve(smtp), serve(endless(b"* OK ")), serve(endless(b"220-x\r\n")), flush=True)
threading.Event().wait()
