import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { exportView } from "../../cli/export.ts";
import { openFile } from "../../cli/files.ts";
import { startViewerServer } from "../../cli/view.ts";
import { sampleTrace } from "../../viz/model/sample.ts";

let folder: string;
let trace: string;
let other: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fused-a2a-export-"));
  trace = join(folder, "t.safetensors");
  other = join(folder, "u.safetensors");
  await writeFile(trace, await sampleTrace("fused"));
  await writeFile(other, await sampleTrace("balanced"));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

// What is printed is not the matter here, and would fill the report.
vi.mock("../../cli/output.ts", async (original) => ({ ...(await original<object>()), printResult: () => {} }));

async function run(...args: string[]): Promise<void> {
  await exportView().exitOverride().parseAsync(args, { from: "user" });
}

const canDrawPng = await import("@resvg/resvg-js").then(
  () => true,
  () => false,
);

describe("export", () => {
  it("writes every view as SVG and CSV without a browser", async () => {
    for (const view of ["overview", "traffic", "load", "buffers", "token", "timeline"]) {
      const svg = join(folder, `${view}.svg`);
      await run(trace, "--view", view, "--layer", "3", "-o", svg);
      const text = await readFile(svg, "utf8");
      expect(text).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" width="\d+" height="\d+"/);
      expect(text.toLowerCase()).toContain(`<title>${view}: t.safetensors, layer 3`);
      expect(text).not.toMatch(/NaN|undefined|Infinity/);
      const csv = join(folder, `${view}.csv`);
      await run(trace, "--view", view, "--layer", "3", "-o", csv);
      expect((await readFile(csv, "utf8")).split("\r\n").length).toBeGreaterThan(3);
    }
  });

  it.skipIf(!canDrawPng)("draws PNG at twice the size", async () => {
    const png = join(folder, "load.png");
    await run(trace, "--view", "load", "--width", "600", "-o", png);
    const bytes = await readFile(png);
    expect(bytes.subarray(1, 4).toString()).toBe("PNG");
    expect(bytes.readUInt32BE(16)).toBe(1200);
  });

  it("takes selections as the address has them, and a second file", async () => {
    const csv = join(folder, "s.csv");
    await run(trace, "--view", "traffic", "--state", "metric=slots&src=2", "-o", csv);
    const lines = (await readFile(csv, "utf8"))
      .trim()
      .split("\r\n")
      .map((line) => line.split(","));
    expect(lines[0]).toEqual(["from rank", "to rank", "slots", "selected slots"]);
    for (const [from, , slots, selected] of lines.slice(1)) expect(selected).toBe(from === "2" ? slots : "0");
    await run(trace, other, "--view", "load", "-o", csv);
    expect((await readFile(csv, "utf8")).split("\r\n")[0]).toBe("expert,on rank,A slots,B slots,B - A,log2(B/A)");
    await run(trace, other, "--view", "compare", "-o", csv);
    expect(await readFile(csv, "utf8")).toContain("slots per expert,expert ");
  });

  it("refuses in one line and leaves nothing behind", async () => {
    const before = (await readdir(folder)).length;
    for (const [args, message] of [
      [["-o", "t.gif"], /--output: expected a name ending in \.svg, \.png or \.csv, received t\.gif/],
      [["-o", join(folder, "z.svg"), "--layer", "99"], /--layer: expected 0\.\.7, received 99/],
      [["-o", join(folder, "z.svg"), "--view", "compare"], /file2: expected a second file/],
      [["-o", join(folder, "z.svg"), "--width", "5"], /--width: expected a whole number in 200\.\.8000, received 5/],
      [
        ["-o", join(folder, "z.svg"), "--ranks", "8", "--nodes", "3"],
        /--nodes: expected a divisor of 8 ranks, received 3/,
      ],
      [["-o", join(folder, "none", "z.svg")], /output: expected a writable path/],
    ] as const) {
      await expect(run(trace, ...args)).rejects.toThrow(message);
    }
    await expect(run(join(folder, "absent"), "-o", join(folder, "z.svg"))).rejects.toThrow(/readable file/);
    expect(await readdir(folder)).toHaveLength(before);
  });
});

describe.skipIf(!existsSync(fileURLToPath(new URL("../../dist/viewer/index.html", import.meta.url))))(
  "view's server",
  () => {
    const get = (url: string, headers: Record<string, string> = {}, method = "GET") =>
      new Promise<{ status: number; body: Buffer; headers: Record<string, unknown> }>((resolve, reject) => {
        const sent = request(url, { headers, method }, (response) => {
          const parts: Buffer[] = [];
          response.on("data", (part) => parts.push(part));
          response.on("end", () =>
            resolve({ status: response.statusCode ?? 0, body: Buffer.concat(parts), headers: response.headers }),
          );
        });
        sent.on("error", reject);
        sent.end();
      });

    it("hands out the page and the file's ranges, to those who know the path, under its own name", async () => {
      const file = await openFile(trace);
      const server = await startViewerServer([file], 60_000);
      try {
        const page = await get(server.url);
        expect([page.status, page.headers["content-type"]]).toEqual([200, "text/html; charset=utf-8"]);
        expect(page.headers["content-security-policy"]).toContain("default-src 'none'");
        const whole = await readFile(trace);
        const part = await get(`${server.url}data/0/t.safetensors`, { Range: "bytes=8-107" });
        expect([part.status, part.headers["content-range"]]).toEqual([206, `bytes 8-107/${whole.length}`]);
        expect(part.body.equals(whole.subarray(8, 108))).toBe(true);
        expect((await get(`${server.url}data/0/t`)).body.equals(whole)).toBe(true);
        const refused = [
          [`${server.url}data/0/t`, { Range: `bytes=${whole.length}-` }, 416],
          [`${server.url}data/1/t`, {}, 404],
          [`${server.url}../package.json`, {}, 403],
          [`${server.url}..%2f..%2fpackage.json`, {}, 404],
          [`http://127.0.0.1:${server.port}/`, {}, 403],
          [server.url, { Host: "example.org" }, 403],
        ] as const;
        for (const [url, headers, status] of refused) expect((await get(url, headers)).status, url).toBe(status);
        expect((await get(server.url, {}, "POST")).status).toBe(405);
      } finally {
        server.close();
        await server.closed;
        await file.close();
      }
    });

    it("ends when no page comes, and when the last one is closed", async () => {
      const alone = await startViewerServer([], 50);
      await alone.closed;
      const server = await startViewerServer([], 300);
      const page = request(`${server.url}alive`);
      page.on("error", () => {});
      page.end();
      let ended = false;
      void server.closed.then(() => {
        ended = true;
      });
      await new Promise((resolve) => page.on("response", resolve));
      await new Promise((resolve) => setTimeout(resolve, 600));
      expect(ended).toBe(false);
      page.destroy();
      await server.closed;
    });
  },
);
