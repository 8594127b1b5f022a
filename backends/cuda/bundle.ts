/**
 * When an operation of a group over several processes fails, every process that lives writes down what it knows of it:
 * routing, settings and handle, for `fused-a2a verify` to replay on one machine (core/bundle).
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { DispatchSettings, RoutingInput } from "../../core/backend.ts";
import { type Bundle, type BundleOperation, type BundleRouting, encodeBundle } from "../../core/bundle/format.ts";
import type { RowDType } from "../../core/dtype/dtype.ts";
import { BackendFailure, ContractMismatch, type FusedA2AError, Timeout } from "../../core/errors.ts";
import { checkRouting } from "../../core/functions/validate.ts";
import { encodeHandle } from "../../core/handle/encode.ts";
import type { Handle, HandleKind } from "../../core/handle/handle.ts";
import type { ByteSink } from "../../core/io/bytes.ts";
import { writeSafetensors } from "../../core/io/safetensors/index.ts";
import type { Prepared } from "../../core/operations.ts";
import { type AnyTensor, tensor } from "../../core/tensor.ts";
import type { ClusterPlace } from "./cluster/index.ts";
import type { Context } from "./context.ts";
import { native } from "./errors.ts";
import { packageFolder } from "./loader.ts";
import type { BundleNotes, ClusterOptions } from "./options.ts";
import { rescueHandle, rescueRouting } from "./rescue.ts";

/** An operation, as far as a bundle tells of it. */
export interface Failing {
  readonly operation: BundleOperation;
  readonly style: HandleKind;
  readonly x: readonly AnyTensor[];
  /** New dispatches. */
  readonly routing?: RoutingInput | null;
  readonly settings?: DispatchSettings;
  /** Combines and cached dispatches. */
  readonly handle?: Handle;
}

export class FailureBundles {
  readonly #dir: string;
  readonly #notes: () => BundleNotes;
  readonly #place: ClusterPlace;
  /** The same on every process of the group, and on no other. */
  readonly #group: string;
  /** The routing that made each handle: the caller's own arrays, for as long as the handle lives. */
  readonly #routings = new WeakMap<Handle, RoutingInput>();
  /** What was added to the error that ended the group: operations called after it fail by it, and tell nothing new. */
  #ended: string | null = null;

  constructor(dir: string, notes: () => BundleNotes, place: ClusterPlace, group: string) {
    this.#dir = resolve(dir);
    this.#notes = notes;
    this.#place = place;
    this.#group = group;
  }

  /** `payload`: what the processes of the group, and no others, were given when they met. */
  static of({ bundleDir = ".", bundleNotes = () => ({}), place }: ClusterOptions, payload: string): FailureBundles {
    const group = createHash("sha256").update(payload).digest("hex").slice(0, 16);
    return new FailureBundles(bundleDir, bundleNotes, place, group);
  }

