import { InvalidFile } from "../../core/errors.ts";
import type { ByteSource } from "../../core/io/bytes.ts";
import { openSafetensors } from "../../core/io/safetensors/index.ts";
import { TRACE_FORMAT } from "../../core/trace/format.ts";
import { openTrace } from "../../core/trace/read.ts";
import type { Dataset, OpenOptions } from "./dataset.ts";
import { handleDataset } from "./handle-file.ts";
import { remember } from "./memory.ts";
import { routingDataset } from "./routing-file.ts";

/**
 * Opens a trace, handle or routing file. Throws InvalidFile naming offset, field and rule for a damaged file or one that
 * is none of them, and the signal's reason when it is cancelled. The source is closed on failure.
 */
export async function openDataset(source: ByteSource, options: OpenOptions): Promise<Dataset> {
  try {
    options.signal?.throwIfAborted();
    if (source.size === 0) {
      const problem = { name: "file", expected: "a trace, handle or routing file", received: "0 bytes" };
      throw new InvalidFile({ ...problem, where: { file: source.name, offset: 0 }, remedy: "choose another file" });
    }
    // Safetensors headers begin with their length: below 2^40 these bytes are zero, in text they never are.
    const head = await source.read(0, Math.min(8, source.size));
    if (head.length === 8 && head.subarray(5).every((byte) => byte === 0)) {
      const file = await openSafetensors(source);
      if (String(file.metadata.format ?? "").startsWith(TRACE_FORMAT)) return await traceDataset(source);
      if ([...file.tensors.keys()].some((name) => /^rank\d+\.handle\.meta$/.test(name)))
        return await handleDataset(file);
    }
    return await routingDataset(source, options);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function traceDataset(source: ByteSource): Promise<Dataset> {
  const trace = await openTrace(source);
  const notes = [`Written by ${trace.header.producer}.`];
  if (!trace.hasWeights) notes.push("The trace holds no weights.");
  return {
    name: trace.name,
    kind: "trace",
    header: trace.header,
    hasWeights: trace.hasWeights,
    hasWaits: trace.hasWaits,
    notes,
    summary: remember((step: number) => trace.summary(step), 4),
    phases: (step, layer) => trace.phases(step, layer),
    chunk: remember((step: number, layer: number) => trace.chunk(step, layer), 4),
    close: () => trace.close(),
  };
}
