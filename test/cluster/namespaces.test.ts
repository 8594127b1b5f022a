/** Two hosts as network namespaces with one link between them: what is no loopback, a link that goes down, a wrong address. */
import { afterEach, describe, expect, test } from "vitest";
import { type Host, makeHosts, removeHosts, whyNoHosts } from "./namespaces.ts";
import type { Line } from "./run.ts";
import { built, startCommand, startRank, whyNotBuilt } from "./start.ts";

const PORT = 29_517;
const missing = built ? whyNoHosts() : null;
const why = built ? missing && ` (skipped: ${missing})` : whyNotBuilt;

const where = (host: Host, env: Record<string, string> = {}) => ({
  prefix: host.prefix,
  env: { NCCL_SOCKET_IFNAME: `=${host.device}`, ...env },
});

function startBoth(hosts: readonly Host[], command: readonly string[], more: (node: number) => object = () => ({})) {
  const rendezvous = `${hosts[0].address}:${PORT}`;
  return hosts.map((host, node) =>
    startCommand(
      [...command, "--nodes", "2", "--node-rank", `${node}`, "--rendezvous", rendezvous],
      where(host, more(node) as Record<string, string>),
    ),
  );
}

const SMALL = ["--backend", "cuda-emulated", "--ranks", "4", "--tokens", "60", "--hidden", "64", "--json"];

