/** Connections that end while rows travel: one of a rail, the one to process 0. Both processes say what happened and live. */
import { connect, createServer, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { freePort } from "../conformance/split/port.ts";
import type { Line } from "./run.ts";
import { built, startCommand, startRank, whyNotBuilt } from "./start.ts";

const NUM_RANKS = 4;
const DEADLINE_MS = 8000;
/** Two hosts' worth of a slow network: what process 0 sends of this step takes seconds. */
const SLOW = { env: { FUSED_A2A_EMULATED_LINK: "0-1:0:0.2" } };
const LARGE = { tokens: 300, hidden: 1024 };
/** One of the rows that process 1 waits for, and a number for the others: they are in the table. */
const OUTSTANDING =
  /rank [23], network rows [^;]*: expects \d+ bytes of rank [01], not received( \(and \d+ more\))?[;)]/;

const placeOf = (processRank: number, port: number) => ({
  launcher: "by hand",
  numProcesses: 2,
  processRank,
  host: "127.0.0.1",
  port,
});

/** The first failure; after it the memory went back and an ordinary group works. */
function failureOf(lines: readonly Line[]): Line {
  const failed = lines.find((line) => line.code !== undefined);
  expect(failed, JSON.stringify(lines)).toBeDefined();
  expect(lines.filter((line) => line.reserved !== undefined).at(-1)?.reserved).toBe(0);
  expect(lines.at(-1)).toEqual({ alive: true });
  return failed as Line;
}

/** Carries bytes both ways until it is cut. */
async function relay(port: number): Promise<{ port: number; cut(): void; close(): Promise<void> }> {
  const sockets: Socket[] = [];
  const server = createServer(async (from) => {
    from.on("error", () => {});
    const to = await dial(port);
    to.on("error", () => {});
    sockets.push(from, to);
    from.pipe(to).pipe(from);
  });
  const own = await freePort();
  await new Promise<void>((resolve) => server.listen(own, "127.0.0.1", resolve));
  return {
    port: own,
    cut: () => sockets.forEach((socket) => socket.destroy()),
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

/** Until somebody listens there. */
async function dial(port: number): Promise<Socket> {
  for (;;) {
    const socket = connect({ host: "127.0.0.1", port });
    const connected = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    if (connected) return socket;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe.skipIf(!built)(`connections that end while rows travel${whyNotBuilt}`, () => {
  test("a rail: both processes name the transfer and the rank it is of, and live", async () => {
    const port = await freePort();
    const env = { FUSED_A2A_EMULATED_LINK: "0-1:0:0:200000" };
    const both = [0, 1].map((process) => {
      const options = { place: placeOf(process, port), numRanks: NUM_RANKS, deadlineMs: DEADLINE_MS, steps: [LARGE] };
      return startRank(options, process === 0 ? { env } : {});
    });
    const [first, second] = await Promise.all(both.map(async ({ ended }) => failureOf(await ended)));
    expect([first.code, second.code]).toEqual(["BACKEND_FAILURE", "BACKEND_FAILURE"]);
    expect(second.message).toMatch(/connection closed by remote rank 0/);
    expect(second.message).toMatch(OUTSTANDING);
    expect(first.message).toMatch(/connection closed by remote rank 1|process 1 /);
  }, 60_000);

  test("a rail, under `run`: one error line, exit code 2, long before the deadline", async () => {
    const rendezvous = `127.0.0.1:${await freePort()}`;
    const size = ["--ranks", "4", "--tokens", "1200", "--hidden", "512"];
    const both = [0, 1].map((node) =>
      startCommand(
        [
          "run",
          "--backend",
          "cuda-emulated",
          "--nodes",
          "2",
          "--node-rank",
          `${node}`,
          "--rendezvous",
          rendezvous,
          ...size,
        ],
        node === 0 ? { env: { FUSED_A2A_EMULATED_LINK: "0-1:0:0:100000" } } : {},
      ),
    );
    for (const { ended } of both) {
      const { status, stderr, seconds } = await ended;
      expect(stderr).toMatch(
        /^fused-a2a: dispatch: network: expected the rail of rank \d to work, received remote process/,
      );
      expect(status).toBe(2);
      expect(seconds).toBeLessThan(20);
    }
  }, 60_000);

  test("a path that is closed from the first byte is named when the group is made, before any row", async () => {
    const rendezvous = `127.0.0.1:${await freePort()}`;
    const both = [0, 1].map((node) =>
      startCommand(
        ["run", "--backend", "cuda-emulated", "--ranks", "4", "--nodes", "2", "--node-rank", `${node}`].concat([
          "--rendezvous",
          rendezvous,
        ]),
        node === 0 ? { env: { FUSED_A2A_EMULATED_LINK: "0-1:0:0:0" } } : {},
      ),
    );
    for (const [node, { ended }] of both.entries()) {
      const { status, stderr, seconds } = await ended;
      expect(stderr).toMatch(/^fused-a2a: connecting: network: expected the rail of rank \d to work, received/);
      // A word of every pair: rank r talks with its index on the other node.
      for (const rank of node === 0 ? [0, 1, 2, 3] : [2, 3]) {
        expect(stderr).toMatch(new RegExp(`^${rank} +${(rank + 2) % 4} +connecting +4 bytes +nothing`, "m"));
      }
      expect(status).toBe(2);
      expect(seconds).toBeLessThan(20);
    }
  }, 60_000);

  test("the rendezvous connection: each names the other at once, and lives", async () => {
    const port = await freePort();
    const between = await relay(port);
    const steps = [{ tokens: 8 }, LARGE];
    const both = [0, 1].map((process) => {
      const place = placeOf(process, process === 0 ? port : between.port);
      return startRank({ place, numRanks: NUM_RANKS, deadlineMs: DEADLINE_MS, steps }, process === 0 ? SLOW : {});
    });
    await Promise.all(both.map(({ until }) => until((line) => line.done === 0)));
    // The second step's rows are on their way for seconds.
    await new Promise((resolve) => setTimeout(resolve, 700));
    const began = performance.now();
    between.cut();
    const [first, second] = await Promise.all(
      both.map(async ({ until, ended }) => {
        await until((line) => line.code !== undefined);
        expect(performance.now() - began).toBeLessThan(DEADLINE_MS / 2);
        return failureOf(await ended);
      }),
    );
    await between.close();
    expect([first.code, second.code]).toEqual(["BACKEND_FAILURE", "BACKEND_FAILURE"]);
    expect(first.message).toMatch(/process 1 is gone: it closed the connection/);
    expect(second.message).toMatch(/process 0 is gone: it closed the connection/);
    // The rows that were on their way.
    expect(second.message).toMatch(OUTSTANDING);
  }, 60_000);
});
