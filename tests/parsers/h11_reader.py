"""Prints requests as h11 parses them. Input and output have the same formats as in llhttp.js."""

import json
import struct
import sys

import h11


def pairs(fields):
    return [[name.decode().lower(), value.hex()] for name, value in fields]


def read(bytes):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(bytes)
    connection.receive_data(b"")
    requests = []
    try:
        while True:
            event = connection.next_event()
            if event is h11.PAUSED:
                # The next of several requests, after a response.
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                target = request.target.decode()
                fields = pairs(request.headers.raw_items())
                requests.append([request.method.decode(), target, fields, body.hex(), pairs(event.headers)])
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            else:
                return requests
    except h11.RemoteProtocolError:
        requests.append("error")
    return requests


with open(sys.argv[1], "rb") as file:
    while length := file.read(4):
        print(json.dumps(read(file.read(struct.unpack(">I", length)[0]))))
