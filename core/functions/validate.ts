/** What every backend checks before it runs anything, so that all report the same errors (core/backend.ts). */
import type {
  CombineRequest,
  DispatchRequest,
  DispatchSettings,
  Group,
  GroupOptions,
  RoutingInput,
} from "../backend.ts";
import { type DType, ROW_DTYPES, SCALE_BLOCK, SUM_DTYPES } from "../dtype/dtype.ts";
import { InvalidArgument } from "../errors.ts";
import type { HandleData, HandleKind } from "../handle/handle.ts";
import { maxTopk, toIndexForm } from "../layout/multihot.ts";
import { MAX_ROWS } from "../layout/positions.ts";
import { checkShape, type RankRouting, rankRouting } from "../layout/routing.ts";
import { type AnyTensor, expectTensor, type Tensor, toHost } from "../tensor.ts";

export type CheckedDispatch = {
  /** [tokens, hidden] per local rank, one dtype and hidden. */
  readonly x: readonly Tensor[];
  readonly scales: readonly Tensor<"fp32">[] | null;
  /** Dtype of the recv ids: the routing's own. */
  readonly idDtype: "i32" | "i64";
} & (
  | {
      /** Checked routing of a new dispatch, in index form. */
      readonly routings: readonly RankRouting[];
      readonly settings: DispatchSettings;
      readonly data: null;
    }
  /** A cached dispatch: the handle's arrays. */
  | { readonly routings: null; readonly settings: null; readonly data: HandleData }
);

/** Brings a dispatch request to the host and checks all of it. Throws InvalidArgument. */
export async function checkDispatch(group: Group, request: DispatchRequest): Promise<CheckedDispatch> {
  const x = await hostRows(group, "x", request.x, ROW_DTYPES);
  const scales = request.scales === null ? null : await hostRows(group, "scales", request.scales, ["fp32"]);
  scales?.forEach((value, i) => expectRows("scales", value, x[i].shape[0], group.localRanks[i]));
  const { routing, settings, handle } = request;
  if ((handle === undefined) === (routing === undefined)) {
    throw new InvalidArgument({
      name: "routing",
      expected: "either routing or a cached handle",
      received: handle === undefined ? "neither" : "both",
      remedy: "pass topkIdx for a new dispatch, a handle to repeat one",
    });
  }
  const shared = { x, scales: scales as readonly Tensor<"fp32">[] | null };
  if (handle !== undefined) {
    const data = await checkHandle(group, handle.meta.kind, request.kind, () => handle.data());
    data.ranks.forEach((rank, i) => expectRows("x", x[i], rank.numTokens, rank.rank));
    return { ...shared, routings: null, idDtype: "i64", settings: null, data };
  }
  const checked = checkSettings(settings);
  const { routings, idDtype } = await checkRouting(group, routing as RoutingInput, checked.numExperts);
  routings.forEach((rank, i) => {
    if (rank.numTokens === x[i].shape[0]) return;
    throw new InvalidArgument({
      name: "topkIdx",
      expected: `${x[i].shape[0]} rows as x`,
      received: `${rank.numTokens}`,
      where: { rank: rank.rank },
      remedy: "pass one row of routing per token",
    });
  });
  return { ...shared, routings, idDtype, settings: checked, data: null };
}

export interface CheckedCombine {
  readonly data: HandleData;
  /** [rows, hidden] per local rank. */
  readonly x: readonly Tensor[];
  readonly topkWeights: readonly Tensor<"fp32">[] | null;
  readonly probs: readonly Tensor<"fp32">[] | null;
  readonly bias: readonly (readonly Tensor[])[];
}

/** Brings a combine request to the host and checks all of it. Throws InvalidArgument. */
export async function checkCombine(group: Group, request: CombineRequest): Promise<CheckedCombine> {
  const { handle } = request;
  const data = await checkHandle(group, handle.meta.kind, handle.meta.kind, () => handle.data());
  const x = await hostRows(group, "x", request.x, SUM_DTYPES);
  data.ranks.forEach((rank, i) => expectRows("x", x[i], rank.numRows, rank.rank));
  const fused = handle.meta.kind === "fused";
  refuse(
    !fused && request.topkWeights !== null,
    "topkWeights",
    "a fused handle",
    "a hybrid-ep one; pass probs instead",
  );
  refuse(fused && request.probs !== null, "probs", "a hybrid-ep handle", "a fused one; pass topkWeights instead");
  refuse(!fused && request.bias.length > 0, "bias", "a fused handle", "a hybrid-ep one, which has no biases");
  refuse(request.bias.length > 2, "bias", "at most 2 biases", `${request.bias.length}`);
  const topkWeights =
    request.topkWeights === null ? null : await hostRows(group, "topkWeights", request.topkWeights, ["fp32"]);
  data.ranks.forEach((rank, i) => topkWeights && expectRows("topkWeights", topkWeights[i], rank.numRows, rank.rank));
  const probs = request.probs === null ? null : await Promise.all(request.probs.map((value) => toHost(value)));
  if (probs !== null) {
    expectCount("probs", probs.length, group);
    data.ranks.forEach((rank, i) => expectTensor("probs", probs[i], ["fp32"], [rank.numRows], { rank: rank.rank }));
  }
  const bias = await Promise.all(request.bias.map((values) => hostRows(group, "bias", values, [x[0].dtype])));
  for (const values of bias) {
    data.ranks.forEach((rank, i) =>
      expectTensor("bias", values[i], [x[i].dtype], [rank.numTokens, x[i].shape[1]], { rank: rank.rank }),
    );
  }
  return {
    data,
    x,
    topkWeights: topkWeights as readonly Tensor<"fp32">[] | null,
    probs: probs as readonly Tensor<"fp32">[] | null,
    bias,
  };
}

