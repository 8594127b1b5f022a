/** What the viewer shows: one immutable record, all of it in the URL. The data itself never is. */
export const VIEW_IDS = ["overview", "traffic", "load", "buffers", "token", "timeline", "compare", "run"] as const;
export type ViewId = (typeof VIEW_IDS)[number];

export type Metric = "slots" | "rows" | "bytes" | "wait";
export type Unit = "expert" | "logical" | "rank" | "node";
export type Quantity = "remote" | "ranks" | "top" | "entropy";

/** One selection for all views; empty lists and null select everything; dimensions are joined by AND. */
export interface Selection {
  readonly src: readonly number[];
  readonly dst: readonly number[];
  readonly experts: readonly number[];
  /** Tokens first..last of every source. */
  readonly tokens: readonly [number, number] | null;
  /** Microseconds from..to. */
  readonly time: readonly [number, number] | null;
}

/** How a file without ranks (a routing file) is laid on ranks. */
export interface Placement {
  readonly ranks: number;
  readonly nodes: number;
  /** 0 = the smallest multiple of ranks that holds every id of the file. */
  readonly experts: number;
  readonly style: "fused" | "hybrid-ep";
  readonly pad: number;
}

export interface ViewState extends Selection {
  readonly view: ViewId;
  readonly step: number;
  readonly layer: number;
  /** The token under inspection: source rank and token. */
  readonly token: readonly [number, number] | null;
  /** Show A, B and B - A when a second file is open. */
  readonly compare: boolean;
  /** Differences per token instead of absolute. */
  readonly perToken: boolean;
  readonly metric: Metric;
  readonly level: "rank" | "node";
  readonly transpose: boolean;
  readonly hide: "none" | "rank" | "node";
  readonly scale: "linear" | "log";
  readonly unit: Unit;
  readonly order: "load" | "id";
  readonly padding: boolean;
  readonly quantity: Quantity;
  /** Visible part of the view's plot as fractions [x0, y0, x1, y1]; null = all of it. */
  readonly zoom: readonly [number, number, number, number] | null;
  readonly theme: "auto" | "light" | "dark";
  readonly placement: Placement;
}

export type Patch = Partial<ViewState>;

export const DEFAULT_PLACEMENT: Placement = { ranks: 8, nodes: 1, experts: 0, style: "fused", pad: 1 };

export const DEFAULT_STATE: ViewState = {
  view: "overview",
  step: 0,
  layer: 0,
  src: [],
  dst: [],
  experts: [],
  tokens: null,
  time: null,
  token: null,
  compare: false,
  perToken: false,
  metric: "rows",
  level: "rank",
  transpose: false,
  hide: "none",
  scale: "linear",
  unit: "expert",
  order: "load",
  padding: false,
  quantity: "remote",
  zoom: null,
  theme: "auto",
  placement: DEFAULT_PLACEMENT,
};

export const NO_SELECTION: Selection = { src: [], dst: [], experts: [], tokens: null, time: null };

export function isSelecting(state: Selection): boolean {
  return selectsSlots(state) || state.time !== null;
}

/** Whether any slot may be left out. */
export function selectsSlots(state: Selection): boolean {
  return state.src.length + state.dst.length + state.experts.length > 0 || state.tokens !== null;
}

const CHOICES: { readonly [K in keyof ViewState]?: readonly ViewState[K][] } = {
  view: VIEW_IDS,
  metric: ["slots", "rows", "bytes", "wait"],
  level: ["rank", "node"],
  hide: ["none", "rank", "node"],
  scale: ["linear", "log"],
  unit: ["expert", "logical", "rank", "node"],
  order: ["load", "id"],
  quantity: ["remote", "ranks", "top", "entropy"],
  theme: ["auto", "light", "dark"],
};
const FLAGS = ["compare", "perToken", "transpose", "padding"] as const;
const LISTS = ["src", "dst", "experts"] as const;
const PAIRS = ["tokens", "time", "token"] as const;

