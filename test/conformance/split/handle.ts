/** One handle of the whole group over the handles of its parts, and the other way round. */
import { Handle, type HandleData } from "../../../core/handle/handle.ts";

/** `Handle.native` of a split group: the handle of each part, in the order of the parts. */
export class PartHandles {
  readonly parts: readonly Handle[];

  constructor(parts: readonly Handle[]) {
    this.parts = parts;
  }
}

/** Throws when the parts do not agree on the settings. */
export function joinHandles(parts: readonly Handle[], localRanks: readonly number[]): Handle {
  const metas = parts.map(({ meta }) => JSON.stringify({ ...meta, localRanks: [] }));
  if (new Set(metas).size > 1) throw new Error(`the parts' handles differ: ${metas.join(" and ")}`);
  const meta = { ...parts[0].meta, localRanks };
  const data = async () => ({
    meta,
    ranks: (await Promise.all(parts.map((part) => part.data()))).flatMap(({ ranks }) => ranks),
  });
  const counts = async () => (await Promise.all(parts.map((part) => part.tokensPerExpert()))).flat();
  return new Handle(meta, data, new PartHandles(parts), counts);
}

/** The part of a handle made elsewhere that holds `localRanks`. */
export function partOfHandle({ meta, ranks }: HandleData, localRanks: readonly number[]): Handle {
  return Handle.of({ meta: { ...meta, localRanks }, ranks: ranks.filter(({ rank }) => localRanks.includes(rank)) });
}
