import { InvalidArgument } from "../errors.ts";

/**
 * What a group does before it hangs: every rank's streams of collective calls, run against each other without data. A call
 * of a communicator meets the call with the same position in that communicator on every member; it completes when all
 * have started it and agree on what it is. A started call holds its SMs until it completes: its kernels wait on the device.
 */
export interface Call {
  readonly op: string;
  readonly communicator: string;
  /** What the ranks must agree on: sizes, dtype, configuration. */
  readonly contract?: Readonly<Record<string, string | number>>;
  /** SMs that the kernel needs all at once (a cooperative launch); default 0. */
  readonly numSms?: number;
}

export interface RankProgram {
  readonly rank: number;
  /** When the rank issues its first call. */
  readonly readyUs?: number;
  readonly streams: readonly (readonly Call[])[];
  readonly numSms: number;
}

export interface DeadlockOptions {
  readonly programs: readonly RankProgram[];
  /** Members of each communicator; default all ranks. */
  readonly communicators?: Readonly<Record<string, readonly number[]>>;
  /** A wait longer than this is reported; default 100 s, DeepEP's. */
  readonly timeoutUs?: number;
}

export type StuckKind =
  | "none"
  | "late-rank"
  | "contract-mismatch"
  | "order-mismatch"
  | "missing-call"
  | "sm-starvation";

/** One line of the table that a timeout should print. */
export interface BlockedCall {
  readonly rank: number;
  readonly op: string;
  readonly communicator: string;
  /** Position of the call in its communicator on this rank. */
  readonly sequence: number;
  readonly state: "waiting" | "needs SMs";
  readonly waitsFor: readonly number[];
}

export interface DeadlockReport {
  readonly kind: StuckKind;
  readonly completes: boolean;
  readonly blocked: readonly BlockedCall[];
  readonly words: readonly string[];
}

const DEFAULT_TIMEOUT_US = 100e6;

interface Cursor {
  readonly program: RankProgram;
  /** Next call of each stream, and whether it has started. */
  readonly next: number[];
  readonly started: boolean[];
  /** Calls already started per communicator. */
  readonly sequence: Map<string, number>;
  freeSms: number;
}

/** Runs the programs until they end or nothing moves any more, and says why. Throws InvalidArgument for unknown ranks. */
export function findDeadlock(options: DeadlockOptions): DeadlockReport {
  const { programs } = options;
  const ranks = new Map(programs.map((program) => [program.rank, program]));
  const members = (communicator: string) => options.communicators?.[communicator] ?? programs.map((p) => p.rank);
  for (const [name, list] of Object.entries(options.communicators ?? {})) {
    for (const rank of list) {
      if (!ranks.has(rank)) {
        throw new InvalidArgument({
          name: `communicators.${name}`,
          expected: "ranks that have a program",
          received: `${rank}`,
          remedy: "add its program or leave it out",
        });
      }
    }
  }
  const cursors = new Map(programs.map((program) => [program.rank, newCursor(program)]));
  const meetings = new Map<string, Map<number, Started>>();
  const late = lateness(programs, options.timeoutUs ?? DEFAULT_TIMEOUT_US);
  for (let moved = true; moved; ) {
    moved = false;
    for (const cursor of cursors.values()) moved = startCalls(cursor, meetings) || moved;
    for (const [key, started] of meetings) {
      const group = members(key.slice(0, key.lastIndexOf("#")));
      if (started.size < group.length || disagreement(started) !== null) continue;
      for (const [rank, { stream, call }] of started) complete(cursors.get(rank) as Cursor, stream, call);
      meetings.delete(key);
      moved = true;
    }
  }
  const blocked = blockedCalls(cursors, meetings, members);
  if (blocked.length > 0) return explain(blocked, cursors, meetings, members);
  if (late !== null) return late;
  return { kind: "none", completes: true, blocked: [], words: ["every call completes"] };
}

interface Started {
  readonly stream: number;
  readonly call: Call;
}

function newCursor(program: RankProgram): Cursor {
  return {
    program,
    next: program.streams.map(() => 0),
    started: program.streams.map(() => false),
    sequence: new Map(),
    freeSms: program.numSms,
  };
}

function startCalls(cursor: Cursor, meetings: Map<string, Map<number, Started>>): boolean {
  let moved = false;
  cursor.program.streams.forEach((calls, stream) => {
    const call = calls[cursor.next[stream]];
    if (call === undefined || cursor.started[stream] || (call.numSms ?? 0) > cursor.freeSms) return;
    cursor.freeSms -= call.numSms ?? 0;
    cursor.started[stream] = true;
    const sequence = cursor.sequence.get(call.communicator) ?? 0;
    cursor.sequence.set(call.communicator, sequence + 1);
    const key = `${call.communicator}#${sequence}`;
    const meeting = meetings.get(key) ?? new Map<number, Started>();
    meetings.set(key, meeting.set(cursor.program.rank, { stream, call }));
    moved = true;
  });
  return moved;
}