/** Checks routing in either form and brings it to index form. Throws InvalidArgument naming rank, token, slot, value. */
export async function checkRouting(
  group: Pick<Group, "numRanks" | "ranksPerNode" | "localRanks">,
  routing: RoutingInput,
  numExperts: number,
): Promise<{ routings: RankRouting[]; idDtype: "i32" | "i64" }> {
  checkShape({ numRanks: group.numRanks, ranksPerNode: group.ranksPerNode, numExperts });
  if ("topkIdx" in routing) {
    const ids = await Promise.all(routing.topkIdx.map((value) => toHost(value)));
    const weights = routing.topkWeights && (await Promise.all(routing.topkWeights.map((value) => toHost(value))));
    expectCount("topkIdx", ids.length, group);
    if (weights !== null) expectCount("topkWeights", weights.length, group);
    const routings = ids.map((value, i) => rankRouting(group.localRanks[i], value, weights?.[i] ?? null, numExperts));
    routings.forEach((rank) => {
      refuse(rank.topk !== routings[0].topk, "topk", `${routings[0].topk} on every rank`, `${rank.topk}`, rank.rank);
    });
    return { routings, idDtype: ids.some((value) => value.dtype === "i64") ? "i64" : "i32" };
  }
  const maps = await Promise.all(routing.routingMap.map((value) => toHost(value)));
  const probs = routing.probs && (await Promise.all(routing.probs.map((value) => toHost(value))));
  expectCount("routingMap", maps.length, group);
  if (probs !== null) expectCount("probs", probs.length, group);
  maps.forEach((map, i) =>
    expectTensor("routingMap", map, ["bool", "u8"], [null, numExperts], { rank: group.localRanks[i] }),
  );
  const topk = maps.reduce((most, map) => Math.max(most, maxTopk(map)), 1);
  const routings = maps.map((map, i) => {
    const form = toIndexForm(group.localRanks[i], map, probs?.[i] ?? null, topk);
    return rankRouting(group.localRanks[i], form.topkIdx, form.topkWeights, numExperts);
  });
  return { routings, idDtype: "i64" };
}

/** Preallocated outputs are what the operation would have made (RowOutputs.out). Throws InvalidArgument. */
export function checkOut(
  group: Pick<Group, "localRanks">,
  out: readonly Tensor[] | undefined,
  dtype: DType,
  numRows: readonly number[],
  width: number,
): void {
  if (out === undefined) return;
  expectCount("out", out.length, group);
  out.forEach((value, i) => expectTensor("out", value, [dtype], [numRows[i], width], { rank: group.localRanks[i] }));
}

async function hostRows(
  group: Pick<Group, "localRanks">,
  name: string,
  values: readonly AnyTensor[],
  dtypes: readonly DType[],
): Promise<Tensor[]> {
  expectCount(name, values.length, group);
  const [first] = values;
  values.forEach((value, i) => {
    const where = { rank: group.localRanks[i] };
    expectTensor(name, value, dtypes, [null, null], where);
    expectTensor(name, value, [first.dtype], [null, first.shape[1]], where);
    refuse(value.shape[1] < 1, name, "at least 1 column", "0", where.rank);
  });
  return Promise.all(values.map((value) => toHost(value)));
}

function expectRows(name: string, value: Tensor, rows: number, rank: number): void {
  if (value.shape[0] === rows) return;
  throw new InvalidArgument({
    name,
    expected: `${rows} rows`,
    received: `${value.shape[0]}`,
    where: { rank },
    remedy: "pass one row per token (dispatch) or per row of the handle (combine)",
  });
}

/** Shape of the first of one matrix of rows per local rank. Throws InvalidArgument when there is none. */
export function expectMatrices(group: Pick<Group, "localRanks">, x: readonly AnyTensor[]): readonly [number, number] {
  expectCount("x", x.length, group);
  expectTensor("x", x[0], ROW_DTYPES, [null, null], { rank: group.localRanks[0] });
  refuse(x[0].shape[1] < 1, "x", "at least 1 column", "0", group.localRanks[0]);
  return [x[0].shape[0], x[0].shape[1]];
}

function expectCount(name: string, count: number, group: Pick<Group, "localRanks">): void {
  refuse(
    count !== group.localRanks.length,
    name,
    `one tensor per local rank (${group.localRanks.length})`,
    `${count} tensors`,
  );
}

