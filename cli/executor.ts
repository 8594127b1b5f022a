import { type BackendOptions, createBackend } from "../backends/index.ts";
import type { Backend } from "../core/backend.ts";
import { Unavailable } from "../core/errors.ts";

/** The executors by preference: real GPUs, else the embedded one. */
const PREFERENCE = ["cuda", "wasm", "oracle"];

/** Opens the named backend, or for "auto" the best that runs here; `passedOver` says why better ones do not. */
export async function openExecutor(
  name: string,
  options: BackendOptions,
): Promise<{ backend: Backend; passedOver: { name: string; why: string }[] }> {
  const passedOver: { name: string; why: string }[] = [];
  if (name !== "auto") return { backend: await createBackend(name, options), passedOver };
  for (const candidate of PREFERENCE) {
    try {
      return { backend: await createBackend(candidate, options), passedOver };
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      passedOver.push({ name: candidate, why: error.message });
    }
  }
  throw new Unavailable(passedOver.map(({ name, why }) => `${name}: ${why}`).join("; "));
}