describe.skipIf(!built || missing !== null)(`two hosts as network namespaces${why ?? ""}`, () => {
  afterEach(removeHosts);

  test("run and verify: every process finds its ranks equal", async () => {
    const hosts = makeHosts();
    for (const { ended } of startBoth(hosts, ["run", ...SMALL])) {
      const { status, stdout, stderr } = await ended;
      expect(stderr).toBe("");
      expect(JSON.parse(stdout).shape).toMatchObject({ numRanks: 4, ranksPerNode: 2 });
      expect(status).toBe(0);
    }
    for (const { ended } of startBoth(hosts, ["verify", ...SMALL, "--against", "oracle"])) {
      const { status, stdout, stderr } = await ended;
      expect(stderr).toBe("");
      expect(JSON.parse(stdout)).toMatchObject({ ok: true, numDiffering: 0 });
      expect(status).toBe(0);
    }
  }, 60_000);

  test("verify with a process per rank: two on each host", async () => {
    const hosts = makeHosts();
    const rendezvous = ["--nodes", "2", "--rendezvous", `${hosts[0].address}:${PORT}`, "--processes-per-node", "2"];
    const command = ["verify", ...SMALL, "--against", "oracle", ...rendezvous];
    const all = hosts.flatMap((host, node) =>
      [0, 1].map((local) => {
        return startCommand([...command, "--node-rank", `${node}`, "--local-process", `${local}`], where(host));
      }),
    );
    for (const { ended } of all) {
      const { status, stdout, stderr } = await ended;
      expect(stderr).toBe("");
      expect(JSON.parse(stdout)).toMatchObject({ ok: true, numDiffering: 0, shape: { ranksPerNode: 2 } });
      expect(status).toBe(0);
    }
  }, 60_000);

  test("a link that goes down while rows travel: both name what does not come, within the deadline, and live", async () => {
    const hosts = makeHosts();
    const deadlineMs = 2500;
    const steps = [{ tokens: 8 }, { tokens: 300, hidden: 1024 }];
    const both = hosts.map((host, processRank) => {
      const place = { launcher: "by hand", numProcesses: 2, processRank, host: hosts[0].address, port: PORT };
      // 1.2 MB to the other host at 0.2 MB/s: the link goes down in the middle.
      const env = { FUSED_A2A_EMULATED_LINK: `${processRank}-${1 - processRank}:0:0.2` };
      return startRank({ place, numRanks: 4, deadlineMs, steps }, where(host, env));
    });
    await Promise.all(both.map(({ until }) => until((line) => line.done === 0)));
    await new Promise((resolve) => setTimeout(resolve, 700));
    const began = performance.now();
    hosts[1].setLink("down");
    const failures = await Promise.all(
      both.map(async ({ until, ended }) => {
        await until((line) => line.code !== undefined);
        // A process is heard of at most half a deadline later than its own wait ends.
        expect(performance.now() - began).toBeLessThan(deadlineMs * 1.5 + 1500);
        return survived(await ended);
      }),
    );
    expect(failures[0].code).toBe("TIMEOUT");
    expect(failures[0].message).toMatch(/rank [01], network rows .*expects \d+ bytes of rank [23], not received/);
    expect(failures[1].code).toBe("TIMEOUT");
    expect(failures[1].message).toMatch(/rank [23], network rows .*expects \d+ bytes of rank [01], not received/);
  }, 60_000);

  test("a link that goes down between operations: who did not come is named on both", async () => {
    const hosts = makeHosts();
    const deadlineMs = 1200;
    const both = hosts.map((host, processRank) => {
      const place = { launcher: "by hand", numProcesses: 2, processRank, host: hosts[0].address, port: PORT };
      const steps = [{ tokens: 8 }, { sleepMs: 800 }, { tokens: 8 }];
      return startRank({ place, numRanks: 4, deadlineMs, steps }, where(host));
    });
    await Promise.all(both.map(({ until }) => until((line) => line.done === 0)));
    hosts[0].setLink("down");
    const [first, second] = await Promise.all(both.map(async ({ ended }) => survived(await ended)));
    expect([first.code, second.code]).toEqual(["TIMEOUT", "TIMEOUT"]);
    expect(first.message).toMatch(/after 1200 ms process 1 did not come; process 0 waits in dispatch/);
    expect(second.message).toMatch(/process 0 did not answer dispatch within 1800 ms/);
  }, 60_000);

  test("process 0 listens on an address of nobody: it says so, the other says where it looked", async () => {
    const hosts = makeHosts();
    const join = ["--join-timeout-ms", "1500"];
    const [first, second] = await Promise.all(
      startBoth(hosts, ["run", ...SMALL, ...join, "--bind", "10.99.99.99"]).map(({ ended }) => ended),
    );
    expect(first.stderr).toMatch(
      /^fused-a2a: rendezvous: process 0 cannot listen on 10\.99\.99\.99:29517: .*EADDRNOTAVAIL/,
    );
    expect(second.stderr).toContain(`process 0 did not answer at ${hosts[0].address}:${PORT} within 1500 ms`);
    expect([first.status, second.status]).toEqual([2, 2]);
  }, 60_000);

  test("process 0 listens on loopback alone: it says who is missing, the other says where it looked", async () => {
    const hosts = makeHosts();
    const join = ["--join-timeout-ms", "1500"];
    const [first, second] = await Promise.all(
      startBoth(hosts, ["run", ...SMALL, ...join, "--bind", "127.0.0.1"]).map(({ ended }) => ended),
    );
    expect(first.stderr).toMatch(/after 1500 ms 1 of 2 processes are here; missing: process 1/);
    expect(second.stderr).toContain(`process 0 did not answer at ${hosts[0].address}:${PORT} within 1500 ms`);
    expect([first.status, second.status]).toEqual([2, 2]);
  }, 60_000);

  test("an interface that does not reach the other host: the address that does not answer is named", async () => {
    const hosts = makeHosts();
    const deadline = ["--deadline-ms", "3000"];
    const both = startBoth(hosts, ["run", ...SMALL, ...deadline], () => ({ NCCL_SOCKET_IFNAME: "lo" }));
    const [first, second] = await Promise.all(both.map(({ ended }) => ended));
    expect(second.stderr).toMatch(
      /meeting the other .*the root of the communicator does not answer at 127\.0\.0\.1:\d+/,
    );
    expect(first.stderr).toMatch(/^fused-a2a: .*(meeting the other|process 1)/);
    expect([first.status, second.status]).toEqual([2, 2]);
  }, 60_000);
});

/** The first failure; after it the memory went back and an ordinary group works. */
function survived(lines: readonly Line[]): Line {
  const failed = lines.find((line) => line.code !== undefined);
  expect(failed, JSON.stringify(lines)).toBeDefined();
  expect(lines.filter((line) => line.reserved !== undefined).at(-1)?.reserved).toBe(0);
  expect(lines.at(-1)).toEqual({ alive: true });
  return failed as Line;
}
