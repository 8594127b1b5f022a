import type { ViewId } from "../model/state.ts";
import { buffersView } from "./buffers.ts";
import { loadView } from "./load.ts";
import { overviewView } from "./overview.ts";
import { timelineView } from "./timeline.ts";
import { tokenView } from "./token.ts";
import { trafficView } from "./traffic.ts";
import type { ViewDef } from "./view.ts";

/** The views of one file; compare takes two and run makes one. */
export const VIEWS = {
  overview: overviewView,
  traffic: trafficView,
  load: loadView,
  buffers: buffersView,
  token: tokenView,
  timeline: timelineView,
} as unknown as Readonly<Record<Exclude<ViewId, "compare" | "run">, ViewDef<unknown>>>;