function complete(cursor: Cursor, stream: number, call: Call): void {
  cursor.freeSms += call.numSms ?? 0;
  cursor.started[stream] = false;
  cursor.next[stream]++;
}

/** The first field in which the calls of a meeting differ; null when they agree. */
function disagreement(meeting: ReadonlyMap<number, Started>): { field: string; values: Map<number, string> } | null {
  const valuesOf = (read: (call: Call) => string) =>
    new Map([...meeting].map(([rank, { call }]) => [rank, read(call)]));
  const differs = (values: Map<number, string>) => new Set(values.values()).size > 1;
  const ops = valuesOf((call) => call.op);
  if (differs(ops)) return { field: "op", values: ops };
  const fields = new Set([...meeting.values()].flatMap(({ call }) => Object.keys(call.contract ?? {})));
  for (const field of fields) {
    const values = valuesOf((call) => `${call.contract?.[field] ?? "nothing"}`);
    if (differs(values)) return { field, values };
  }
  return null;
}

function blockedCalls(
  cursors: ReadonlyMap<number, Cursor>,
  meetings: ReadonlyMap<string, ReadonlyMap<number, Started>>,
  members: (communicator: string) => readonly number[],
): BlockedCall[] {
  const result: BlockedCall[] = [];
  for (const [key, meeting] of meetings) {
    const at = key.lastIndexOf("#");
    const communicator = key.slice(0, at);
    const absent = members(communicator).filter((rank) => !meeting.has(rank));
    const groups = disagreement(meeting)?.values;
    for (const [rank, { call }] of meeting) {
      const others = groups ? [...meeting.keys()].filter((r) => groups.get(r) !== groups.get(rank)) : [];
      const waitsFor = [...new Set([...absent, ...others])].sort((a, b) => a - b);
      result.push({ rank, op: call.op, communicator, sequence: Number(key.slice(at + 1)), state: "waiting", waitsFor });
    }
  }
  for (const [rank, cursor] of cursors) {
    cursor.program.streams.forEach((calls, stream) => {
      const call = calls[cursor.next[stream]];
      if (call === undefined || cursor.started[stream]) return;
      const sequence = cursor.sequence.get(call.communicator) ?? 0;
      const { op, communicator } = call;
      result.push({ rank, op, communicator, sequence, state: "needs SMs", waitsFor: [rank] });
    });
  }
  return result.sort((a, b) => a.rank - b.rank);
}

function explain(
  blocked: readonly BlockedCall[],
  cursors: ReadonlyMap<number, Cursor>,
  meetings: ReadonlyMap<string, ReadonlyMap<number, Started>>,
  members: (communicator: string) => readonly number[],
): DeadlockReport {
  const report = (kind: StuckKind, ...words: string[]): DeadlockReport => ({ kind, completes: false, blocked, words });
  for (const [key, meeting] of meetings) {
    const differs = disagreement(meeting);
    if (differs === null) continue;
    const { odd, usual, oddValue } = minority(differs.values);
    const where = key.replace("#", " call ");
    if (differs.field !== "op") {
      const words = `${ranksText(odd)} called ${[...meeting.values()][0].call.op} (${where}) with ${differs.field} ${oddValue}, the others with ${usual}: give all ranks the same ${differs.field}, or use a path that takes ragged sizes`;
      return report("contract-mismatch", words);
    }
    const laterHere = odd.some((rank) => issuesLater(cursors.get(rank) as Cursor, usual));
    const words = laterHere
      ? `${ranksText(odd)} issued ${oddValue} where the others issued ${usual} (${where}): collectives run in a different order there; issue them in the same order on every rank`
      : `${ranksText(odd)} entered ${oddValue} where the others entered ${usual} (${where}): a branch took another way there, as with unequal lengths; make every rank take part`;
    return report(laterHere ? "order-mismatch" : "missing-call", words);
  }
  const starved = blocked.filter((call) => call.state === "needs SMs");
  if (starved.length > 0) {
    const ops = [...new Set(starved.map((call) => call.op))];
    return report("sm-starvation", ...ops.map((op) => starvedInWords(op, starved, blocked, cursors)));
  }
  if (crossedWait(blocked)) {
    const waiting = blocked.filter((call) => call.state === "waiting");
    const { odd, usual, oddValue } = minority(
      new Map(waiting.map((call) => [call.rank, `${call.op} of ${call.communicator}`])),
    );
    const words = `${ranksText(odd)} waits in ${oddValue} and the others wait in ${usual}, each before the other's call: collectives run in a different order there; issue them in one order on every rank`;
    return report("order-mismatch", words);
  }
  const first = blocked[0];
  const absent = first.waitsFor.filter((rank) => members(first.communicator).includes(rank));
  const words = `${ranksText(absent)} never calls ${first.op} of ${first.communicator} (call ${first.sequence}) and ${blocked.length} others wait for it: make every rank take part, with zero tokens if it has none`;
  return report("missing-call", words);
}

