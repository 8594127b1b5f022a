import type { Parameters } from "./parameters.ts";

/** Written by `fused-a2a simulate --fit published --output core/topology/fitted.ts`: do not edit. */
export const FITTED: {
  readonly date: string;
  readonly table: string;
  readonly rows: readonly number[];
  readonly numFigures: number;
  readonly parameters: Parameters;
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
    median: 0.04128779440971142,
    mean: 0.04810643831725346,
    worst: 0.14084088446693555,
  },
  held: {
    count: 111,
    median: 0.0488028623190766,
    mean: 0.05497841866971212,
    worst: 0.29055696547201026,
  },
  leaveRowOut: {
    count: 222,
    median: 0.04563102701779326,
    mean: 0.05188719029315438,
    worst: 0.29187437930095106,
  },
  leaveSystemOut: {
    count: 222,
    median: 0.044180252693124644,
    mean: 0.05397908900103517,
    worst: 0.29187437930095106,
  },
  parameters: {
    nvlinkEfficiencyHopper: 0.65813,
    nvlinkEfficiencyBlackwell: 0.693811,
    nicEfficiency: 0.889749,
    hbmEfficiency: 0.9,
    loadStoreRowNs: 227.292,
    loadStoreBytePs: 25.8612,
    bulkRowNs: 111.89,
    bulkBytePs: 8.48154,
    ringReduceFactor: 1.1824,
    smOverlapLoss: 0.0829422,
    chunkedHopLoss: 0.310794,
    kernelStartUs: 6.5,
    lowLatencyStartUs: 26.9836,
    callUs: 71.0578,
    networkCallUs: 108.102,
    scanNs: 86.6128,
    blackwellSmSpeed: 1.18314,
  },
  relativeError: {
    nvlinkEfficiencyHopper: 0.029,
    nvlinkEfficiencyBlackwell: 0.035,
    nicEfficiency: 0.024,
    loadStoreRowNs: 0.25,
    loadStoreBytePs: 0.22,
    bulkRowNs: 0.25,
    bulkBytePs: 0.31,
    ringReduceFactor: 0.08,
    smOverlapLoss: 0.44,
    chunkedHopLoss: 0.23,
    lowLatencyStartUs: 0.17,
    callUs: 0.22,
    networkCallUs: 0.51,
    scanNs: 0.054,
    blackwellSmSpeed: 0.099,
  },
  units: {
    nvlinkEfficiencyHopper: "fraction",
    nvlinkEfficiencyBlackwell: "fraction",
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
