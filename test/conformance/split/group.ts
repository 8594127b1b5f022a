/**
 * A whole group over the groups of several processes: a request is split by local ranks, all parts are called at the same
 * time, what they answer is put together again. So that every test of a backend runs over several processes too.
 */
import type {
  BufferMemory,
  CombineRequest,
  CombineResult,
  DispatchRequest,
  DispatchResult,
  Group,
  RoutingInput,
  RowOutputs,
  StreamOptions,
} from "../../../core/backend.ts";
import { EventOverlap } from "../../../core/event.ts";
import type { Handle } from "../../../core/handle/handle.ts";
import type { RankLayout } from "../../../core/layout/counts.ts";
import type { AnyTensor } from "../../../core/tensor.ts";
import { settle } from "./errors.ts";
import { joinHandles, PartHandles, partOfHandle } from "./handle.ts";

/** `EventOverlap.native` of a split group. */
class PartEvents {
  readonly parts: readonly EventOverlap[];

  constructor(parts: readonly EventOverlap[]) {
    this.parts = parts;
  }
}

export class SplitGroup implements Group {
  readonly backend: Group["backend"];
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];
  readonly #parts: readonly Group[];
  /** First local rank of each part, and where the last one ends. */
  readonly #offsets: readonly number[];
  readonly #split = new WeakMap<Handle, Promise<readonly Handle[]>>();

  constructor(parts: readonly Group[]) {
    this.#parts = parts;
    this.backend = parts[0].backend;
    this.numRanks = parts[0].numRanks;
    this.ranksPerNode = parts[0].ranksPerNode;
    this.localRanks = parts.flatMap(({ localRanks }) => localRanks);
    this.#offsets = parts.map((_, i) => parts.slice(0, i).reduce((sum, { localRanks }) => sum + localRanks.length, 0));
  }

  async layout(routing: RoutingInput, numExperts: number): Promise<readonly RankLayout[]> {
    return (await this.#each((part, own) => part.layout(ownRouting(routing, own), numExperts))).flat();
  }

  async dispatch(request: DispatchRequest): Promise<DispatchResult> {
    const handles = request.handle === undefined ? null : await this.#handles(request.handle);
    const results = await this.#each((part, own, i) =>
      part.dispatch({
        ...request,
        ...ownOptions(request, own, i),
        x: own(request.x),
        scales: request.scales && own(request.scales),
        routing: request.routing && ownRouting(request.routing, own),
        handle: handles?.[i],
      }),
    );
    const joined = (pick: (result: DispatchResult) => readonly AnyTensor[] | null) => joinAll(results.map(pick));
    const counts = joinAll(results.map(({ tokensPerExpert }) => tokensPerExpert ?? null));
    return {
      x: results.flatMap(({ x }) => x),
      scales: joined(({ scales }) => scales),
      topkIdx: joined(({ topkIdx }) => topkIdx),
      topkWeights: joined(({ topkWeights }) => topkWeights),
      probs: joined(({ probs }) => probs),
      handle:
        request.handle ??
        joinHandles(
          results.map(({ handle }) => handle),
          this.localRanks,
        ),
      ...(counts === null ? {} : { tokensPerExpert: counts }),
      event: joinEvents(results.map(({ event }) => event)),
      phases: results.flatMap(({ phases }) => phases),
    };
  }

  async combine(request: CombineRequest): Promise<CombineResult> {
    const handles = await this.#handles(request.handle);
    const results = await this.#each((part, own, i) =>
      part.combine({
        ...request,
        ...ownOptions(request, own, i),
        handle: handles[i],
        x: own(request.x),
        topkWeights: request.topkWeights && own(request.topkWeights),
        probs: request.probs && own(request.probs),
        bias: request.bias.map(own),
      }),
    );
    return {
      x: results.flatMap(({ x }) => x),
      topkWeights: joinAll(results.map(({ topkWeights }) => topkWeights)),
      probs: joinAll(results.map(({ probs }) => probs)),
      event: joinEvents(results.map(({ event }) => event)),
      phases: results.flatMap(({ phases }) => phases),
    };
  }

  async castToFp8(x: readonly AnyTensor[]) {
    const results = await this.#each((part, own) => part.castToFp8(own(x)));
    return { x: results.flatMap((one) => one.x), scales: results.flatMap((one) => one.scales) };
  }

  async castBack(x: readonly AnyTensor[], scales: readonly AnyTensor[]): Promise<readonly AnyTensor[]> {
    return (await this.#each((part, own) => part.castBack(own(x), own(scales)))).flat();
  }

  async scaleRows(x: readonly AnyTensor[], factors: readonly AnyTensor[], options: RowOutputs = {}) {
    const results = await this.#each((part, own, i) =>
      part.scaleRows(own(x), own(factors), ownOptions(options, own, i)),
    );
    return results.flat();
  }

  setNumSms(numSms: number): void {
    for (const part of this.#parts) part.setNumSms(numSms);
  }

  async allocateBuffer(bytes: number): Promise<BufferMemory> {
    const memories = await this.#each((part) => part.allocateBuffer(bytes));
    return { bytes, free: () => memories.forEach((memory) => memory.free()) };
  }

  async close(): Promise<void> {
    await this.#each((part) => part.close());
  }

  /** Calls every part at once; `own` picks the part's entries of one list per local rank. */
  #each<T>(call: (part: Group, own: Own, index: number) => Promise<T>): Promise<T[]> {
    return settle(
      this.#parts.map((part, i) => {
        const first = this.#offsets[i];
        // A part that throws before it returns a promise must not keep the others from being called.
        return (async () => call(part, (values) => values.slice(first, first + part.localRanks.length), i))();
      }),
    );
  }

  #handles(handle: Handle): Promise<readonly Handle[]> {
    if (handle.native instanceof PartHandles) return Promise.resolve(handle.native.parts);
    let found = this.#split.get(handle);
    if (found === undefined) {
      found = handle.data().then((data) => this.#parts.map(({ localRanks }) => partOfHandle(data, localRanks)));
      this.#split.set(handle, found);
    }
    return found;
  }
}

type Own = <T>(values: readonly T[]) => readonly T[];

function ownRouting(routing: RoutingInput, own: Own): RoutingInput {
  if ("topkIdx" in routing) {
    return { topkIdx: own(routing.topkIdx), topkWeights: routing.topkWeights && own(routing.topkWeights) };
  }
  return { routingMap: own(routing.routingMap), probs: routing.probs && own(routing.probs) };
}

function ownOptions(options: StreamOptions & RowOutputs, own: Own, index: number): StreamOptions & RowOutputs {
  const { previousEvent, out } = options;
  return {
    ...options,
    ...(previousEvent?.native instanceof PartEvents ? { previousEvent: previousEvent.native.parts[index] } : {}),
    ...(out === undefined ? {} : { out: own(out) }),
  };
}

function joinAll<T>(lists: readonly (readonly T[] | null)[]): readonly T[] | null {
  const given = lists.filter((list) => list !== null);
  if (given.length !== 0 && given.length !== lists.length) throw new Error("some parts answer with none");
  return given.length === 0 ? null : given.flat();
}

function joinEvents(parts: readonly EventOverlap[]): EventOverlap {
  const wait = async () => {
    await settle(parts.map((event) => event.currentStreamWait()));
  };
  return new EventOverlap(wait, new PartEvents(parts));
}
