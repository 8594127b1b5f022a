/** The browser entry of the built dist/: with and without cross-origin isolation, same bytes as the oracle in the page. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type Browser, chromium } from "playwright";
import { afterAll, describe, expect, test } from "vitest";
import { launchOptions } from "../viz/support/browser.ts";

const dist = new URL("../../dist/", import.meta.url);
const browser = existsSync(new URL("backends/wasm/browser.js", dist)) ? await launch() : "dist/ is not built";
const TYPES: Record<string, string> = { js: "text/javascript", wasm: "application/wasm", html: "text/html" };
const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

async function launch(): Promise<Browser | string> {
  try {
    return await chromium.launch(await launchOptions());
  } catch (error) {
    return `no Chromium: ${(error as Error).message.split("\n")[0]}`;
  }
}

/** dist/ over HTTP on this host only, with the headers given. */
async function serve(headers: Record<string, string>) {
  const server = createServer(async (request, response) => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    const body = path === "/" ? "<title>wasm</title>" : await readFile(new URL(`.${path}`, dist)).catch(() => null);
    const type = TYPES[path === "/" ? "html" : (path.split(".").at(-1) ?? "")] ?? "text/plain";
    response.writeHead(body === null ? 404 : 200, { "Content-Type": type, ...headers }).end(body ?? "");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close: () => server.close() };
}

/** Runs in the page. */
async function compare(): Promise<{ isolated: boolean; numWorkers: number; note: string | null; equal: boolean[] }> {
  // Not a plain import(): the test runner would rewrite it into a call that the page does not have.
  const load = new Function("path", "return import(path)");
  const { createWasmBackend } = await load("/backends/wasm/browser.js");
  const { createOracleBackend } = await load("/core/oracle/group.js");
  const { tensor } = await load("/core/tensor.js");
  const [ranks, tokens, hidden, experts, topk] = [4, 80, 1024, 8, 2];
  const each = <T>(make: (rank: number) => T) => Array.from({ length: ranks }, (_, rank) => make(rank));
  const x = each((r) =>
    tensor(
      "bf16",
      [tokens, hidden],
      Uint16Array.from({ length: tokens * hidden }, (_, i) => (i * 2654435761 + r) >>> 7),
    ),
  );
  const ids = (i: number) => (i % 2 === 0 ? (i * 7) % experts : (i * 7 - 6) % experts);
  const topkIdx = each((r) =>
    tensor(
      "i32",
      [tokens, topk],
      Int32Array.from({ length: tokens * topk }, (_, i) => ids(i + 2 * r)),
    ),
  );
  const run = async (backend: Awaited<ReturnType<typeof createWasmBackend>>) => {
    const group = await backend.createGroup({ numRanks: ranks });
    const sent = await group.dispatch({
      kind: "hybrid-ep",
      x,
      scales: null,
      routing: { topkIdx, topkWeights: null },
      settings: { numExperts: experts, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null },
    });
    const request = { handle: sent.handle, x: sent.x, topkWeights: null, probs: null, bias: [] };
    const back = await group.combine(request);
    const fp8 = await group.castToFp8(x);
    await backend.close();
    return [...sent.x, ...back.x, ...fp8.x, ...fp8.scales].map(
      ({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    );
  };
  const wasm = await createWasmBackend({ workers: 2, smallBytes: 0 });
  const [want, got] = [await run(createOracleBackend()), await run(wasm)];
  const equal = want.map((data, i) => data.length > 0 && data.every((value, at) => value === got[i][at]));
  return { isolated: globalThis.crossOriginIsolated, numWorkers: wasm.numWorkers, note: wasm.note, equal };
}

const why = typeof browser === "string" ? ` (skipped: ${browser})` : "";
describe.skipIf(typeof browser === "string")(`wasm in the browser${why}`, () => {
  afterAll(async () => {
    if (typeof browser !== "string") await browser.close();
  });

  test.each([
    { headers: ISOLATION, isolated: true, numWorkers: 2, note: null },
    {
      headers: {},
      isolated: false,
      numWorkers: 0,
      note: expect.stringMatching(/not cross-origin isolated.*Opener-Policy/),
    },
  ])("isolated: $isolated, workers: $numWorkers", async ({ headers, ...expected }) => {
    const server = await serve(headers as Record<string, string>);
    const page = await (browser as Browser).newPage();
    try {
      await page.goto(server.url);
      const { equal, ...rest } = await page.evaluate(compare);
      expect(rest).toEqual(expected);
      expect(equal).toEqual(Array(16).fill(true));
    } finally {
      await page.close();
      server.close();
    }
  });
});
