/** What may call at the meeting point besides the processes of the group, and what the others hear when process 0 cannot go on. */
import { connect, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { type Meeting, meet } from "../../backends/cuda/cluster/index.ts";
import { Unavailable } from "../../core/errors.ts";
import { freePort } from "../conformance/split/port.ts";

const placeOf = (processRank: number, port: number) => ({
  launcher: "by hand",
  numProcesses: 2,
  processRank,
  host: "127.0.0.1",
  port,
});

interface Settings {
  readonly secret?: string;
  readonly timeoutMs?: number;
  readonly payload?: () => Promise<string>;
}

function join(processRank: number, port: number, settings: Settings = {}): Promise<Meeting> {
  const { secret, timeoutMs = 5000, payload = async () => "the id" } = settings;
  return meet({ place: placeOf(processRank, port), contract: {}, payload, secret, timeoutMs });
}

function leave(...meetings: Meeting[]): void {
  for (const { channels } of meetings) for (const channel of channels.values()) channel.end();
}

interface Caller {
  readonly socket: Socket;
  /** The messages that came, once the other end has closed. */
  readonly heard: Promise<Record<string, unknown>[]>;
}

/** Somebody else's connection, as soon as process 0 has asked its question. */
async function call(port: number): Promise<Caller> {
  for (;;) {
    const socket = connect({ host: "127.0.0.1", port });
    let text = "";
    const asked = await new Promise<boolean>((resolve) => {
      socket.on("data", (bytes) => {
        text += bytes;
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
    const lines = () => text.split("\n").filter(Boolean);
    if (asked) {
      const ended = new Promise<void>((resolve) => socket.once("close", () => resolve()));
      return { socket, heard: ended.then(() => lines().map((line) => JSON.parse(line))) };
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const hello = (more: object) =>
  `${JSON.stringify({ type: "hello", protocol: 1, processRank: 1, nonce: "", contract: {}, ...more })}\n`;

describe("strangers at the meeting point", () => {
  test.each([
    ["as long as a proof in characters, longer in bytes", "é".repeat(64)],
    ["empty", ""],
    ["of another length", "00"],
    ["wrong", "0".repeat(64)],
  ])("a proof that is %s is refused, and the group still meets", async (_, proof) => {
    const port = await freePort();
    const host = join(0, port, { secret: "s" });
    const { socket, heard } = await call(port);
    socket.write(hello({ proof }));
    expect((await heard).at(-1)).toMatchObject({ type: "refused", reason: expect.stringContaining("shared secret") });
    const met = await Promise.all([host, join(1, port, { secret: "s" })]);
    expect(met.map(({ payload }) => payload)).toEqual(["the id", "the id"]);
    leave(...met);
  });

  test("one that says nothing is let go when the group is complete", async () => {
    const port = await freePort();
    const host = join(0, port);
    const { heard } = await call(port);
    const met = await Promise.all([host, join(1, port)]);
    expect((await heard).map(({ type }) => type)).toEqual(["challenge", "refused"]);
    leave(...met);
  });

  test("one that says nothing is let go when the group does not come together", async () => {
    const port = await freePort();
    const host = join(0, port, { timeoutMs: 300 });
    host.catch(() => {});
    const { heard } = await call(port);
    await expect(host).rejects.toMatchObject({ code: "TIMEOUT" });
    expect((await heard).at(-1)).toMatchObject({
      type: "refused",
      reason: expect.stringContaining("missing: process 1"),
    });
  });
});

test("a process that leaves as soon as all are there is not forgotten: whoever listens next is told", async () => {
  const port = await freePort();
  const host = join(0, port, { payload: () => new Promise((resolve) => setTimeout(() => resolve("late"), 100)) });
  const { socket } = await call(port);
  socket.write(hello({ contract: { processes: 2 } }));
  await new Promise((resolve) => socket.once("data", resolve));
  socket.destroy();
  const { channels } = await host;
  expect([...channels.keys()]).toEqual([1]);
  const why = await new Promise<string>((resolve) => {
    for (const channel of channels.values()) channel.onClose = resolve;
  });
  expect(why).toBe("it closed the connection");
});

describe("when process 0 cannot go on, the others hear why, as the same kind of error", () => {
  test("something is missing there", async () => {
    const port = await freePort();
    const payload = () => Promise.reject(new Unavailable("NCCL was not found"));
    const both = await Promise.allSettled([join(0, port, { payload }), join(1, port)]);
    for (const one of both)
      expect(one).toMatchObject({ reason: { code: "UNAVAILABLE", message: expect.stringContaining("NCCL") } });
  });

  test("others did not come", async () => {
    const port = await freePort();
    const lone = (processRank: number, timeoutMs: number) =>
      meet({
        place: { ...placeOf(processRank, port), numProcesses: 3 },
        contract: {},
        payload: () => "",
        timeoutMs,
      });
    const both = await Promise.allSettled([lone(0, 400), lone(1, 5000)]);
    for (const one of both)
      expect(one).toMatchObject({ reason: { code: "TIMEOUT", message: expect.stringContaining("process 2") } });
  });

  test("it disagrees", async () => {
    const port = await freePort();
    const of = (processRank: number, version: number) =>
      meet({ place: placeOf(processRank, port), contract: { version }, payload: () => "", timeoutMs: 5000 });
    const both = await Promise.allSettled([of(0, 1), of(1, 2)]);
    for (const one of both) expect(one).toMatchObject({ reason: { code: "CONTRACT_MISMATCH" } });
  });

  test("it ends without a word", async () => {
    const port = await freePort();
    const { createServer } = await import("node:net");
    const server = createServer((socket) => {
      socket.write(`${JSON.stringify({ type: "challenge", protocol: 1, nonce: "n", secret: false })}\n`);
      socket.once("data", () => socket.destroy());
    });
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    await expect(join(1, port)).rejects.toMatchObject({
      code: "BACKEND_FAILURE",
      message: expect.stringMatching(/process 0 is gone: .*; look at its log/),
    });
    server.close();
  });
});
