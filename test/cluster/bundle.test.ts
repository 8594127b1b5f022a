/** What a failed operation leaves behind: real processes that end badly, and the replay of their bundles. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { createFile, openFile } from "../../cli/files.ts";
import { encodeBundle } from "../../core/bundle/format.ts";
import { readBundle } from "../../core/bundle/read.ts";
import { writeSafetensors } from "../../core/io/safetensors/index.ts";
import { fusedA2A, scratch } from "../cli/run.ts";
import { freePort } from "../conformance/split/port.ts";
import { type Line, runRanks } from "./run.ts";
import { startCommand } from "./start.ts";

const here = (path: string) => existsSync(new URL(`../../${path}`, import.meta.url));
const built =
  here("build/fused_a2a_emulated.node") && here("build/libfused_a2a_nccl_sockets.so") && here("dist/backends");
const why = built ? "" : " (skipped: npm run build and npm run build:native)";
const FAILING = fileURLToPath(new URL("failing.mjs", import.meta.url));

type Steps = readonly (readonly unknown[])[];

interface Failed {
  readonly folder: string;
  readonly lines: readonly Line[][];
  /** Bundles that are there, by process. */
  readonly files: readonly string[];
}

/** 2 processes of 2 ranks, or as many as there are steps. */
async function fail(steps: Steps, options: (process: number) => object = () => ({})): Promise<Failed> {
  const folder = join(scratch(), "bundles");
  const lines = await runRanks(
    2 * steps.length,
    steps,
    (process) => ({ bundleDir: folder, ...options(process) }),
    FAILING,
  );
  const files = existsSync(folder) ? readdirSync(folder).sort() : [];
  return { folder, lines, files: files.map((file) => join(folder, file)) };
}

const nameOf = (process: number) => `fused-a2a-failure-process${process}.safetensors`;

function verify(...args: string[]) {
  const { status, stdout, stderr } = fusedA2A("verify", ...args, "--backend", "wasm", "--against", "oracle", "--json");
  return { status, stderr, report: stdout === "" ? null : JSON.parse(stdout) };
}

/** The bundle with something changed, beside the original. */
async function rewrite(path: string, name: string, change: (tensors: Map<string, ArrayLike<unknown>>) => void) {
  const bundle = await readBundle(await openFile(path));
  change(new Map([...bundle.handle].map(([key, { data }]) => [key, data])));
  const copy = join(scratch(), name);
  const { metadata, entries } = encodeBundle(bundle);
  await writeSafetensors(await createFile(copy), metadata, entries);
  return copy;
}

function expectNamed({ lines }: Failed, process: number, code: string, message: RegExp): void {
  const failed = lines[process].find((line) => line.code !== undefined);
  expect(failed, JSON.stringify(lines)).toMatchObject({ code });
  expect(failed?.message).toMatch(message);
  expect(failed?.message).toContain(`replay it with: fused-a2a verify /`);
  expect(failed?.message).toContain(nameOf(process));
}