/** The parts that differ from the defaults, as a URL hash without "#". */
export function toHash(state: ViewState): string {
  const params: string[] = [];
  const put = (key: string, value: string) => params.push(`${key}=${encodeURIComponent(value).replaceAll("%2C", ",")}`);
  for (const key of Object.keys(CHOICES) as (keyof ViewState)[]) {
    if (state[key] !== DEFAULT_STATE[key]) put(key, String(state[key]));
  }
  if (state.step !== 0) put("step", String(state.step));
  if (state.layer !== 0) put("layer", String(state.layer));
  for (const key of FLAGS) if (state[key]) put(key, "1");
  for (const key of LISTS) if (state[key].length > 0) put(key, formatIds(state[key]));
  for (const key of PAIRS) {
    const pair = state[key];
    if (pair !== null) put(key, pair.join(","));
  }
  if (state.zoom !== null) put("zoom", state.zoom.map((value) => String(Number(value.toPrecision(6)))).join(","));
  const { ranks, nodes, experts, style, pad } = state.placement;
  if (JSON.stringify(state.placement) !== JSON.stringify(DEFAULT_PLACEMENT)) {
    put("place", `${ranks},${nodes},${experts},${style},${pad}`);
  }
  return params.join("&");
}

/** The state of a hash; unknown keys and illegal values are ignored, so that old links keep opening. */
export function fromHash(hash: string): ViewState {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  const state: Record<string, unknown> = { ...DEFAULT_STATE };
  for (const [key, choices] of Object.entries(CHOICES)) {
    const value = params.get(key);
    if (value !== null && (choices as readonly string[]).includes(value)) state[key] = value;
  }
  for (const key of ["step", "layer"]) {
    const value = Number(params.get(key) ?? 0);
    if (Number.isSafeInteger(value) && value >= 0) state[key] = value;
  }
  for (const key of FLAGS) if (params.get(key) === "1") state[key] = true;
  for (const key of LISTS) state[key] = parseIds(params.get(key) ?? "");
  for (const key of PAIRS) {
    const pair = numbers(params.get(key));
    if (pair.length === 2 && pair[0] >= 0 && (key === "token" || pair[0] <= pair[1])) state[key] = pair;
  }
  const zoom = numbers(params.get("zoom"));
  if (zoom.length === 4 && zoom.every((v) => v >= 0 && v <= 1) && zoom[0] < zoom[2] && zoom[1] < zoom[3]) {
    state.zoom = zoom;
  }
  const place = (params.get("place") ?? "").split(",");
  const [ranks, nodes, experts, pad] = [place[0], place[1], place[2], place[4]].map(Number);
  const whole = [ranks, nodes, pad].every((v) => Number.isSafeInteger(v) && v >= 1) && ranks <= 4096;
  if (whole && Number.isSafeInteger(experts) && experts >= 0 && (place[3] === "fused" || place[3] === "hybrid-ep")) {
    state.placement = { ranks, nodes, experts, style: place[3], pad };
  }
  return state as unknown as ViewState;
}

function numbers(text: string | null): number[] {
  if (text === null || text === "") return [];
  const values = text.split(",").map(Number);
  return values.every((value) => Number.isFinite(value)) ? values : [];
}

/** [0, 1, 2, 7] -> "0-2,7". */
export function formatIds(ids: readonly number[]): string {
  const sorted = [...new Set(ids)].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length; ) {
    let end = i;
    while (sorted[end + 1] === sorted[end] + 1) end++;
    parts.push(end > i ? `${sorted[i]}-${sorted[end]}` : `${sorted[i]}`);
    i = end + 1;
  }
  return parts.join(",");
}

/** "0-2,7" -> [0, 1, 2, 7]; [] when it is not of that form. */
export function parseIds(text: string): number[] {
  const ids = new Set<number>();
  for (const part of text.split(",").filter((p) => p !== "")) {
    const match = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(part.trim());
    if (!match) return [];
    const first = Number(match[1]);
    const last = match[2] === undefined ? first : Number(match[2]);
    if (last < first || last - first > 100_000) return [];
    for (let id = first; id <= last; id++) ids.add(id);
  }
  return [...ids].sort((a, b) => a - b);
}
