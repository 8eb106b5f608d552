// Prints requests as llhttp, the parser of Node.js, parses them.
//
// llhttp.js FILE prints the requests of each connection in FILE, for tests/it/differential.rs. FILE
// has, for each connection, a length of four bytes (big-endian) and the connection's bytes. The
// output has, for each connection, a line of JSON: a list of requests, each as [method, target,
// fields, body, trailers]. Values that may be arbitrary bytes are in hexadecimal. "error" marks
// bytes that are not a request.
//
// Without FILE, the script listens on a loopback port, prints the port, and answers each request
// with the same JSON.
"use strict";
const fs = require("fs");
const http = require("http");
const { HTTPParser, methods } = require("_http_common");

const hex = (text) => Buffer.from(text, "latin1").toString("hex");

function pairs(raw) {
    const list = [];
    for (let n = 0; n < raw.length; n += 2) list.push([raw[n].toLowerCase(), hex(raw[n + 1])]);
    return list;
}

function read(bytes) {
    const requests = [];
    let fields, target, request, body;
    const begin = () => {
        const parser = new HTTPParser();
        parser.initialize(HTTPParser.REQUEST, {}, 1 << 20);
        // llhttp delivers many fields in several calls, and the target with the first call.
        parser[HTTPParser.kOnHeaders] = (some, url) => {
            fields.push(...some);
            target += url;
        };
        parser[HTTPParser.kOnMessageBegin] = () => {
            [fields, target, request, body] = [[], "", null, []];
        };
        parser[HTTPParser.kOnHeadersComplete] = (major, minor, rest, method, url) => {
            request = [methods[method], target + (url || ""), pairs(fields.concat(rest || []))];
            fields = [];
            return 0;
        };
        parser[HTTPParser.kOnBody] = (piece) => body.push(Buffer.from(piece));
        parser[HTTPParser.kOnMessageComplete] = () => {
            requests.push([...request, Buffer.concat(body).toString("hex"), pairs(fields)]);
            request = null;
            fields = [];
        };
        return parser;
    };
    [fields, target, request] = [[], "", null];
    for (let rest = bytes; rest.length > 0; ) {
        const parser = begin();
        const read = parser.execute(rest);
        const wrong = read instanceof Error;
        const end = wrong ? null : parser.finish();
        if (wrong || (read === rest.length && end instanceof Error) || read === 0) {
            requests.push("error");
            break;
        }
        // After a request for an upgrade it stops.
        rest = rest.subarray(read);
    }
    return requests;
}

function serve() {
    const server = http.createServer({ maxHeaderSize: 1 << 20 }, (request, response) => {
        const body = [];
        request.on("data", (piece) => body.push(piece));
        request.on("end", () => {
            const head = [request.method, request.url, pairs(request.rawHeaders)];
            const told = [...head, Buffer.concat(body).toString("hex"), pairs(request.rawTrailers)];
            response.end(JSON.stringify(told));
        });
    });
    server.listen(0, "127.0.0.1", () => console.log(server.address().port));
}

if (process.argv.length < 3) {
    serve();
} else {
    const file = fs.readFileSync(process.argv[2]);
    const lines = [];
    for (let at = 0; at < file.length; ) {
        const end = at + 4 + file.readUInt32BE(at);
        lines.push(JSON.stringify(read(file.subarray(at + 4, end))));
        at = end;
    }
    fs.writeFileSync(1, lines.join("\n") + "\n");
}
