import { spawn } from "node:child_process";
import { randomBytes, timingSafeEqual } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, extname } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, Option } from "commander";
import { InvalidArgument, Unavailable } from "../core/errors.ts";
import type { ByteSource } from "../core/io/bytes.ts";
import { DEFAULT_STATE, toHash, VIEW_IDS, type ViewId } from "../viz/model/state.ts";
import { openFile } from "./files.ts";
import { printResult } from "./output.ts";

interface ViewOptions {
  readonly browser: boolean;
  readonly view: ViewId;
  readonly layer: string;
  readonly idleSeconds: string;
  readonly json?: boolean;
}

const HELP = `
The file stays on this machine: a server on 127.0.0.1, on a random port and behind a random path, hands it to the page by
ranges. It ends when the last page is closed, or when none was opened for --idle-seconds.`;

export function view(): Command {
  return new Command("view")
    .description("open the viewer on a trace, routing or handle file, or on two to compare")
    .argument("<file>", "trace, routing or handle file")
    .argument("[file2]", "second file: shown beside the first, with the difference")
    .option("--no-browser", "print the address instead of opening a browser")
    .addOption(new Option("--view <name>", "view to begin with").choices([...VIEW_IDS]).default("overview"))
    .option("--layer <n>", "layer to begin with", "0")
    .option("--idle-seconds <n>", "how long to wait for a page", "600")
    .option("--json", "print the address as JSON")
    .addHelpText("after", HELP)
    .action(serve);
}

async function serve(first: string, second: string | undefined, options: ViewOptions): Promise<void> {
  const layer = wholeNumber("--layer", options.layer);
  const idleMs = wholeNumber("--idle-seconds", options.idleSeconds) * 1000;
  const paths = second === undefined ? [first] : [first, second];
  const files: ByteSource[] = [];
  try {
    for (const path of paths) files.push(await openFile(path));
    const server = await startViewerServer(files, idleMs);
    const state = toHash({ ...DEFAULT_STATE, view: options.view, layer, compare: files.length > 1 });
    const sources = files.map((file, i) => `url${i === 0 ? "" : "2"}=${encodeURIComponent(dataPath(file, i))}`);
    const url = `${server.url}?served#${[state, ...sources].filter(Boolean).join("&")}`;
    printResult(
      { url, port: server.port, files: paths },
      () => `viewer at ${url}\n(ends when the page is closed; Ctrl-C ends it now)`,
      options.json,
    );
    if (options.browser) openBrowser(url);
    await server.closed;
  } finally {
    for (const file of files) await file.close();
  }
}

function wholeNumber(name: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgument({
    name,
    expected: "a whole number",
    received: text,
    remedy: "give a number of at least 0",
  });
}

const MIME: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".wasm": "application/wasm",
};

/** Isolated, so that the Run view may share memory with workers; and nothing but this page's own files is ever loaded. */
const HEADERS = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; " +
    "connect-src 'self' data:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-store",
};

export interface ViewerServer {
  readonly url: string;
  readonly port: number;
  /** Resolves when the server has ended. */
  readonly closed: Promise<void>;
  close(): void;
}

function dataPath(file: ByteSource, index: number): string {
  return `./data/${index}/${encodeURIComponent(basename(file.name))}`;
}

