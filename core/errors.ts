/**
 * Every error of the project. Few classes, chosen by what the caller can do next; `code` is stable.
 * One grammar: what was expected, what came (and where), what to do.
 */
export type ErrorCode =
  | "INVALID_ARGUMENT"
  | "INVALID_FILE"
  | "UNAVAILABLE"
  | "OUT_OF_MEMORY"
  | "BACKEND_FAILURE"
  | "CONTRACT_MISMATCH"
  | "TIMEOUT";

/** Where a value was found: printed in this order, only what is given. */
export interface Place {
  readonly file?: string;
  readonly offset?: number;
  readonly rank?: number;
  readonly token?: number;
  readonly slot?: number;
  readonly row?: number;
  readonly column?: number;
}

export interface Problem {
  /** The thing that was wrong, by its public name (`topkIdx`, `padMultiple`). */
  readonly name: string;
  readonly expected: string;
  readonly received: string;
  readonly where?: Place;
  /** What the user can do about it, in a few words. */
  readonly remedy: string;
}

/** "rank 3, token 17, slot 2": empty when nothing is given. */
export function describePlace(where: Place = {}): string {
  const parts: string[] = [];
  if (where.file !== undefined) parts.push(where.file);
  for (const key of ["offset", "rank", "token", "slot", "row", "column"] as const) {
    if (where[key] !== undefined) parts.push(`${key} ${where[key]}`);
  }
  return parts.join(", ");
}

export function describeProblem(problem: Problem): string {
  const where = describePlace(problem.where);
  return `${problem.name}: expected ${problem.expected}, received ${problem.received}${where && ` at ${where}`}; ${problem.remedy}`;
}

/** What one rank was waiting for when an operation over several processes failed: a row of the table rank x source rank. */
export interface Wait {
  readonly rank: number;
  /** The rank whose arrival or data is awaited. */
  readonly srcRank: number;
  readonly phase: string;
  readonly expected: string;
  readonly received: string;
}

export interface ErrorDetails extends ErrorOptions {
  readonly waits?: readonly Wait[];
}

export class FusedA2AError extends Error {
  readonly code: ErrorCode;
  readonly problem: Problem | undefined;
  /** Timeout and BackendFailure of a group over several processes: who waited for whom, in which phase, for what. */
  readonly waits?: readonly Wait[];

  constructor(code: ErrorCode, problem: Problem | string, options?: ErrorDetails) {
    super(typeof problem === "string" ? problem : describeProblem(problem), options);
    this.code = code;
    this.problem = typeof problem === "string" ? undefined : problem;
    if (options?.waits !== undefined && options.waits.length > 0) this.waits = options.waits;
    this.name = new.target.name;
  }
}

/** The caller's arguments are wrong: nothing was run. */
export class InvalidArgument extends FusedA2AError {
  constructor(problem: Problem, options?: ErrorOptions) {
    super("INVALID_ARGUMENT", problem, options);
  }
}

/** A file is damaged, tainted or of an unknown version. */
export class InvalidFile extends FusedA2AError {
  constructor(problem: Problem, options?: ErrorOptions) {
    super("INVALID_FILE", problem, options);
  }
}

/** Something this machine lacks; the message says what was tried and how to get it. */
export class Unavailable extends FusedA2AError {
  constructor(message: Problem | string, options?: ErrorOptions) {
    super("UNAVAILABLE", message, options);
  }
}

/** Memory that could not be had; the message says how much and which setting lowers it. */
export class OutOfMemory extends FusedA2AError {
  constructor(problem: Problem | string, options?: ErrorOptions) {
    super("OUT_OF_MEMORY", problem, options);
  }
}

/** A kernel, worker or device failed; the group may be unusable afterwards. */
export class BackendFailure extends FusedA2AError {
  constructor(problem: Problem | string, options?: ErrorDetails) {
    super("BACKEND_FAILURE", problem, options);
  }
}

/** Ranks disagree about the operation (kind, sequence number, sizes, settings). */
export class ContractMismatch extends FusedA2AError {
  constructor(message: Problem | string, options?: ErrorOptions) {
    super("CONTRACT_MISMATCH", message, options);
  }
}

/** A deadline passed; `waits` is the table of who waited for whom. */
export class Timeout extends FusedA2AError {
  constructor(message: Problem | string, options?: ErrorDetails) {
    super("TIMEOUT", message, options);
  }
}
