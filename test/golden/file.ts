/** A golden file in memory: one list of tensors, one per rank, for each name. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openFile } from "../../cli/files.ts";
import { openSafetensors } from "../../core/io/safetensors/index.ts";
import type { AnyTensor, Tensor } from "../../core/tensor.ts";
import { codes } from "../conformance/data.ts";
import { expectCodes } from "../conformance/expect.ts";

export const GOLDEN_FOLDER = fileURLToPath(new URL("../../../shared/golden/", import.meta.url));
export const goldenPresent = existsSync(GOLDEN_FOLDER);
/** For test titles: why nothing ran. */
export const goldenReason = goldenPresent ? "" : " (skipped: ../shared/golden is absent)";

export interface GoldenFile {
  readonly numRanks: number;
  readonly numExperts: number;
  /** `rank{r}.NAME` of every rank. */
  read(name: string): Tensor[];
  /** Compares bit by bit with `rank{r}.expected.NAME`; int32 and int64 compare by value. */
  expect(name: string, got: readonly AnyTensor[] | null | undefined): Promise<void>;
}

export async function openGolden(name: string): Promise<GoldenFile> {
  const file = await openSafetensors(await openFile(`${GOLDEN_FOLDER}${name}.safetensors`));
  const tensors = new Map<string, Tensor>();
  for (const key of file.tensors.keys()) tensors.set(key, await file.read(key));
  const numRanks = Number(file.metadata.numRanks);
  const numExperts = Number(file.metadata.numExperts);
  await file.close();
  const read = (key: string) =>
    Array.from({ length: numRanks }, (_, rank) => {
      const found = tensors.get(`rank${rank}.${key}`);
      if (found === undefined) throw new Error(`${name}: no tensor rank${rank}.${key}`);
      return found;
    });
  return {
    numRanks,
    numExperts,
    read,
    async expect(key, got) {
      for (const [rank, want] of read(`expected.${key}`).entries()) {
        const ids = want.dtype === "i32" || want.dtype === "i64";
        const values = ids ? (want.data as Int32Array | BigInt64Array) : codes(want);
        await expectCodes(`${name}, ${key}, rank ${rank}`, got?.[rank], want.shape, values);
      }
    },
  };
}
