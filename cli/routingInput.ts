/** Options and opening of routing files, shared by inspect and convert. */
import type { Command } from "commander";
import { FORMATS, joinRoutingFiles, openRouting, type RoutingFile } from "../core/routing/import/index.ts";
import { openFile } from "./files.ts";
import { whole } from "./job.ts";
import { progressBar } from "./progress.ts";

export interface RoutingInputOptions {
  experts?: number;
  topk?: number;
  layers?: number;
  weights?: string;
  tokensFirst?: boolean;
  table?: string;
}

/** Adds what a routing file may not say itself. */
export function routingInputOptions(command: Command): Command {
  return command
    .option("--experts <n>", "experts of the model, when the file does not state them", whole(1))
    .option("--topk <k>", "slots per token, for llama.cpp CSV and SGLang base64", whole(1))
    .option("--layers <n>", "layers, for SGLang base64", whole(1))
    .option("--weights <file>", "npy: the file of weights that goes with the ids")
    .option("--tokens-first", "npy: [tokens, layers, topk] instead of [layers, tokens, topk]")
    .option("--table <name>", "which tensor of a file with several tables of loads");
}

export function formatsHelp(): string {
  const lines = FORMATS.map(({ name, description }) => `  ${name.padEnd(20)} ${description}`);
  return `\nFormats, recognised by content (docs/formats.md):\n${lines.join("\n")}\n`;
}

/** Opens one file, or one file per rank as one. */
export async function openRoutingFiles(paths: readonly string[], options: RoutingInputOptions): Promise<RoutingFile> {
  const bar = progressBar("reading");
  const files: RoutingFile[] = [];
  try {
    for (const [i, path] of paths.entries()) {
      const file = await openRouting(await openFile(path), {
        numExperts: options.experts,
        topk: options.topk,
        numLayers: options.layers,
        tokensFirst: options.tokensFirst,
        table: options.table,
        weights: options.weights === undefined ? undefined : await openFile(options.weights),
        progress: (fraction) => bar.update((i + fraction) / paths.length),
      });
      files.push(file);
    }
    return await joinRoutingFiles(files);
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  } finally {
    bar.done();
  }
}
