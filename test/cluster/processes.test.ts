import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { freePort } from "../conformance/split/port.ts";

/** What a process printed: it met, it agreed, or an error with its code and message. */
interface Event {
  met?: string;
  agreed?: string;
  arrivalsUs?: number[];
  code?: string;
  message?: string;
}

const MEMBER = fileURLToPath(new URL("member.mjs", import.meta.url));

/** Real processes on this machine, each with its own options; `absent` ones are never started. */
async function launch(members: (object | "absent")[], at?: number): Promise<Event[][]> {
  const port = at ?? (await freePort());
  const runs = members.map((options, processRank) => {
    if (options === "absent") return Promise.resolve([]);
    const place = { launcher: "by hand", numProcesses: members.length, processRank, host: "127.0.0.1", port };
    const child = spawn(process.execPath, [MEMBER, JSON.stringify({ place, ...options })], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.on("data", (chunk) => {
      text += chunk;
    });
    // A stopped process is ended by its pid once the others must have noticed.
    const timer = setTimeout(() => child.kill("SIGKILL"), 4_000);
    return new Promise<Event[]>((resolve) => {
      child.on("close", () => {
        clearTimeout(timer);
        resolve(
          text
            .split("\n")
            .filter(Boolean)
            .map((line) => JSON.parse(line)),
        );
      });
    });
  });
  return Promise.all(runs);
}

const dispatch = (more: object = {}) => ({ operation: "dispatch", hidden: 7168, dtype: "bf16", ...more });
const combine = { operation: "combine", hidden: 7168, dtype: "bf16" };

test("three processes meet and agree; arrivals tell who was late", async () => {
  const events = await launch(
    [
      { operations: [dispatch(), combine] },
      { operations: [dispatch(), combine] },
      { operations: [{ sleepMs: 300 }, dispatch(), combine], deadlineMs: 3000 },
    ].map((one) => ({ deadlineMs: 3000, ...one })),
  );
  for (const mine of events) {
    expect(mine[0]).toEqual({ met: "payload of process 0" });
    expect(mine.slice(1).map((event) => event.agreed)).toEqual(["dispatch", "combine"]);
    const [first, second, third] = mine[1].arrivalsUs ?? [];
    expect(third).toBeGreaterThan(Math.max(first, second) + 100_000);
  }
});

test("a different hidden is named with both values on every process, and the next operation may go on", async () => {
  const events = await launch([
    { operations: [dispatch(), combine] },
    { operations: [dispatch({ hidden: 4096 }), combine] },
    { operations: [dispatch(), combine] },
  ]);
  for (const mine of events) {
    expect(mine[1]).toMatchObject({ code: "CONTRACT_MISMATCH" });
    expect(mine[1].message).toContain("hidden: 7168 on processes 0, 2, 4096 on process 1");
    expect(mine[2].agreed).toBe("combine");
  }
});

test("calls out of order are named", async () => {
  const events = await launch([{ operations: [dispatch(), combine] }, { operations: [combine, dispatch()] }]);
  for (const mine of events) {
    expect(mine[1].message).toContain("operation: dispatch on process 0, combine on process 1");
  }
});

test("a process that skips a call is missed by name, and says what the others wait in", async () => {
  const events = await launch([
    { operations: [dispatch(), combine] },
    { operations: [dispatch(), { sleepMs: 2500 }] },
    { operations: [dispatch(), combine] },
  ]);
  for (const process of [0, 2]) {
    expect(events[process][2]).toMatchObject({ code: "TIMEOUT" });
    expect(events[process][2].message).toMatch(
      /after 500 ms process 1 did not come; process \d waits in combine, process \d waits in combine/,
    );
  }
});

test("a stopped process (SIGSTOP) is missed by name", async () => {
  const events = await launch([{ operations: [dispatch()] }, { operations: [{ stop: true }, dispatch()] }]);
  expect(events[0][1]).toMatchObject({ code: "TIMEOUT" });
  expect(events[0][1].message).toContain("process 1 did not come");
}, 30_000);

test("a stopped process 0 is missed by the others", async () => {
  const events = await launch([{ operations: [{ stop: true }] }, { operations: [{ sleepMs: 100 }, dispatch()] }]);
  expect(events[1][1]).toMatchObject({ code: "TIMEOUT" });
  expect(events[1][1].message).toContain("process 0 did not answer dispatch");
}, 30_000);

test("a killed process is named at once, and every later call says so", async () => {
  const events = await launch([
    { operations: [dispatch(), combine], deadlineMs: 10_000 },
    { operations: [{ die: true }] },
    { operations: [dispatch(), combine], deadlineMs: 10_000 },
  ]);
  for (const process of [0, 2]) {
    for (const event of events[process].slice(1)) {
      expect(event.code).toBe("BACKEND_FAILURE");
      expect(event.message).toContain("process 1 is gone");
    }
    expect(events[process]).toHaveLength(3);
  }
});

test("processes that never start are listed", async () => {
  const events = await launch([{ timeoutMs: 600 }, "absent", { timeoutMs: 5000 }, "absent"]);
  expect(events[0]).toEqual([expect.objectContaining({ code: "TIMEOUT" })]);
  expect(events[0][0].message).toContain("2 of 4 processes are here; missing: processes 1, 3");
  expect(events[2][0].message).toContain("missing: processes 1, 3");
});

test("without process 0 the others say where they looked", async () => {
  const events = await launch(["absent", { timeoutMs: 400 }]);
  expect(events[1][0]).toMatchObject({ code: "TIMEOUT" });
  expect(events[1][0].message).toMatch(/process 0 did not answer at 127\.0\.0\.1:\d+ within 400 ms/);
});

test("different versions are refused by name on every process", async () => {
  const events = await launch([{ contract: { version: "0.1.0" } }, { contract: { version: "0.2.0" } }]);
  for (const mine of events) expect(mine[0].message).toContain("version: 0.1.0 on process 0, 0.2.0 on process 1");
});

test("a wrong or missing secret is refused; the right one passes", async () => {
  const wrong = await launch([
    { secret: "a", timeoutMs: 1200 },
    { secret: "b", timeoutMs: 1000 },
  ]);
  expect(wrong[1][0].message).toContain("process 1 does not know the shared secret");
  expect(wrong[0][0].message).toContain("missing: process 1");
  const none = await launch([{ secret: "a", timeoutMs: 1200 }, { timeoutMs: 1000 }]);
  expect(none[1][0].message).toContain("asks for a shared secret");
  const right = await launch([{ secret: "a" }, { secret: "a" }]);
  expect(right.map((mine) => mine[0].met)).toEqual(["payload of process 0", "payload of process 0"]);
});

test("a forwarder that takes calls and drops them before process 0 listens is dialled again", async () => {
  const port = await freePort();
  const forwarder = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => forwarder.listen(port, "127.0.0.1", resolve));
  setTimeout(() => forwarder.close(), 600);
  const events = await launch([{ startsInMs: 900 }, {}], port);
  expect(events.map((mine) => mine[0].met)).toEqual(["payload of process 0", "payload of process 0"]);
});

test("an operation that comes before process 0 is ready for it waits there", async () => {
  const events = await launch(
    [{ readyInMs: 600, operations: [dispatch()] }, { operations: [dispatch()] }].map(patient),
  );
  expect(events.map((mine) => mine[1].agreed)).toEqual(["dispatch", "dispatch"]);
});

function patient<T extends object>(member: T): T & { deadlineMs: number } {
  return { ...member, deadlineMs: 3000 };
}
