import { createBackend } from "../backends/index.ts";
import type { Backend } from "../core/backend.ts";
import { Unavailable } from "../core/errors.ts";
import type { NotRun } from "./verifyReport.ts";

/** The named references; by default WebGPU where it can run, and the oracle. A backend is no reference for itself. */
export async function openReferences(
  names: string | undefined,
  executor: string,
): Promise<{ backends: Backend[]; notRun: NotRun[] }> {
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
