import type { CudaGroup } from "../backends/cuda/index.ts";
import type { Group } from "../core/backend.ts";

/** One value per process of the group: of this one alone where there are no others. */
export async function gather<T>(group: Group, name: string, value: T): Promise<T[]> {
  return "exchange" in group ? (group as CudaGroup).exchange(name, value) : [value];
}
