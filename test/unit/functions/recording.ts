/** The oracle, with what the functions ask of it written down. */
import type { BufferMemory, CombineRequest, DispatchRequest, Group } from "../../../core/backend.ts";
import { createOracleBackend } from "../../../core/oracle/group.ts";
import { type Tensor, tensor } from "../../../core/tensor.ts";

export interface Recording {
  readonly group: Group;
  /** Sizes asked for, and how many of them are still held. */
  readonly allocated: number[];
  held(): number;
  readonly numSms: number[];
  readonly dispatches: DispatchRequest[];
  readonly combines: CombineRequest[];
}

export async function recordingGroup(numRanks: number, ranksPerNode = numRanks): Promise<Recording> {
  const group = await createOracleBackend().createGroup({ numRanks, ranksPerNode });
  const { dispatch, combine } = group;
  const allocated: number[] = [];
  const numSms: number[] = [];
  const dispatches: DispatchRequest[] = [];
  const combines: CombineRequest[] = [];
  let held = 0;
  group.allocateBuffer = async (bytes): Promise<BufferMemory> => {
    allocated.push(bytes);
    held++;
    // As slow as a device: concurrent callers meet here.
    await new Promise((resolve) => setTimeout(resolve, 1));
    let freed = false;
    return {
      bytes,
      free: () => {
        if (freed) throw new Error("freed twice");
        freed = true;
        held--;
      },
    };
  };
  group.setNumSms = (value) => void numSms.push(value);
  group.dispatch = (request) => {
    dispatches.push(request);
    return dispatch.call(group, request);
  };
  group.combine = (request) => {
    combines.push(request);
    return combine.call(group, request);
  };
  return { group, allocated, held: () => held, numSms, dispatches, combines };
}

/** Two ranks, two experts each: small routing that reaches every rank. */
export const IDS = [
  tensor("i64", [2, 2], BigInt64Array.of(0n, 3n, 1n, -1n)),
  tensor("i64", [1, 2], BigInt64Array.of(2n, 0n)),
];
export const WEIGHTS = [
  tensor("fp32", [2, 2], Float32Array.of(0.5, 0.25, 1, 9)),
  tensor("fp32", [1, 2], Float32Array.of(2, 4)),
];
export const MAPS = [
  tensor("bool", [2, 4], Uint8Array.of(1, 0, 0, 1, 0, 1, 0, 0)),
  tensor("bool", [1, 4], Uint8Array.of(1, 0, 1, 0)),
];
export const PROBS = [
  tensor("fp32", [2, 4], Float32Array.of(0.5, 0, 0, 0.25, 0, 1, 0, 0)),
  tensor("fp32", [1, 4], Float32Array.of(4, 0, 2, 0)),
];

/** [rows, hidden] fp32 rows holding first, first + 1, ... */
export function numbered(rows: number, hidden: number, first = 1): Tensor<"fp32"> {
  return tensor(
    "fp32",
    [rows, hidden],
    Float32Array.from({ length: rows * hidden }, (_, i) => first + i),
  );
}
export const X = [numbered(2, 1), numbered(1, 1, 10)];
