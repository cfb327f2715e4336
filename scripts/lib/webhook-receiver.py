#!/usr/bin/env python3
"""A webhook receiver that believes nothing: it verifies each delivery (Standard Webhooks, HMAC-SHA256)
with the standard library alone and writes one JSON line for it.

    WEBHOOK_SECRET=whsec_.. webhook-receiver.py PORT_FILE RECORD_FILE [--refuse-first]

Listens on a free port of loopback and writes its number into PORT_FILE. With --refuse-first the
first message is answered 503 until it comes again: a receiver that was down for a moment.
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import sys
import threading
import time

TOLERANCE_S = 300


def verify(secret, headers, body):
    """Returns None where the signature is right, else why it is not."""
    message, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp")
    signatures = headers.get("webhook-signature")
    if not (message and timestamp and signatures):
        return "a webhook header is missing"
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return "the timestamp is too old, too new or no number"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # Several signatures are separated by spaces while a secret is being replaced.
    if not any(hmac.compare_digest(expected.encode(), given.encode()) for given in signatures.split(" ")):
        return "no signature fits"
    return None


class Receiver(http.server.BaseHTTPRequestHandler):
    timeout = 10
    lock = threading.Lock()
    refused = None      # id of the message that is answered 503 once

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        problem = verify(os.environ["WEBHOOK_SECRET"], self.headers, body)
        message = self.headers.get("webhook-id")
        with self.lock:
            down = "--refuse-first" in sys.argv and Receiver.refused is None
            if down:
                Receiver.refused = message
            status = 503 if down else 401 if problem else 204
            self.record(message, body, problem, status)
        self.send_response(status)
        self.end_headers()

    def record(self, message, body, problem, status):
        try:
            content = json.loads(body)
            run = {"type": content["type"], "run": content["data"].get("id"), "agent": content["data"].get("agentId")}
        except (ValueError, KeyError, AttributeError, TypeError):
            run = {}
            problem = problem or "the body is no message of matins"
        line = {"id": message, "verified": problem is None, "problem": problem, "answered": status, **run}
        with open(sys.argv[2], "a", encoding="utf-8") as record:
            record.write(json.dumps(line) + "\n")

    def log_message(self, *_):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    temporary = sys.argv[1] + ".new"
    with open(temporary, "w", encoding="ascii") as port:
        port.write(str(server.server_port))
    os.replace(temporary, sys.argv[1])      # whole or not there: somebody waits for it
    server.serve_forever()


if __name__ == "__main__":
    main()
