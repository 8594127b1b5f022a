import { InvalidArgument } from "../../errors.ts";
import { joinRanks } from "./ranks.ts";
import { countsFile, type LayerSource, type RoutingFile, tokenFile } from "./routingFile.ts";

/**
 * Several files as one, for sources that write one file per rank: loads are summed layer by layer, tokens become ranks in
 * the order given. Throws InvalidArgument when the files do not belong together. Closing it closes them all.
 */
export async function joinRoutingFiles(files: readonly RoutingFile[]): Promise<RoutingFile> {
  const [first] = files;
  if (files.length === 1) return first;
  for (const file of files) {
    if (file.kind === first.kind && file.layerNames.join() === first.layerNames.join() && file.numRanks === null)
      continue;
    throw new InvalidArgument({
      name: "files",
      expected: `${first.kind} of layers ${first.layerNames.join(", ")}, one rank per file`,
      received: `${file.kind} of layers ${file.layerNames.join(", ")}${file.numRanks === null ? "" : `, ${file.numRanks} ranks`}`,
      where: { file: file.name },
      remedy: "give files of one recording, one per rank",
    });
  }
  const identity = {
    format: first.format,
    name: files.map((file) => file.name).join(" + "),
    layerNames: first.layerNames,
    remarks: files.flatMap((file) => file.remarks),
    close: async () => {
      for (const file of files) await file.close();
    },
  };
  if (first.kind === "counts") {
    const width = Math.max(...files.map((file) => file.numExperts));
    const loads = first.layerNames.map(() => new Float64Array(width));
    for (const file of files) {
      for (const [layer, sum] of loads.entries()) {
        (await file.loads(layer)).forEach((load, expert) => {
          sum[expert] += load;
        });
      }
    }
    return countsFile(identity, loads);
  }
  const sources = files.map(
    (file): LayerSource => ({
      numLayers: file.numLayers,
      numTokens: file.numTokens,
      topk: file.topk,
      layer: async (index) => {
        const { topkIdx, topkWeights, numRepeatedKeys } = await file.layer(index);
        return { ids: topkIdx.data, weights: topkWeights?.data ?? null, numRepeatedKeys };
      },
    }),
  );
  const stated = files.every((file) => file.numExpertsFrom === "stated");
  const numExperts = stated ? Math.max(...files.map((file) => file.numExperts)) : null;
  return tokenFile(identity, joinRanks(identity.name, sources), numExperts);
}
