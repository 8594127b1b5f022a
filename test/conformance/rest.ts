import type { Group } from "../../core/backend.ts";
import type { Tensor } from "../../core/tensor.ts";
import { tensor } from "../../core/tensor.ts";
import { codes, type Data, random, rows, sumDtype } from "./data.ts";
import { expectCodes, expectEqual } from "./expect.ts";
import { grid } from "./fused.ts";
import { decode, encode, fusedRows, product, term } from "./reference.ts";

/** Counts of getDispatchLayout (design 2.2). */
export async function checkLayout(group: Group, data: Data): Promise<void> {
  const { shape } = data;
  const layouts = await group.layout({ topkIdx: data.topkIdx, topkWeights: null }, shape.numExperts);
  const ranksPerNode = shape.ranksPerNode ?? shape.numRanks;
  const received = fusedRows(data.case);
  layouts.forEach((layout, rank) => {
    const perRank = received.map((sources) => sources.filter((source) => source.rank === rank).length);
    expectEqual(`layout, rank ${rank}, numTokensPerRank`, [...layout.numTokensPerRank], perRank);
    const slots = data.case.topkIdx[rank].flat();
    const perExpert = Array.from({ length: shape.numExperts }, (_, e) => slots.filter((expert) => expert === e).length);
    expectEqual(`layout, rank ${rank}, numTokensPerExpert`, [...layout.numTokensPerExpert], perExpert);
    const inRank = data.case.topkIdx[rank].flatMap((_, token) =>
      received.map((sources) => Number(sources.some((source) => source.rank === rank && source.token === token))),
    );
    expectEqual(`layout, rank ${rank}, isTokenInRank`, [...layout.isTokenInRank()], inRank);
    const nodes = shape.numRanks / ranksPerNode;
    const perNode = Array.from({ length: nodes }, (_, node) => {
      const mine = received.slice(node * ranksPerNode, (node + 1) * ranksPerNode).flat();
      return new Set(mine.filter((source) => source.rank === rank).map((source) => source.token)).size;
    });
    const want = nodes === 1 ? null : perNode;
    expectEqual(
      `layout, rank ${rank}, numTokensPerNode`,
      layout.numTokensPerNode && [...layout.numTokensPerNode],
      want,
    );
  });
}

/** Cast to fp8 and back, and the stand-in expert (design section 6, 2.11). */
export async function checkCasts(group: Group, data: Data): Promise<void> {
  const { shape } = data;
  const next = random(37);
  const dtype = sumDtype(shape);
  const x = shape.numTokens.map((tokens) => rows(dtype, tokens, shape.hidden, shape.values, next));
  const cast = await group.castToFp8(x);
  const blocks = Math.ceil(shape.hidden / 128);
  for (let rank = 0; rank < shape.numRanks; rank++) {
    const tokens = shape.numTokens[rank];
    const xCodes = codes(x[rank]);
    const value = (token: number, column: number) => decode(dtype, xCodes[token * shape.hidden + column]);
    const amax = grid(tokens, blocks, (token, block) => {
      const width = Math.min(128, shape.hidden - block * 128);
      const magnitudes = Array.from({ length: width }, (_, i) => Math.abs(value(token, block * 128 + i)));
      return magnitudes.some(Number.isNaN) ? Number.NaN : Math.max(Math.fround(1e-4), ...magnitudes);
    });
    const wantX = grid(tokens, shape.hidden, (token, column) => {
      const factor = Math.fround(448 / amax[token * blocks + Math.floor(column / 128)]);
      return encode("fp8e4m3", product(value(token, column), factor));
    });
    await expectCodes(`cast-to-fp8, rank ${rank}, x`, cast.x[rank], [tokens, shape.hidden], wantX);
    const wantScales = amax.map((most) => encode("fp32", Math.fround(most / 448)));
    await expectCodes(`cast-to-fp8, rank ${rank}, scales`, cast.scales[rank], [tokens, blocks], wantScales);
  }
  await checkCastBack(group, data, next);
  await checkScaleRows(group, x, next, shape.values);
}

async function checkCastBack(group: Group, data: Data, next: () => number): Promise<void> {
  const { numTokens, hidden, values } = data.shape;
  const blocks = Math.ceil(hidden / 128);
  const x = numTokens.map((tokens) => rows("fp8e4m3", tokens, hidden, "bits", next));
  const scales = numTokens.map((tokens) => rows("fp32", tokens, blocks, values, next));
  const back = await group.castBack(x, scales);
  for (let rank = 0; rank < numTokens.length; rank++) {
    const want = grid(numTokens[rank], hidden, (token, column) => {
      const scale = decode("fp32", codes(scales[rank])[token * blocks + Math.floor(column / 128)]);
      return encode("bf16", product(decode("fp8e4m3", codes(x[rank])[token * hidden + column]), scale));
    });
    await expectCodes(`cast-back, rank ${rank}`, back[rank], [numTokens[rank], hidden], want);
  }
}

async function checkScaleRows(
  group: Group,
  x: Tensor[],
  next: () => number,
  values: Data["shape"]["values"],
): Promise<void> {
  const factors = x.map((value) => {
    const drawn = rows("fp32", value.shape[0], 1, values, next);
    return tensor("fp32", [value.shape[0]], drawn.data as Float32Array);
  });
  const scaled = await group.scaleRows(x, factors);
  for (let rank = 0; rank < x.length; rank++) {
    const [tokens, hidden] = x[rank].shape;
    const format = x[rank].dtype as "bf16" | "fp16" | "fp32";
    const want = grid(tokens, hidden, (token, column) => {
      const factor = term(decode("fp32", codes(factors[rank])[token]));
      return encode(format, product(decode(format, codes(x[rank])[token * hidden + column]), factor));
    });
    await expectCodes(`scaleRows, rank ${rank}`, scaled[rank], [tokens, hidden], want);
  }
}
