import { type Frame, nodeOf, numNodes, rankOf } from "./dataset.ts";
import { countSelected } from "./selection.ts";
import { NO_SELECTION, type Selection, selectsSlots } from "./state.ts";

/** One band of a column of the flow drawing: a rank, a node, some experts, or the rest ("others"). */
export interface FlowBand {
  readonly label: string;
  /** Slots, all and selected. */
  readonly all: number;
  readonly selected: number;
  readonly experts?: readonly number[];
  readonly ranks?: readonly number[];
}

export interface FlowLink {
  readonly from: number;
  readonly to: number;
  readonly all: number;
  readonly selected: number;
}

/** Sources -> destinations -> experts, in the order of their ids, so that two files line up. */
export interface FlowModel {
  readonly level: "rank" | "node";
  readonly selecting: boolean;
  readonly columns: readonly [readonly FlowBand[], readonly FlowBand[], readonly FlowBand[]];
  /** Between columns 0 and 1, and 1 and 2. */
  readonly links: readonly [readonly FlowLink[], readonly FlowLink[]];
}

/** Ranks up to this many are drawn one by one, else nodes: at most about a thousand links. */
const MAX_RANKS = 24;
const MAX_EXPERTS = 32;

export function flowModel(frame: Frame, selection: Selection): FlowModel | null {
  const { header } = frame;
  const all = countSelected(frame, NO_SELECTION);
  const selected = countSelected(frame, selection);
  if (!all || !selected) return null;
  const level = header.numRanks <= MAX_RANKS || numNodes(header) === 1 ? "rank" : "node";
  const group = (rank: number) => Math.min(MAX_RANKS, level === "rank" ? rank : nodeOf(header, rank));
  const numGroups = Math.max(...Array.from({ length: header.numRanks }, (_, rank) => group(rank))) + 1;
  const shown = expertsShown(all.expertLoad);
  const bandOfExpert = (expert: number) => {
    const at = shown.indexOf(expert);
    return at >= 0 ? at : shown.length;
  };
  const first = new Links();
  const second = new Links();
  for (let s = 0; s < header.numRanks; s++) {
    for (let d = 0; d < header.numRanks; d++) {
      const i = s * header.numRanks + d;
      first.add(group(s), group(d), all.slots[i], selected.slots[i]);
    }
  }
  for (let e = 0; e < header.numExperts; e++) {
    second.add(group(rankOf(header, e)), bandOfExpert(e), all.expertLoad[e], selected.expertLoad[e]);
  }
  const groups = Array.from({ length: numGroups }, (_, g) => {
    const ranks = Array.from({ length: header.numRanks }, (_, rank) => rank).filter((rank) => group(rank) === g);
    return { label: g === MAX_RANKS ? `${ranks.length} others` : `${level} ${g}`, ranks };
  });
  const numOthers = header.numExperts - shown.length;
  const experts = [
    ...shown.map((expert) => ({ label: `expert ${expert}`, experts: [expert] })),
    ...(numOthers > 0 ? [{ label: `${numOthers} others` }] : []),
  ];
  const band = <T extends object>(bands: readonly T[], links: Links, side: "from" | "to") =>
    bands.map((about, i) => ({ ...about, ...links.total(side, i) })) as unknown as FlowBand[];
  return {
    level,
    selecting: selectsSlots(selection),
    columns: [band(groups, first, "from"), band(groups, first, "to"), band(experts, second, "to")],
    links: [first.list(), second.list()],
  };
}

/** All experts when they are few, else the busiest, by id. */
function expertsShown(load: Int32Array): number[] {
  const ids = Array.from(load.keys());
  if (ids.length <= MAX_EXPERTS) return ids;
  return ids
    .sort((a, b) => load[b] - load[a] || a - b)
    .slice(0, MAX_EXPERTS - 8)
    .sort((a, b) => a - b);
}

class Links {
  readonly #links = new Map<string, { from: number; to: number; all: number; selected: number }>();
  add(from: number, to: number, all: number, selected: number): void {
    if (all === 0) return;
    const key = `${from},${to}`;
    const link = this.#links.get(key) ?? { from, to, all: 0, selected: 0 };
    link.all += all;
    link.selected += selected;
    this.#links.set(key, link);
  }
  list(): FlowLink[] {
    return [...this.#links.values()].sort((a, b) => a.from - b.from || a.to - b.to);
  }
  total(side: "from" | "to", index: number): { all: number; selected: number } {
    const mine = [...this.#links.values()].filter((link) => link[side] === index);
    return {
      all: mine.reduce((total, link) => total + link.all, 0),
      selected: mine.reduce((total, link) => total + link.selected, 0),
    };
  }
}
