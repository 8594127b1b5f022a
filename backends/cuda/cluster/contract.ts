/** What all processes must agree on, field by field, and the table that names who differs. */
export type Contract = Readonly<Record<string, string | number>>;

/** One process's contract. */
export interface Signed {
  readonly process: number;
  readonly contract: Contract;
}

export interface Disagreement {
  readonly field: string;
  /** The value of each process; undefined = it has no such field. */
  readonly values: readonly { readonly process: number; readonly value: string | number | undefined }[];
}

/** Fields whose values differ, in the order they are met. Empty when all agree. Of different operations: that alone. */
export function disagreements(signed: readonly Signed[]): Disagreement[] {
  const fields = new Set(signed.flatMap(({ contract }) => Object.keys(contract)));
  const found = [...fields].flatMap((field) => {
    const values = signed.map(({ process, contract }) => ({ process, value: contract[field] }));
    return values.every(({ value }) => value === values[0].value) ? [] : [{ field, values }];
  });
  const operation = found.find(({ field }) => field === "operation");
  return operation === undefined ? found : [operation];
}

/** "hidden: 7168 on processes 0, 1; 4096 on process 2". Processes of equal value stand together. */
export function describeDisagreements(found: readonly Disagreement[]): string {
  return found.map(({ field, values }) => `${field}: ${groupByValue(values)}`).join("; ");
}

function groupByValue(values: Disagreement["values"]): string {
  const groups = new Map<string, number[]>();
  for (const { process, value } of values) {
    const key = value === undefined ? "nothing" : `${value}`;
    groups.set(key, [...(groups.get(key) ?? []), process]);
  }
  return [...groups].map(([value, who]) => `${value} on ${nameProcesses(who)}`).join(", ");
}

export function nameProcesses(processes: readonly number[]): string {
  return `${processes.length === 1 ? "process" : "processes"} ${processes.join(", ")}`;
}