describe.skipIf(!built)(`bundles of failed operations${why}`, () => {
  test("nothing is written when nothing fails", async () => {
    const all = ["dispatch", "cached", "combine"];
    const { lines, files } = await fail([all, all]);
    expect(lines.map((one) => one.slice(1))).toEqual([0, 1].map(() => all.map((done) => ({ done }))));
    expect(files).toEqual([]);
  }, 30_000);

  test.each(["fused", "hybrid-ep"])(
    "a process killed before the combine (%s): the living one leaves routing and handle, and verify replays them",
    async (style) => {
      const failed = await fail(
        [
          ["dispatch", "combine"],
          ["dispatch", "die"],
        ],
        () => ({ style }),
      );
      expectNamed(failed, 0, "BACKEND_FAILURE", /^process 1 is gone/);
      expect(failed.files.map((file) => file.split("/").at(-1))).toEqual([nameOf(0)]);
      const { header, routing, handle } = await readBundle(await openFile(failed.files[0]));
      expect(header).toMatchObject({
        operation: "combine",
        sequence: 1,
        code: "BACKEND_FAILURE",
        process: 0,
        numProcesses: 2,
        shape: { numRanks: 4, ranksPerNode: 2, numExperts: 16 },
        localRanks: [0, 1],
        topk: 4,
        hidden: 16,
        dtype: "bf16",
        style,
        missing: [],
      });
      expect(header.message).not.toContain("replay it");
      expect([...routing.keys()]).toEqual([0, 1]);
      expect(routing.get(1)?.topkIdx.shape).toEqual([0, 4]);
      expect(handle.has("rank1.handle.send_row")).toBe(true);
      const { status, report, stderr } = verify(...failed.files);
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
      expect(report).toMatchObject({ ok: true, numDiffering: 0, numDifferingInHandles: 0, absentProcesses: [1] });
      expect(report.replays[0].unknownRanks).toEqual([2, 3]);
      expect(report.replays[0].handles[0].numElements).toBeGreaterThan(100);
      expect(report.replays[0].handles[0].notCompared).toContain("unknown ranks");
    },
    40_000,
  );

  test("a process killed while rows travel: what the devices hold still reaches the bundle", async () => {
    const slow = { FUSED_A2A_EMULATED_LINK: "0-1:0:1,1-0:0:1" };
    const failed = await fail(
      [
        ["dispatch", "combine"],
        ["dispatch", { dieInMs: 400 }, "combine"],
      ],
      () => ({ env: slow, hidden: 8192, tokens: 60 }),
    );
    expectNamed(failed, 0, "BACKEND_FAILURE", /process 1 is gone/);
    const { header, handle } = await readBundle(await openFile(failed.files[0]));
    expect(header).toMatchObject({ operation: "combine", sequence: 1, missing: [] });
    expect(header.waits).toContainEqual(
      expect.objectContaining({ rank: 0, srcRank: 2, phase: expect.stringMatching(/^network sums/) }),
    );
    expect(handle.size).toBeGreaterThan(10);
    expect(verify(...failed.files)).toMatchObject({ status: 0, report: { ok: true } });
    expect(fusedA2A("inspect", ...failed.files).stdout).toContain("rank 0 waited for rank 2: network sums");
  }, 60_000);

  test("one process per rank: three of four leave a bundle of their rank", async () => {
    const die = ["dispatch", "die"];
    const live = ["dispatch", "combine"];
    const folder = join(scratch(), "bundles");
    await runRanks(4, [live, live, live, die], () => ({ bundleDir: folder, processesPerNode: 2 }), FAILING);
    const files = readdirSync(folder).sort();
    expect(files).toEqual([0, 1, 2].map(nameOf));
    const { status, report } = verify(...files.map((file) => join(folder, file)));
    expect(status).toBe(0);
    expect(report.replays).toHaveLength(1);
    expect(report.replays[0]).toMatchObject({ unknownRanks: [3], shape: { numRanks: 4, ranksPerNode: 2 } });
    expect(report.replays[0].handles).toHaveLength(3);
  }, 40_000);

  test("a stopped process (SIGSTOP): all that live leave bundles, which make the whole of their part", async () => {
    const failed = await fail(
      [
        ["dispatch", "cached"],
        ["dispatch", "stop"],
        ["dispatch", "cached"],
      ],
      () => ({ deadlineMs: 1500, numExperts: 18 }),
    );
    for (const process of [0, 2]) expectNamed(failed, process, "TIMEOUT", /process 1 did not come/);
    expect(failed.files.map((file) => file.split("/").at(-1))).toEqual([nameOf(0), nameOf(2)]);
    const { status, report } = verify(...failed.files);
    expect({ status, absent: report.absentProcesses }).toEqual({ status: 0, absent: [1] });
    expect(report.replays).toHaveLength(1);
    expect(report.replays[0].unknownRanks).toEqual([2, 3]);
    expect(report.replays[0].handles).toHaveLength(2);
  }, 40_000);

  test("a mismatch: every process leaves a bundle, each side is replayed as it was, and the group goes on", async () => {
    const failed = await fail(
      [
        ["dispatch", "dispatch"],
        ["dispatch", "dispatch"],
      ],
      (process) => ({ hidden: process === 0 ? 32 : 24 }),
    );
    for (const process of [0, 1]) {
      expectNamed(failed, process, "CONTRACT_MISMATCH", /hidden: 32 on process 0, 24 on process 1/);
    }
    expect(failed.files).toHaveLength(2);
    // The second mismatch took the place of the first.
    expect((await readBundle(await openFile(failed.files[0]))).header.sequence).toBe(1);
    const { status, report } = verify(...failed.files);
    expect(status).toBe(0);
    expect(report.replays.map((one: { hidden: number }) => one.hidden)).toEqual([32, 24]);
    const text = fusedA2A("inspect", ...failed.files);
    expect(text.stdout).toContain("CONTRACT_MISMATCH in operation 1 (dispatch)");
    expect(text.status).toBe(0);
  }, 40_000);

  test("routing on devices, also multihot, is downloaded after the failure", async () => {
    for (const form of ["index", "multihot"]) {
      const failed = await fail(
        [
          ["dispatch", "combine"],
          ["dispatch", "die"],
        ],
        () => ({ resident: true, style: "hybrid-ep", form }),
      );
      const { header, routing } = await readBundle(await openFile(failed.files[0]));
      expect(header.missing).toEqual([]);
      expect([...routing.keys()]).toEqual([0, 1]);
      expect(verify(...failed.files)).toMatchObject({ status: 0, report: { ok: true } });
    }
  }, 60_000);

  test("a handle made elsewhere has no routing: the bundle says so, and cannot be replayed", async () => {
    const failed = await fail(
      [
        ["dispatch", "combine"],
        ["dispatch", "die"],
      ],
      () => ({ elsewhere: true }),
    );
    const { header, handle } = await readBundle(await openFile(failed.files[0]));
    expect(header.missing[0]).toMatch(/^routing: the handle was not made by a dispatch of this group/);
    expect(handle.size).toBeGreaterThan(10);
    const { status, stderr } = verify(...failed.files);
    expect(stderr).toMatch(
      /^fused-a2a: routing: expected the routing of at least one rank, received none in .*process0/,
    );
    expect(status).toBe(2);
  }, 30_000);

  test("a folder that cannot be written hides nothing", async () => {
    const [lines] = (
      await fail(
        [
          ["dispatch", "combine"],
          ["dispatch", "die"],
        ],
        () => ({ bundleDir: join(scratch(), "nowhere/bundles") }),
      )
    ).lines;
    const failed = lines.find((line) => line.code !== undefined);
    expect(failed?.message).toMatch(/^process 1 is gone.*; no bundle in .*nowhere\/bundles: ENOENT/);
  }, 30_000);

  test("a tampered handle is found, and named by rank, array and index", async () => {
    const failed = await fail([
      ["dispatch", "combine"],
      ["dispatch", "die"],
    ]);
    const copy = await rewrite(failed.files[0], "tampered.safetensors", (handle) => {
      const rows = handle.get("rank0.handle.row_src_token") as Int32Array;
      rows[3] += 1;
    });
    const { status, report } = verify(copy);
    expect(status).toBe(1);
    expect(report).toMatchObject({ ok: false, numDiffering: 0, numDifferingInHandles: 1 });
    expect(report.replays[0].handles[0].first).toMatchObject({
      rank: 0,
      array: "row_src_token of known ranks",
      index: 3,
    });
    const { stdout } = fusedA2A("verify", copy, "--backend", "wasm", "--against", "oracle");
    expect(stdout).toMatch(
      /handle of process 0 against oracle: 1 of .* first at rank 0, row_src_token of known ranks\[3\]/,
    );
    expect(stdout).toContain("NOT VERIFIED: a handle in a bundle differs");
  }, 40_000);
});