async function checkHandle(
  group: Group,
  kind: HandleKind,
  wanted: HandleKind,
  load: () => Promise<HandleData>,
): Promise<HandleData> {
  refuse(kind !== wanted, "handle", `a ${wanted} handle`, `a ${kind} one`);
  const data = await load();
  const { numRanks, ranksPerNode, localRanks } = data.meta;
  const mine = `${group.numRanks} ranks, ${group.ranksPerNode} per node, local ${group.localRanks.join(",")}`;
  const its = `${numRanks} ranks, ${ranksPerNode} per node, local ${localRanks.join(",")}`;
  refuse(mine !== its, "handle", `one of this group (${mine})`, its);
  return data;
}

function checkSettings(given: DispatchSettings | undefined): DispatchSettings {
  if (given === undefined) {
    throw new InvalidArgument({
      name: "settings",
      expected: "settings beside the routing",
      received: "none",
      remedy: "pass numExperts, expertAlignment, numWorstTokens, padMultiple and numPermutedTokens",
    });
  }
  const whole = (name: keyof DispatchSettings, value: number, least: number) =>
    refuse(
      !Number.isSafeInteger(value) || value < least || value > MAX_ROWS,
      name,
      `a whole number of ${least}..${MAX_ROWS}`,
      `${value}`,
    );
  whole("numExperts", given.numExperts, 1);
  whole("expertAlignment", given.expertAlignment, 0);
  whole("numWorstTokens", given.numWorstTokens, 0);
  whole("padMultiple", given.padMultiple, 0);
  if (given.numPermutedTokens !== null) {
    whole("numPermutedTokens", given.numPermutedTokens, 0);
    const multiple = Math.max(1, given.padMultiple);
    refuse(
      given.numPermutedTokens % multiple !== 0,
      "numPermutedTokens",
      `a multiple of padMultiple ${multiple}`,
      `${given.numPermutedTokens}`,
    );
  }
  return given;
}

function refuse(wrong: boolean, name: string, expected: string, received: string, rank?: number): void {
  if (!wrong) return;
  throw new InvalidArgument({
    name,
    expected,
    received,
    where: rank === undefined ? {} : { rank },
    remedy: "correct the argument",
  });
}

/** Group options with their defaults. `wholeGroup` names a backend whose process holds every rank. Throws InvalidArgument. */
export function checkGroupOptions(options: GroupOptions, wholeGroup?: string): Required<GroupOptions> {
  const { numRanks } = options;
  const ranksPerNode = options.ranksPerNode ?? numRanks;
  checkShape({ numRanks, ranksPerNode, numExperts: numRanks });
  const all = Array.from({ length: numRanks }, (_, rank) => rank);
  const localRanks = options.localRanks ?? all;
  const ascending = localRanks.every((rank, i) => all.includes(rank) && (i === 0 || rank > localRanks[i - 1]));
  refuse(!ascending || localRanks.length === 0, "localRanks", `ascending ranks of 0..${numRanks - 1}`, `${localRanks}`);
  const partial = wholeGroup !== undefined && localRanks.length !== numRanks;
  refuse(partial, "localRanks", `all ${numRanks} ranks on backend ${wholeGroup}`, `${localRanks}`);
  return { numRanks, ranksPerNode, localRanks };
}

/** Rows to sum and one float32 factor per row (Group.scaleRows). Throws InvalidArgument. */
export async function checkScale(
  group: Group,
  x: readonly AnyTensor[],
  factors: readonly AnyTensor[],
): Promise<{ x: readonly Tensor[]; factors: readonly Tensor<"fp32">[] }> {
  const rows = await hostRows(group, "x", x, SUM_DTYPES);
  expectCount("factors", factors.length, group);
  const values = await Promise.all(factors.map((value) => toHost(value)));
  values.forEach((value, i) => {
    expectTensor("factors", value, ["fp32"], [rows[i].shape[0]], { rank: group.localRanks[i] });
  });
  return { x: rows, factors: values as readonly Tensor<"fp32">[] };
}

/** What cast-to-fp8 and cast-back take (Group.castToFp8, castBack). Throws InvalidArgument. */
export async function checkCast(
  group: Group,
  x: readonly AnyTensor[],
  scales: readonly AnyTensor[] | null,
): Promise<{ x: readonly Tensor[]; scales: readonly Tensor<"fp32">[] | null }> {
  const rows = await hostRows(group, "x", x, scales === null ? SUM_DTYPES : ["fp8e4m3", "u8"]);
  if (scales === null) return { x: rows, scales: null };
  expectCount("scales", scales.length, group);
  const values = await Promise.all(scales.map((value) => toHost(value)));
  values.forEach((value, i) => {
    const [numRows, hidden] = rows[i].shape;
    const shape = [numRows, Math.ceil(hidden / SCALE_BLOCK)];
    expectTensor("scales", value, ["fp32"], shape, { rank: group.localRanks[i] });
  });
  return { x: rows, scales: values as readonly Tensor<"fp32">[] };
}

export function checkNumSms(numSms: number): void {
  if (Number.isSafeInteger(numSms) && numSms >= 1) return;
  throw new InvalidArgument({
    name: "numSms",
    expected: "a whole number of at least 1",
    received: `${numSms}`,
    remedy: "pass how many SMs (workers of the CPU) the operations may use",
  });
}
