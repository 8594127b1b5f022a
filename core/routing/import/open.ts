import { checkBundleVersion, isBundle } from "../../bundle/read.ts";
import { InvalidFile } from "../../errors.ts";
import type { ByteSource } from "../../io/bytes.ts";
import { isNpy } from "../../io/npy.ts";
import { openSafetensors, type SafetensorsFile } from "../../io/safetensors/index.ts";
import { decodeText } from "../../io/text.ts";
import { expertLoads } from "./formats/expertLoads.ts";
import type { TensorFormat, TextFormat } from "./formats/format.ts";
import { llamaCpp } from "./formats/llamaCpp.ts";
import { megatron } from "./formats/megatron.ts";
import { moeCacheLab } from "./formats/moeCacheLab.ts";
import { perRank } from "./formats/perRank.ts";
import { openNpyRouting, plainArrays } from "./formats/plainArrays.ts";
import { routedExpertsJson } from "./formats/routedExpertsJson.ts";
import { sglangCsv } from "./formats/sglangCsv.ts";
import { routedExperts, sglangCounts, sglangPerToken } from "./formats/sglangTensors.ts";
import { isTrace, openTraceRouting } from "./formats/trace.ts";
import { vllmLogger } from "./formats/vllmLogger.ts";
import { readLines } from "./lines.ts";
import { checkVersion, type OpenRoutingOptions } from "./options.ts";
import type { RoutingFile } from "./routingFile.ts";

const TENSOR_FORMATS: readonly TensorFormat[] = [
  plainArrays,
  perRank,
  megatron,
  sglangPerToken,
  sglangCounts,
  routedExperts,
  expertLoads,
];
const TEXT_FORMATS: readonly TextFormat[] = [vllmLogger, moeCacheLab, sglangCsv, llamaCpp, routedExpertsJson];

/** Every format: name and description, in the order they are tried. */
export const FORMATS: readonly { readonly name: string; readonly description: string }[] = [
  { name: "trace", description: "a trace of fused-a2a: every (step, layer) is a layer" },
  ...TENSOR_FORMATS,
  { name: "npy", description: "npy ids, [tokens, topk] or [layers, tokens, topk]; weights in a second file" },
  ...TEXT_FORMATS,
];

/**
 * Opens a routing file of any format of FORMATS, recognised by its content, never by its name. The source belongs to the
 * file from then on, and is closed when nothing recognises it. Errors: InvalidFile naming the file and what was found; a
 * pickle (.pt) is never parsed: the error names the script that converts it.
 */
export async function openRouting(source: ByteSource, options: OpenRoutingOptions = {}): Promise<RoutingFile> {
  try {
    return await recognise(source, options);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function recognise(source: ByteSource, options: OpenRoutingOptions): Promise<RoutingFile> {
  const head = (await source.read(0, Math.min(64, source.size))).slice();
  if (isNpy(head)) return openNpyRouting(source, options);
  if (isPickle(head)) {
    throw unknown(
      source,
      "a PyTorch or Python pickle",
      "convert it with the script in docs/formats.md: pickles run code",
    );
  }
  if (isParquet(head)) throw unknown(source, "a parquet file", "convert it with the script in docs/formats.md");
  if (looksLikeSafetensors(head)) return openTensors(source, options);
  const line = await firstLine(source);
  const format = TEXT_FORMATS.find((text) => text.recognises(line));
  if (format !== undefined) return format.open(source, options);
  throw unknown(source, `text that begins ${JSON.stringify(line.slice(0, 40))}`);
}

async function openTensors(source: ByteSource, options: OpenRoutingOptions): Promise<RoutingFile> {
  const file = await openSafetensors(source);
  if (isTrace(file.metadata)) return openTraceRouting(source);
  checkVersion(file.name, file.metadata);
  if (isBundle(file.metadata)) checkBundleVersion(file.name, file.metadata);
  const format = TENSOR_FORMATS.find((tensors) => tensors.recognises(file));
  if (format !== undefined) return format.open(file, options);
  throw unknown(source, `safetensors with ${tensorNames(file)}`);
}

function tensorNames(file: SafetensorsFile): string {
  const names = [...file.tensors.keys(), ...file.unsupported.keys()];
  return names.length === 0 ? "no tensors" : `${names.slice(0, 4).join(", ")}${names.length > 4 ? ", ..." : ""}`;
}

/** Files of torch.save are zip archives; older ones and plain pickles begin with the pickle protocol. */
function isPickle(head: Uint8Array): boolean {
  const isZip = head[0] === 0x50 && head[1] === 0x4b && head[2] === 3 && head[3] === 4;
  return isZip || (head[0] === 0x80 && head[1] >= 2 && head[1] <= 5);
}

function isParquet(head: Uint8Array): boolean {
  return "PAR1".split("").every((letter, i) => head[i] === letter.charCodeAt(0));
}

/** Eight bytes of a header length below 2^40, then the header's brace. Text never has zeros in its first eight bytes. */
function looksLikeSafetensors(head: Uint8Array): boolean {
  return head.length >= 8 && head.subarray(5, 8).every((byte) => byte === 0);
}

async function firstLine(source: ByteSource): Promise<string> {
  const head = await source.read(0, Math.min(4096, source.size));
  if (head.includes(0)) return "binary data";
  for await (const { line } of readLines(source)) return line;
  return decodeText(new Uint8Array(0));
}

function unknown(
  source: ByteSource,
  received: string,
  remedy = "docs/formats.md shows each with an example",
): InvalidFile {
  return new InvalidFile({
    name: "routing file",
    expected: `one of: ${FORMATS.map((format) => format.name).join(", ")}`,
    received,
    where: { file: source.name },
    remedy,
  });
}