describe.skipIf(!built)(`bundles of run and verify${why}`, () => {
  test("a bundle knows the whole routing and the seed: the handle is compared in full", async () => {
    const folder = scratch();
    const rendezvous = `127.0.0.1:${await freePort()}`;
    const args = ["run", "--backend", "cuda-emulated", "--ranks", "4", "--tokens", "64", "--hidden", "2048"];
    const cluster = ["--nodes", "2", "--rendezvous", rendezvous, "--bundle-dir", folder, "--deadline-ms", "8000"];
    const more = ["--experts", "32", "--seed", "5", "--style", "hybrid-ep"];
    // A rail carries 64 rows of 4 KiB there, and as many back: the connection closes in the combine.
    const env = { FUSED_A2A_EMULATED_LINK: "0-1:0:0:390000" };
    const both = [0, 1].map((node) => startCommand([...args, ...more, ...cluster, "--node-rank", `${node}`], { env }));
    for (const [process, { ended }] of both.entries()) {
      const { status, stderr } = await ended;
      expect(status).toBe(2);
      expect(stderr).toMatch(/replay it with: fused-a2a verify \/.*/);
      expect(stderr).toContain(join(folder, nameOf(process)));
    }
    const [file, other] = [0, 1].map((process) => join(folder, nameOf(process)));
    const { header, routing } = await readBundle(await openFile(file));
    expect(header).toMatchObject({ operation: "combine", rows: { seed: 5, layer: 0, dtype: "bf16" }, missing: [] });
    expect([...routing.keys()]).toEqual([0, 1, 2, 3]);
    expect(verify(file, other)).toMatchObject({ status: 0, report: { ok: true, absentProcesses: [] } });
    const { status, report } = verify(file);
    expect(status).toBe(0);
    expect(report.replays[0]).toMatchObject({ unknownRanks: [], conflicts: [] });
    // Options that repeat the bundle's are harmless, others are refused by name.
    expect(verify(file, "--hidden", "2048", "--seed", "5").status).toBe(0);
    expect(verify(file, "--hidden", "64")).toMatchObject({
      status: 2,
      stderr: `fused-a2a: --hidden: expected 2048 as ${file} says, received 64; leave it out: the bundle says what is replayed\n`,
    });
    expect(verify(file, "--tokens", "64").stderr).toContain("--tokens: expected no such option with a bundle");
    expect(verify(file, "--nodes", "2").stderr).toContain("--nodes: expected no such option with a bundle");
  }, 60_000);
});

