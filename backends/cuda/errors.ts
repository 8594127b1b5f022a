/** Native failures as the classes of core/errors.ts. */
import {
  BackendFailure,
  ContractMismatch,
  InvalidArgument,
  OutOfMemory,
  type Place,
  type Problem,
  Timeout,
  Unavailable,
} from "../../core/errors.ts";
import type { NativeFailure } from "./native.ts";

/** By fa2a_code. */
const CLASSES = [BackendFailure, InvalidArgument, Unavailable, OutOfMemory, BackendFailure, ContractMismatch, Timeout];

/** The class for what the addon rejected or threw; anything else is passed on as it is. */
function fromNative(error: unknown): unknown {
  const failure = (error as { native?: NativeFailure } | null)?.native;
  if (!(error instanceof Error) || failure === undefined) return error;
  const problem = problemOf(failure);
  if (problem === null) {
    const Class = failure.code === 1 ? BackendFailure : (CLASSES[failure.code] ?? BackendFailure);
    return new (Class as typeof BackendFailure)(withUsability(error.message, failure), { cause: error });
  }
  const Class = CLASSES[failure.code] ?? BackendFailure;
  return new Class(problem, { cause: error });
}

/** Calls the addon; what it rejects or throws becomes an error of core. */
export async function native<T>(call: () => Promise<T> | T): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw fromNative(error);
  }
}

function problemOf(failure: NativeFailure): Problem | null {
  if (failure.name === "") return null;
  const where: { -readonly [K in keyof Place]: Place[K] } = {};
  for (const key of ["rank", "token", "slot", "row"] as const) if (failure[key] >= 0) where[key] = failure[key];
  const { name, expected, received, remedy } = failure;
  return { name, expected, received, where, remedy: withUsability(remedy, failure) };
}

function withUsability(text: string, failure: NativeFailure): string {
  if (failure.groupUsable) return text;
  return `${text.replace(/; close (it|the group)$/, "")}; close the group and make a new one`;
}
