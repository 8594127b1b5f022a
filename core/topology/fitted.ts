import type { ParameterName, Parameters } from "./parameters.ts";

/** Written by `fused-a2a simulate --fit published --output core/topology/fitted.ts`: do not edit. */
export const FITTED: {
  readonly date: string;
  readonly table: string;
  readonly rows: readonly number[];
  readonly numFigures: number;
  readonly parameters: Parameters;
  readonly relativeError: Readonly<Partial<Record<ParameterName, number>>>;
  readonly [key: string]: unknown;
} = {
  date: "2026-11-23",
  table: "published",
  rows: [
    1, 3, 5, 7, 9, 11, 15, 16, 17, 18, 19, 24, 25, 26, 27, 32, 33, 34, 35, 40, 41, 42, 43, 48, 49, 50, 51, 56, 57, 58,
    59, 64, 65, 66, 67, 72, 73, 74, 75, 80, 81, 82, 83, 88, 89, 90, 91, 96, 97, 100, 101, 104, 105, 108, 109, 112, 113,
    116, 117, 120, 121, 124, 125, 130, 131, 133, 142, 144, 146, 147, 150,
  ],
  numFigures: 111,
  fitted: {
    count: 111,
    median: 0.045838791393185474,
    mean: 0.04746448971716418,
    worst: 0.14189685669295926,
  },
  held: {
    count: 111,
    median: 0.04927681474018075,
    mean: 0.05340545501982713,
    worst: 0.3164422921635798,
  },
  leaveRowOut: {
    count: 222,
    median: 0.044577864809266954,
    mean: 0.049921011154428145,
    worst: 0.31328512155145505,
  },
  leaveSystemOut: {
    count: 222,
    median: 0.04554886731608915,
    mean: 0.053811192883119356,
    worst: 0.31421808707585464,
  },
  parameters: {
    nvlinkEfficiencyHopper: 0.657511,
    nvlinkEfficiencyBlackwell: 0.713287,
    nvlinkRankLoss: 0.0290044,
    nicEfficiency: 0.885103,
    hbmEfficiency: 0.9,
    loadStoreRowNs: 163.547,
    loadStoreBytePs: 30.4161,
    bulkRowNs: 100.314,
    bulkBytePs: 9.7102,
    ringReduceFactor: 1.12579,
    smOverlapLoss: 0.076852,
    chunkedHopLoss: 0.276075,
    kernelStartUs: 6.5,
    lowLatencyStartUs: 26.1998,
    callUs: 77.077,
    networkCallUs: 121.386,
    scanNs: 86.2114,
    blackwellSmSpeed: 1.13682,
  },
  relativeError: {
    nvlinkEfficiencyHopper: 0.031,
    nvlinkEfficiencyBlackwell: 0.043,
    nvlinkRankLoss: 0.6,
    nicEfficiency: 0.026,
    loadStoreRowNs: 0.33,
    loadStoreBytePs: 0.21,
    bulkRowNs: 0.32,
    bulkBytePs: 0.31,
    ringReduceFactor: 0.079,
    smOverlapLoss: 0.54,
    chunkedHopLoss: 0.27,
    lowLatencyStartUs: 0.18,
    callUs: 0.21,
    networkCallUs: 0.58,
    scanNs: 0.055,
    blackwellSmSpeed: 0.11,
  },
  units: {
    nvlinkEfficiencyHopper: "fraction",
    nvlinkEfficiencyBlackwell: "fraction",
    nvlinkRankLoss: "fraction",
    nicEfficiency: "fraction",
    hbmEfficiency: "fraction",
    loadStoreRowNs: "ns",
    loadStoreBytePs: "ps/B",
    bulkRowNs: "ns",
    bulkBytePs: "ps/B",
    ringReduceFactor: "ratio",
    smOverlapLoss: "fraction",
    chunkedHopLoss: "fraction",
    kernelStartUs: "us",
    lowLatencyStartUs: "us",
    callUs: "us",
    networkCallUs: "us",
    scanNs: "ns",
    blackwellSmSpeed: "ratio",
  },
};