describe.skipIf(!built)(`bundles that do not belong together${why}`, () => {
  test("are refused by name", async () => {
    const die = [
      ["dispatch", "combine"],
      ["dispatch", "die"],
    ];
    const [one, other, mismatch] = await Promise.all([
      fail(die),
      fail(die),
      fail([["dispatch"], ["dispatch"]], (process) => ({ hidden: 16 + process })),
    ]);
    const refused = (...files: string[]) => {
      const { status, stderr } = verify(...files);
      expect(status).toBe(2);
      return stderr;
    };
    expect(refused(one.files[0], other.files[0])).toMatch(
      /files: expected bundles of one group, received [0-9a-f]+ in/,
    );
    expect(refused(one.files[0], one.files[0])).toMatch(/one bundle per process, received process 0 in .* and in/);
    expect(mismatch.files).toHaveLength(2);
    const version2 = join(scratch(), "version2.safetensors");
    const bundle = await readBundle(await openFile(one.files[0]));
    const { metadata, entries } = encodeBundle(bundle);
    await writeSafetensors(await createFile(version2), { ...metadata, version: "2" }, entries);
    expect(refused(version2)).toContain("__metadata__.version: expected 1, received 2");
    expect(fusedA2A("run", version2, "--backend", "oracle").stderr).toContain("expected 1, received 2");
    const later = join(scratch(), "later.safetensors");
    const changed = { ...metadata, process: "1", sequence: "7", code: "CONTRACT_MISMATCH" };
    await writeSafetensors(await createFile(later), changed, entries);
    expect(refused(one.files[0], later)).toMatch(
      /bundles of one failure, received BACKEND_FAILURE in operation 1 \(combine\) in .*, CONTRACT_MISMATCH in operation 7/,
    );
    const routing = join(scratch(), "routing.safetensors");
    const { format: _, ...plain } = metadata;
    await writeSafetensors(await createFile(routing), plain, entries);
    expect(refused(one.files[0], routing)).toContain("files: expected bundles alone");
    expect(refused(routing, routing)).toContain("files: expected one routing file, or bundles of a failed operation");
  }, 60_000);
});
