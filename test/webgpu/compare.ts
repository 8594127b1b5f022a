/** The comparison of two backends' answers to the same random requests. */
import { expect } from "vitest";
import type { Backend, Group } from "../../core/backend.ts";
import type { DType } from "../../core/dtype/dtype.ts";
import type { HandleData, HandleKind } from "../../core/handle/handle.ts";
import { type AnyTensor, bytesOf, type Tensor } from "../../core/tensor.ts";
import { randomNumbers, randomRouting, randomRows, randomSettings, randomShape } from "./samples.ts";

export function expectSameTensors(
  name: string,
  received: readonly AnyTensor[] | null,
  expected: readonly AnyTensor[] | null,
): void {
  expect(received?.length, name).toBe(expected?.length);
  received?.forEach((value, i) => expectSameTensor(`${name} of rank ${i}`, value as Tensor, expected?.[i] as Tensor));
}

export function expectSameTensor(name: string, received: Tensor, expected: Tensor): void {
  expect([received.dtype, ...received.shape], name).toEqual([expected.dtype, ...expected.shape]);
  const a = bytesOf(received);
  const b = bytesOf(expected);
  if (Buffer.compare(a, b) === 0) return;
  const width = a.length / received.data.length;
  const at = Math.floor(a.findIndex((byte, i) => byte !== b[i]) / width);
  const hex = (bytes: Uint8Array) => Buffer.from(bytes.slice(at * width, (at + 1) * width).reverse()).toString("hex");
  const columns = received.shape[1] ?? 1;
  const place = `row ${Math.floor(at / columns)}, column ${at % columns}`;
  expect.fail(`${name} (${received.dtype}) at ${place}: received 0x${hex(a)}, expected 0x${hex(b)}`);
}

export function expectSameHandle(received: HandleData, expected: HandleData): void {
  expect(received.meta).toEqual(expected.meta);
  received.ranks.forEach((rank, i) => expect(rank, `handle of rank ${i}`).toEqual(expected.ranks[i]));
}

/** Dispatch, cached dispatch and combine of one random request on both backends; every output must be the same. */
export async function compareBackends(
  seed: number,
  backend: Backend,
  oracle: Backend,
  kind: HandleKind,
  groups?: { group: Group; reference: Group },
): Promise<void> {
  const random = randomNumbers(seed);
  const shape = randomShape(random);
  const group = groups?.group ?? (await backend.createGroup(shape));
  const reference = groups?.reference ?? (await oracle.createGroup(shape));
  const routing = randomRouting(random, shape, random(2) ? "i32" : "i64");
  const tokens = routing.topkIdx.map((value) => value.shape[0]);
  const dtype = (["bf16", "fp16", "fp32", "fp8e4m3", "u8"] as const)[random(5)];
  const x = tokens.map((count) => randomRows(random, dtype, [count, shape.hidden]));
  const scaleColumns = Math.ceil(shape.hidden / 128);
  const scales = random(2) ? tokens.map((count) => randomRows(random, "fp32", [count, scaleColumns])) : null;
  const settings = randomSettings(random, shape);
  const request = { kind, x, scales, routing, settings };
  const received = await group.dispatch(request);
  const expected = await reference.dispatch(request);
  const data = await expected.handle.data();
  expectSameHandle(await received.handle.data(), data);
  for (const name of ["x", "scales", "topkIdx", "topkWeights", "probs"] as const) {
    expectSameTensors(name, received[name], expected[name]);
  }
  const cached = await group.dispatch({ kind, x, scales, handle: expected.handle });
  expectSameTensors("cached x", cached.x, expected.x);

  const sumDtype = (["bf16", "fp16", "fp32"] as const)[random(3)];
  const rows = (columns: number, type: DType) =>
    data.ranks.map((rank) => randomRows(random, type, [rank.numRows, columns]));
  const numBiases = kind === "fused" ? random(3) : 0;
  const combine = {
    handle: expected.handle,
    x: rows(shape.hidden, sumDtype),
    topkWeights: kind === "fused" ? rows(shape.topk, "fp32") : null,
    probs: kind === "fused" ? null : data.ranks.map((rank) => randomRows(random, "fp32", [rank.numRows])),
    bias: Array.from({ length: numBiases }, () =>
      tokens.map((count) => randomRows(random, sumDtype, [count, shape.hidden])),
    ),
  };
  const sums = await group.combine(combine);
  const expectedSums = await reference.combine(combine);
  for (const name of ["x", "topkWeights", "probs"] as const) {
    expectSameTensors(`combined ${name}`, sums[name], expectedSums[name]);
  }
}
