/** Failure bundles of several processes as one failure: which belong together, and what they say for people. */
import type { Bundle, BundleHeader } from "../core/bundle/format.ts";
import { isBundle, readBundle } from "../core/bundle/read.ts";
import { InvalidArgument } from "../core/errors.ts";
import { openSafetensors } from "../core/io/safetensors/index.ts";
import { openFile } from "./files.ts";

export interface BundleFile extends Bundle {
  readonly file: string;
}

/**
 * The bundles at `paths`, by process; null when none of the files is one. Throws InvalidFile for a damaged bundle or one of
 * another version, InvalidArgument for bundles that do not tell of the same failure.
 */
export async function openBundles(paths: readonly string[]): Promise<BundleFile[] | null> {
  const are = await Promise.all(paths.map(looksLikeBundle));
  if (!are.includes(true)) return null;
  const other = are.indexOf(false);
  if (other >= 0) throw mixed("bundles alone", `${paths[other]}, which is none`, "leave it out");
  const bundles: BundleFile[] = [];
  for (const file of paths) bundles.push({ ...(await readBundle(await openFile(file))), file });
  checkSameFailure(bundles);
  return bundles.sort((a, b) => a.header.process - b.header.process);
}

/** Only whether it claims to be one: what is wrong with a file, its reader says. */
async function looksLikeBundle(path: string): Promise<boolean> {
  const source = await openFile(path);
  try {
    const file = await openSafetensors(source);
    return isBundle(file.metadata);
  } catch {
    return false;
  } finally {
    await source.close().catch(() => {});
  }
}

function checkSameFailure(bundles: readonly BundleFile[]): void {
  const [first, ...rest] = bundles;
  const seen = new Map([[first.header.process, first.file]]);
  for (const { header, file } of rest) {
    const differ = (what: string, a: string, b: string) =>
      mixed(`bundles of one ${what}`, `${a} in ${first.file}, ${b} in ${file}`, "verify them apart");
    if (header.group !== first.header.group) throw differ("group", first.header.group, header.group);
    const size = ({ shape, numProcesses }: BundleHeader) =>
      `${shape.numRanks} ranks of ${shape.ranksPerNode} per node in ${numProcesses} processes`;
    if (size(header) !== size(first.header)) throw differ("group", size(first.header), size(header));
    if (failureOf(header) !== failureOf(first.header)) {
      throw differ("failure", describeFailure(first.header), describeFailure(header));
    }
    const twice = seen.get(header.process);
    if (twice !== undefined) {
      throw mixed("one bundle per process", `process ${header.process} in ${twice} and in ${file}`, "give one of them");
    }
    seen.set(header.process, file);
  }
}

/** A group survives mismatches, each in its own operation, and ends by one other failure, wherever each process was then. */
function failureOf({ code, sequence }: BundleHeader): string {
  return code === "CONTRACT_MISMATCH" ? `mismatch in ${sequence}` : "end";
}

export function describeFailure({ code, operation, sequence }: BundleHeader): string {
  return `${code} in operation ${sequence} (${operation})`;
}

/** What failed, who says so, and who is missing. */
export function describeBundles(bundles: readonly BundleFile[]): string {
  const [{ header }] = bundles;
  const lines = [`${bundles.length} of ${header.numProcesses} processes left a bundle`];
  for (const { header: one, file, routing, handle } of bundles) {
    const { shape, style, hidden, dtype, topk } = one;
    lines.push(
      `process ${one.process} (ranks ${one.localRanks.join(", ")}): ${describeFailure(one)}, ${file}`,
      `  ${one.message}`,
      ...one.waits.map(
        ({ rank, srcRank, phase, expected, received }) =>
          `  rank ${rank} waited for rank ${srcRank}: ${phase}: expected ${expected}, received ${received}`,
      ),
      `  ${style}, hidden ${hidden} ${dtype}, top-${topk} of ${shape.numExperts} experts, ${shape.numRanks} ranks, ${shape.ranksPerNode} per node; routing of ranks ${[...routing.keys()].join(", ") || "none"}; ${handle.size > 0 ? "with" : "no"} handle`,
      ...one.missing.map((what) => `  missing: ${what}`),
    );
  }
  const absent = absentProcesses(bundles);
  if (absent.length > 0) lines.push(`no bundle of process ${absent.join(", ")}`);
  return lines.join("\n");
}

/** Processes of the group without a bundle here. */
export function absentProcesses(bundles: readonly BundleFile[]): number[] {
  const here = bundles.map(({ header }) => header.process);
  return Array.from({ length: bundles[0].header.numProcesses }, (_, process) => process).filter(
    (process) => !here.includes(process),
  );
}

/** The bundle without its arrays, for --json. */
export function summarizeBundle({ header, file, routing, handle }: BundleFile) {
  return { file, ...header, routingOfRanks: [...routing.keys()], hasHandle: handle.size > 0 };
}

function mixed(expected: string, received: string, remedy: string): InvalidArgument {
  return new InvalidArgument({ name: "files", expected, received, remedy });
}
