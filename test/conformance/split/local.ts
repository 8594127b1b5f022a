import { createCudaBackend } from "../../../backends/cuda/index.ts";
import type { Parts } from "./backend.ts";

/** Parts in this process: each with a backend of its own, meeting over 127.0.0.1 like real ones. */
export function localParts(): Parts {
  return {
    async open(index, place, options) {
      // Process 0 listens before the others dial: they would try again only after 100 ms.
      if (index > 0) await new Promise((resolve) => setTimeout(resolve, 2));
      const cluster = { place, timeoutMs: 20_000, deadlineMs: 20_000 };
      const backend = await createCudaBackend({ emulated: true, cluster });
      return backend.createGroup(options);
    },
    async close() {},
  };
}
