import { type ErrorCode, FusedA2AError } from "../../../core/errors.ts";

/** What came first when parts fail differently: the others follow from it (a refused call is a timeout elsewhere). */
const CAUSES: readonly (ErrorCode | undefined)[] = [
  undefined,
  "INVALID_ARGUMENT",
  "INVALID_FILE",
  "OUT_OF_MEMORY",
  "UNAVAILABLE",
  "CONTRACT_MISMATCH",
  "BACKEND_FAILURE",
  "TIMEOUT",
];

/** All values, or, once all have ended, the error that names the cause. */
export async function settle<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(promises);
  const failed = outcomes.filter((one) => one.status === "rejected").map(({ reason }) => reason);
  if (failed.length > 0) throw failed.sort((a, b) => rank(a) - rank(b))[0];
  return outcomes.map((one) => (one as PromiseFulfilledResult<T>).value);
}

const rank = (error: unknown) => CAUSES.indexOf(error instanceof FusedA2AError ? error.code : undefined);