  /** Where this process's bundle lies once it is written. */
  get path(): string {
    return join(this.#dir, `fused-a2a-failure-process${this.#place.processRank}.safetensors`);
  }

  remember(handle: Handle, routing: RoutingInput): void {
    this.#routings.set(handle, routing);
  }

  /** Writes the bundle, and says in the error's message where it lies, or why there is none. Never throws. */
  async keep(context: Context, failing: Failing, error: FusedA2AError): Promise<void> {
    const added = this.#ended ?? (await this.#write(context, failing, error));
    if (!(error instanceof ContractMismatch)) this.#ended = added;
    if (!error.message.includes(added)) error.message += added;
  }

  async #write(context: Context, failing: Failing, error: FusedA2AError): Promise<string> {
    try {
      const bundle = await this.#gather(context, failing, error);
      const { metadata, entries } = encodeBundle(bundle);
      // Of what cannot be made, opening the file tells.
      await mkdir(this.#dir).catch(() => {});
      await writeSafetensors(await fileSink(this.path), metadata, entries);
      return `; replay it with: fused-a2a verify ${this.path}`;
    } catch (reason) {
      return `; no bundle in ${this.#dir}: ${(reason as Error).message}`;
    }
  }

  async #gather(context: Context, failing: Failing, error: FusedA2AError): Promise<Bundle> {
    const { self, link } = context;
    const { handle, x } = failing;
    const missing: string[] = [];
    const attempt = async <T>(what: string, work: () => Promise<T> | T): Promise<T | null> => {
      try {
        return await work();
      } catch (reason) {
        missing.push(`${what}: ${(reason as Error).message}`);
        return null;
      }
    };
    const notes = (await attempt("notes", this.#notes)) ?? {};
    const numExperts = handle?.meta.numExperts ?? failing.settings?.numExperts ?? self.numRanks;
    const data = handle === undefined ? null : await attempt("handle", () => rescueHandle(context.owner, handle));
    const routing = await attempt("routing", () => this.#routing(context, failing, notes, numExperts));
    const widths = [...(routing?.values() ?? [])].map(({ topkIdx }) => topkIdx.shape[1]);
    const settings = handle?.meta ?? failing.settings;
    return {
      header: {
        producer: `fused-a2a ${productVersion()}`,
        source: notes.source ?? "",
        operation: failing.operation,
        sequence: link?.sequence ?? 0,
        code: error.code,
        message: error.message,
        waits: error.waits ?? [],
        group: this.#group,
        process: this.#place.processRank,
        numProcesses: this.#place.numProcesses,
        shape: { numRanks: self.numRanks, ranksPerNode: self.ranksPerNode, numExperts },
        localRanks: self.localRanks,
        topk: handle?.meta.topk ?? Math.max(1, ...widths),
        hidden: x[0].shape[1],
        dtype: x[0].dtype as RowDType,
        style: failing.style,
        settings: {
          expertAlignment: settings?.expertAlignment ?? 1,
          numWorstTokens: settings?.numWorstTokens ?? 0,
          padMultiple: settings?.padMultiple ?? 1,
          numPermutedTokens: settings?.numPermutedTokens ?? null,
        },
        rows: notes.rows ?? null,
        missing,
      },
      routing: routing ?? new Map(),
      handle: data === null ? new Map() : encodeHandle(data),
    };
  }

  async #routing(
    { owner, self }: Context,
    { routing: given, handle }: Failing,
    notes: BundleNotes,
    numExperts: number,
  ): Promise<Map<number, BundleRouting>> {
    const known = notes.routing ?? given ?? (handle && this.#routings.get(handle));
    if (known === undefined || known === null) {
      throw new BackendFailure("the handle was not made by a dispatch of this group, so its routing is not known here");
    }
    const all = Array.from({ length: self.numRanks }, (_, rank) => rank);
    const localRanks = notes.routing === undefined ? self.localRanks : all;
    const host = await rescueRouting(owner, known);
    const { numRanks, ranksPerNode } = self;
    const { routings } = await checkRouting({ numRanks, ranksPerNode, localRanks }, host, numExperts);
    return new Map(
      routings.map(({ rank, numTokens, topk, topkIdx, topkWeights }) => [
        rank,
        {
          topkIdx: tensor("i32", [numTokens, topk], topkIdx),
          topkWeights: topkWeights && tensor("fp32", [numTokens, topk], topkWeights),
        },
      ]),
    );
  }
}

/** Prepares an operation; if it fails by what other processes do, in preparing or in its work, a bundle is written. */
export async function keepFailure<T extends object>(
  bundles: FailureBundles | null,
  context: Context,
  failing: () => Failing,
  prepare: () => Promise<Prepared<T>>,
): Promise<Prepared<T>> {
  if (bundles === null) return prepare();
  const guarded = async <R>(work: () => Promise<R>): Promise<R> => {
    try {
      return await native(work);
    } catch (error) {
      if (isFailure(error)) await bundles.keep(context, failing(), error);
      throw error;
    }
  };
  const { work, result } = await guarded(prepare);
  return {
    work: () => guarded(work),
    result: (done) => {
      const made = result(done);
      const { routing } = failing();
      if ("handle" in made && routing) bundles.remember(made.handle as Handle, routing);
      return made;
    },
  };
}

function isFailure(error: unknown): error is FusedA2AError {
  return error instanceof Timeout || error instanceof BackendFailure || error instanceof ContractMismatch;
}

/** A file that takes its name, and the place of an older one, when it is complete. */
async function fileSink(path: string): Promise<ByteSink> {
  const partial = `${path}.${process.pid}.partial`;
  const file = await open(partial, "w");
  const drop = async () => {
    await file.close().catch(() => {});
    await rm(partial, { force: true });
  };
  return {
    name: path,
    write: async (bytes) => {
      for (let done = 0; done < bytes.byteLength; ) {
        done += (await file.write(bytes, done, Math.min(bytes.byteLength - done, 2 ** 30))).bytesWritten;
      }
    },
    commit: async () => {
      await file.close();
      await rename(partial, path);
    },
    abort: drop,
  };
}

function productVersion(): string {
  try {
    return JSON.parse(readFileSync(join(packageFolder(), "package.json"), "utf8")).version;
  } catch {
    return "unknown";
  }
}
