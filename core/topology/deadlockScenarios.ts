import type { Call, DeadlockOptions, RankProgram, StuckKind } from "./deadlock.ts";

export interface Scenario {
  readonly name: string;
  readonly title: string;
  readonly expected: StuckKind;
  readonly make: (numRanks: number, odd: number) => DeadlockOptions;
}

const NUM_SMS = 132;
const dispatch: Call = { op: "dispatch", communicator: "ep", numSms: 24, contract: { hidden: 7168, dtype: "bf16" } };
const combine: Call = { ...dispatch, op: "combine" };
const gather: Call = { op: "all-gather", communicator: "ep" };
const reduce: Call = { op: "all-reduce", communicator: "dp" };

function programs(numRanks: number, make: (rank: number) => Omit<RankProgram, "rank" | "numSms">): DeadlockOptions {
  return { programs: Array.from({ length: numRanks }, (_, rank) => ({ rank, numSms: NUM_SMS, ...make(rank) })) };
}

/** The hangs that users report (docs/cost-model.md, section 9), each with the rank that causes it. */
export const SCENARIOS: readonly Scenario[] = [
  {
    name: "healthy",
    title: "dispatch and combine on every rank, in order",
    expected: "none",
    make: (numRanks) => programs(numRanks, () => ({ streams: [[dispatch, combine]] })),
  },
  {
    name: "out-of-order",
    title: "one rank issues the all-reduce before the dispatch, the others after it",
    expected: "order-mismatch",
    make: (numRanks, odd) =>
      programs(numRanks, (rank) => ({ streams: [rank === odd ? [reduce, dispatch] : [dispatch, reduce]] })),
  },
  {
    name: "swapped",
    title: "one rank issues combine where the others issue dispatch, on one communicator",
    expected: "order-mismatch",
    make: (numRanks, odd) =>
      programs(numRanks, (rank) => ({ streams: [rank === odd ? [combine, dispatch] : [dispatch, combine]] })),
  },
  {
    name: "late-rank",
    title: "one rank reaches dispatch 300 ms after the others",
    expected: "late-rank",
    make: (numRanks, odd) =>
      programs(numRanks, (rank) => ({ streams: [[dispatch, combine]], readyUs: rank === odd ? 300e3 : 0 })),
  },
  {
    name: "unequal-lengths",
    title: "one rank has another sequence length and enters an all-gather that the others skip",
    expected: "missing-call",
    make: (numRanks, odd) =>
      programs(numRanks, (rank) => ({ streams: [rank === odd ? [gather, combine] : [dispatch, combine]] })),
  },
  {
    name: "unequal-maximum",
    title: "one rank passes another maximum number of tokens",
    expected: "contract-mismatch",
    make: (numRanks, odd) =>
      programs(numRanks, (rank) => ({
        streams: [[{ ...dispatch, contract: { ...dispatch.contract, maxTokens: rank === odd ? 256 : 128 } }]],
      })),
  },
  {
    name: "sm-starvation",
    title: "on one rank another communicator's kernel takes the SMs first, and waits for ranks that are in dispatch",
    expected: "sm-starvation",
    make: (numRanks, odd) => {
      const balance: Call = { op: "EPLB weight exchange", communicator: "eplb", numSms: 120 };
      return programs(numRanks, (rank) => ({
        streams: rank === odd ? [[balance], [dispatch]] : [[dispatch], [balance]],
      }));
    },
  },
];
