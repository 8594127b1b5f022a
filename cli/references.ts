import { createBackend } from "../backends/index.ts";
import type { Backend, Group } from "../core/backend.ts";
import { InvalidArgument, Unavailable } from "../core/errors.ts";
import { gather } from "./gather.ts";
import type { NotRun } from "./verifyReport.ts";

export interface References {
  readonly backends: readonly Backend[];
  readonly notRun: readonly NotRun[];
}

/** Those that every process of the group has: each replays the layer, and all take part in it. */
export async function sameReferences(group: Group, { backends, notRun }: References): Promise<References> {
  const all = await gather(
    group,
    "references",
    backends.map(({ name }) => name),
  );
  const lacking = (name: string) => all.flatMap((names, process) => (names.includes(name as never) ? [] : [process]));
  const kept = backends.filter(({ name }) => lacking(name).length === 0);
  const dropped = backends
    .filter((backend) => !kept.includes(backend))
    .map(({ name }) => ({ name, why: `process ${lacking(name).join(", ")} has none` }));
  if (kept.length === 0) {
    throw new InvalidArgument({
      name: "against",
      expected: "a reference that every process has",
      received: all.map((names, process) => `${names.join(", ") || "none"} on process ${process}`).join("; "),
      remedy: "name the same ones on every process",
    });
  }
  return { backends: kept, notRun: [...notRun, ...dropped] };
}

/** The named references; by default WebGPU where it can run, and the oracle. A backend is no reference for itself. */
export async function openReferences(names: string | undefined, executor: string): Promise<References> {
  const backends: Backend[] = [];
  const notRun: NotRun[] = [];
  for (const name of names?.split(",") ?? ["webgpu", "oracle"].filter((one) => one !== executor)) {
    try {
      backends.push(await createBackend(name.trim()));
    } catch (error) {
      // Asked for by name it must run; by default the oracle still verifies, and the report says what was not run.
      if (names !== undefined || !(error instanceof Unavailable)) throw error;
      notRun.push({ name, why: error.message });
    }
  }
  return { backends, notRun };
}
