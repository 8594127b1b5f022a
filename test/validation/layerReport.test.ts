/** The table of `run` and `verify`, from reports made by hand. */
import { describe, expect, test } from "vitest";
import { describeLayers, type LayerReport } from "../../cli/layerReport.ts";

const REPORT: LayerReport = {
  layer: "7",
  traffic: {
    numTokens: 8,
    numSlots: 8,
    numRows: 8,
    numRemoteRows: 6,
    numNetworkRows: 4,
    rowBytes: 16,
    logicalBytes: 128,
    wireBytes: 96,
    networkBytes: 64,
    maxOverMeanRank: 4,
  },
  times: { generateMs: 1, castMs: 0, dispatchMs: 2, expertMs: 3, combineMs: 4 },
  dispatchGBps: 0.5,
  combineGBps: 0.25,
  numCut: 0,
};
const NODES = { numRanks: 4, ranksPerNode: 2, numExperts: 4 };

function cells(report: LayerReport, shape = NODES): Record<string, string> {
  const [header, row] = describeLayers([report], shape).split("\n");
  const values = row.split(/ {2,}/);
  return Object.fromEntries(header.split(/ {2,}/).map((name, i) => [name, values[i]]));
}

describe("the table of layers", () => {
  test("several nodes: a column for the bytes of the network, and its definition", () => {
    expect(cells(REPORT)).toMatchObject({ logical: "128 B", wire: "96 B", network: "64 B", "load max/mean": "4" });
    expect(describeLayers([REPORT], NODES)).toContain("\nnetwork: one row per (token, other node) x row bytes\n");
  });

  test("one node: no word of a network", () => {
    const shape = { ...NODES, ranksPerNode: 4 };
    expect(cells(REPORT, shape)).toMatchObject({ wire: "96 B", "load max/mean": "4" });
    expect(describeLayers([REPORT], shape)).not.toContain("network");
  });

  test("several runs: a line says what the times are, with the first run's beside", () => {
    const shape = { ...NODES, ranksPerNode: 4 };
    const repeats = { numRepeats: 5, firstTimes: { dispatchMs: 60.123, expertMs: 3, combineMs: 4.5 } };
    expect(describeLayers([{ ...REPORT, ...repeats }], shape).split("\n")).toContain(
      "ms: medians of 5 runs after a first one (in layer 7 dispatch 60.12 ms, combine 4.50 ms); a trace is of the last run",
    );
    expect(describeLayers([REPORT], shape)).not.toContain("medians");
  });

  test("several processes: how fast the network was, and what that means", () => {
    const slowest = { srcRank: 0, rank: 2, orBack: true, bytes: 64, us: 2, GBps: 0.0321 };
    const rate = {
      bytes: 96,
      messageBytes: 16,
      nics: [{ rank: 0, GBps: 1.2345 }],
      nicGBps: 1.2345,
      pairGBps: 4,
      slowest,
    };
    const combine = { ...rate, slowest: { ...slowest, orBack: false } };
    const lines = describeLayers([{ ...REPORT, network: { dispatch: rate, combine } }], NODES).split("\n");
    expect(lines).toContain(
      "network in layer 7: dispatch 96 B in messages of 16 B: 1.23 GB/s per NIC, 4 per pair, slowest pair 2 <-> 0 0.0321; " +
        "combine 96 B in messages of 16 B: 1.23 GB/s per NIC, 4 per pair, slowest pair 2 <- 0 0.0321",
    );
    expect(lines.filter((line) => line.startsWith("network GB/s: "))).toHaveLength(1);
  });
});