function starvedInWords(
  op: string,
  starved: readonly BlockedCall[],
  blocked: readonly BlockedCall[],
  cursors: ReadonlyMap<number, Cursor>,
): string {
  const ranks = starved.filter((call) => call.op === op).map((call) => call.rank);
  const cursor = cursors.get(ranks[0]) as Cursor;
  const need = cursor.program.streams.flat().find((call) => call.op === op)?.numSms ?? 0;
  const holders = blocked.filter((other) => other.rank === ranks[0] && other.state === "waiting");
  const cannot = `${ranksText(ranks)} cannot start ${op}: it needs ${need} SMs`;
  if (holders.length === 0) return `${cannot} and a rank has ${cursor.program.numSms}; lower its number of SMs`;
  const held = holders.map((other) => `${other.op}, which waits for ${ranksText(other.waitsFor)}`).join(", and ");
  return `${cannot} and ${cursor.freeSms} of ${cursor.program.numSms} are free, the rest are held by ${held}; cap the SMs of one of them so that both fit`;
}

/** Whether two blocked ranks wait for each other in different communicators. */
function crossedWait(blocked: readonly BlockedCall[]): boolean {
  return blocked.some((a) =>
    blocked.some((b) => {
      const differ = a.communicator !== b.communicator && a.rank !== b.rank;
      return differ && a.waitsFor.includes(b.rank) && b.waitsFor.includes(a.rank);
    }),
  );
}

function issuesLater(cursor: Cursor, op: string): boolean {
  return cursor.program.streams.some((calls, stream) => calls.slice(cursor.next[stream] + 1).some((c) => c.op === op));
}

/** The ranks whose value fewer ranks share (ties: the higher ranks), their value, and the usual one. */
function minority(values: ReadonlyMap<number, string>): { odd: number[]; oddValue: string; usual: string } {
  const groups = new Map<string, number[]>();
  for (const [rank, value] of values) groups.set(value, [...(groups.get(value) ?? []), rank]);
  const sorted = [...groups].sort((a, b) => a[1].length - b[1].length || b[1][0] - a[1][0]);
  return { odd: sorted[0][1], oddValue: sorted[0][0], usual: sorted[sorted.length - 1][0] };
}

function ranksText(ranks: readonly number[]): string {
  return `${ranks.length === 1 ? "rank" : "ranks"} ${ranks.join(", ")}`;
}

/** Ranks that come later than the others: nothing is stuck, but a timeout may not know that. */
function lateness(programs: readonly RankProgram[], timeoutUs: number): DeadlockReport | null {
  const times = programs.map((program) => program.readyUs ?? 0).sort((a, b) => a - b);
  const typical = times[(times.length - 1) >> 1];
  const late = programs.filter((program) => (program.readyUs ?? 0) > typical + Math.max(1, 0.5 * typical));
  if (late.length === 0) return null;
  const most = Math.max(...late.map((program) => (program.readyUs ?? 0) - typical));
  const name = ranksText(late.map((program) => program.rank));
  const op = programs[0].streams[0]?.[0]?.op ?? "the first call";
  const lateRanks = late.map((program) => program.rank);
  return {
    kind: "late-rank",
    completes: most <= timeoutUs,
    blocked: programs
      .filter((program) => !lateRanks.includes(program.rank))
      .flatMap(({ rank, streams }) =>
        streams[0]?.[0]
          ? [
              {
                rank,
                op,
                communicator: streams[0][0].communicator,
                sequence: 0,
                state: "waiting" as const,
                waitsFor: lateRanks,
              },
            ]
          : [],
      ),
    words: [
      most > timeoutUs
        ? `${name} enters ${op} ${(most / 1e6).toFixed(1)} s after the others, beyond the timeout of ${(timeoutUs / 1e6).toFixed(0)} s: nothing is stuck, the others only wait; find what keeps it, or raise the timeout`
        : `${name} enters ${op} ${(most / 1e3).toFixed(1)} ms after the others, which wait there: ${op} is the meeting point, not the cause`,
    ],
  };
}
