/** The golden cases on any backend: used by the tests, and by hand on machines without the test tools. */
import { join } from "node:path";
import { createFile, openFile } from "../../cli/files.ts";
import { OPERATIONS } from "../../cli/operations/index.ts";
import { ApplyInput } from "../../cli/operations/input.ts";
import type { Backend } from "../../core/backend.ts";
import { encodeHandle } from "../../core/handle/encode.ts";
import { openSafetensors, type SafetensorsFile, writeSafetensors } from "../../core/io/safetensors/index.ts";
import type { Tensor } from "../../core/tensor.ts";
import { codes } from "../conformance/data.ts";
import { expectCodes, expectEqual } from "../conformance/expect.ts";
import type { GoldenCase, Step } from "./cases.ts";

/** Runs one operation of `apply` from file to file. */
export type Apply = (op: string, input: string, output: string) => Promise<void>;

export function viaBackend(backend: Backend): Apply {
  return async (op, inputPath, output) => {
    const input = new ApplyInput(await openSafetensors(await openFile(inputPath)));
    const group = await backend.createGroup({ numRanks: input.numRanks(), ranksPerNode: await input.ranksPerNode() });
    const { tensors, handle } = await OPERATIONS[op].run(group, input);
    const entries = [...tensors].flatMap(([name, values]) =>
      values.map((tensor, rank) => ({ name: `rank${rank}.${name}`, tensor })),
    );
    if (handle) for (const [name, tensor] of encodeHandle(await handle.data())) entries.push({ name, tensor });
    await writeSafetensors(await createFile(output), input.file.metadata, entries);
    await group.close();
    await input.file.close();
  };
}

/** A golden case on several nodes. */
export interface OnNodes {
  readonly ranksPerNode: number;
  /** Its outputs must equal those of this one, which knows the same nodes, bit for bit. */
  readonly reference: Apply;
}

/**
 * Throws with the first element that differs from the peers'. `golden`: their folder, `folder`: a fresh one. The peers have
 * one node: with more of several ranks each, sums are rounded on the way (design 2.4) and only the reference can tell.
 */
export async function runCase(
  golden: GoldenCase,
  apply: Apply,
  from: string,
  folder: string,
  onNodes?: OnNodes,
): Promise<void> {
  const file = await openSafetensors(await openFile(join(from, `${golden.file}.safetensors`)));
  const numRanks = golden.prefix === undefined ? Number(file.metadata.numRanks) : 1;
  const nameOf = (rank: number, name: string) => `${golden.prefix ?? `rank${rank}`}.${name}`;
  for (const [i, step] of golden.steps.entries()) {
    const entries: { name: string; tensor: Tensor }[] = [];
    for (let rank = 0; rank < numRanks; rank++) {
      for (const [name, peer] of Object.entries(step.reads)) {
        entries.push({ name: `rank${rank}.${name}`, tensor: await file.read(nameOf(rank, peer)) });
      }
    }
    if (step.handleOf !== undefined) {
      const made = await openSafetensors(await openFile(join(folder, `${step.handleOf}.safetensors`)));
      for (const name of made.tensors.keys()) {
        if (name.includes(".handle.")) entries.push({ name, tensor: await made.read(name) });
      }
      await made.close();
    }
    const nodes: Record<string, string> = onNodes === undefined ? {} : { ranks_per_node: `${onNodes.ranksPerNode}` };
    const metadata = { num_ranks: `${numRanks}`, num_experts: file.metadata.numExperts, ...nodes, ...step.settings };
    const input = join(folder, `${i}.in.safetensors`);
    const output = join(folder, `${i}.safetensors`);
    await writeSafetensors(await createFile(input), metadata, entries);
    await apply(step.op, input, output);
    if (onNodes !== undefined) {
      const wanted = join(folder, `${i}.reference.safetensors`);
      await onNodes.reference(step.op, input, wanted);
      await expectSameFile(step.op, output, wanted);
      if (onNodes.ranksPerNode > 1 && /(combine|dispatch-backward)$/.test(step.op)) continue;
    }
    await compare(file, output, step, numRanks, (rank, peer) => nameOf(rank, `expected.${peer}`));
  }
  await file.close();
}

async function compare(
  golden: SafetensorsFile,
  output: string,
  step: Step,
  numRanks: number,
  nameOf: (rank: number, peer: string) => string,
): Promise<void> {
  const made = await openSafetensors(await openFile(output));
  for (let rank = 0; rank < numRanks; rank++) {
    for (const [name, peer] of Object.entries(step.writes)) {
      const want = await golden.read(nameOf(rank, peer));
      const got = await made.read(`rank${rank}.${name}`);
      const ids = want.dtype === "i64" || want.dtype === "i32";
      await expectCodes(`${step.op}, rank ${rank}, ${name}`, got, want.shape, ids ? want.data : codes(want));
    }
  }
  await made.close();
}

async function expectSameFile(op: string, output: string, wanted: string): Promise<void> {
  const [made, want] = await Promise.all([output, wanted].map(async (path) => openSafetensors(await openFile(path))));
  const names = [...want.tensors.keys()].sort();
  expectEqual(`${op}, names of the outputs`, [...made.tensors.keys()].sort(), names);
  for (const name of names) {
    const [got, expected] = [await made.read(name), await want.read(name)];
    const ids = expected.dtype === "i64" || expected.dtype === "i32";
    await expectCodes(`${op}, ${name}`, got, expected.shape, ids ? expected.data : codes(expected));
  }
  await Promise.all([made.close(), want.close()]);
}