/** Serves the built viewer and `files` on 127.0.0.1. Throws Unavailable when the viewer was not built. */
export async function startViewerServer(files: readonly ByteSource[], idleMs: number): Promise<ViewerServer> {
  const folder = viewerFolder();
  const token = randomBytes(16).toString("hex");
  const prefix = `/${token}/`;
  let numPages = 0;
  let timer: NodeJS.Timeout | undefined;
  const server: Server = createServer((request, response) => {
    answer(request, response).catch(() => {
      if (!response.headersSent) response.writeHead(404, HEADERS);
      response.end();
    });
  });
  const endAfter = (ms: number) => {
    clearTimeout(timer);
    timer = setTimeout(() => close(), ms);
  };
  const close = () => {
    clearTimeout(timer);
    server.close();
    server.closeAllConnections();
  };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { port } = server.address() as AddressInfo;
    const host = request.headers.host ?? "";
    const path = new URL(request.url ?? "/", "http://viewer").pathname;
    // Another site may point its name here (DNS rebinding): only our own names, and only with the token.
    if (![`127.0.0.1:${port}`, `localhost:${port}`].includes(host) || !hasPrefix(path, prefix)) {
      response.writeHead(403, HEADERS).end();
      return;
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, HEADERS).end();
      return;
    }
    const name = path.slice(prefix.length);
    if (name === "alive") {
      stayAlive(request, response);
      return;
    }
    if (numPages === 0) endAfter(idleMs);
    const data = /^data\/(\d)\//.exec(name);
    const file = data && files[Number(data[1])];
    if (file) await sendRange(file, request, response);
    else await sendPage(folder, name === "" ? "index.html" : name, response);
  }

  function stayAlive(request: IncomingMessage, response: ServerResponse): void {
    response.writeHead(200, { ...HEADERS, "Content-Type": "text/event-stream" });
    response.write(": here\n\n");
    numPages++;
    clearTimeout(timer);
    request.on("close", () => {
      // A reload closes and comes back at once.
      if (--numPages === 0 && server.listening) endAfter(Math.min(idleMs, 3000));
    });
  }

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  endAfter(idleMs);
  const { port } = server.address() as AddressInfo;
  const closed = new Promise<void>((resolve) => server.once("close", () => resolve()));
  return { url: `http://127.0.0.1:${port}${prefix}`, port, closed, close };
}

function hasPrefix(path: string, prefix: string): boolean {
  const given = Buffer.from(path.slice(0, prefix.length));
  const wanted = Buffer.from(prefix);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

async function sendPage(folder: string, name: string, response: ServerResponse): Promise<void> {
  // Only names a build makes: no way up, no other folders.
  if (!/^(assets\/)?[\w.-]+$/.test(name) || name.includes("..")) throw new Error("no such page");
  const body = await readFile(new URL(name, folder));
  response.writeHead(200, { ...HEADERS, "Content-Type": MIME[extname(name)] ?? "application/octet-stream" }).end(body);
}

async function sendRange(file: ByteSource, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const first = range ? Number(range[1]) : 0;
  const last = range?.[2] ? Math.min(Number(range[2]), file.size - 1) : file.size - 1;
  if (range && (first > last || first >= file.size)) {
    response.writeHead(416, { ...HEADERS, "Content-Range": `bytes */${file.size}` }).end();
    return;
  }
  const headers = { ...HEADERS, "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes" };
  const length = { "Content-Length": last - first + 1 };
  const where = { "Content-Range": `bytes ${first}-${last}/${file.size}` };
  response.writeHead(range ? 206 : 200, range ? { ...headers, ...length, ...where } : { ...headers, ...length });
  const piece = 8 << 20;
  for (let at = first; at <= last && request.method !== "HEAD"; at += piece) {
    const bytes = await file.read(at, Math.min(piece, last - at + 1));
    if (!response.write(bytes))
      await new Promise<void>((resolve) => response.once("drain", resolve).once("close", resolve));
    if (response.destroyed) return;
  }
  response.end();
}

/** dist/viewer, seen from dist/cli or from the sources. */
function viewerFolder(): string {
  for (const place of ["../viewer/", "../dist/viewer/"]) {
    const url = new URL(place, import.meta.url);
    if (existsSync(fileURLToPath(new URL("index.html", url)))) return url.href;
  }
  throw new Unavailable({
    name: "viewer",
    expected: "the built viewer beside the command",
    received: "no dist/viewer/index.html",
    remedy: "build it: npm run build",
  });
}

function openBrowser(url: string): void {
  const [command, args] =
    process.platform === "darwin"
      ? ["open", [url]]
      : process.platform === "win32"
        ? ["rundll32", ["url.dll,FileProtocolHandler", url]]
        : ["xdg-open", [url]];
  const child = spawn(command as string, args as string[], { stdio: "ignore", detached: true });
  child.on("error", () => process.stderr.write("fused-a2a: found no browser to open; use the address above\n"));
  child.unref();
}
