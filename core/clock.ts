// The one global the core uses that is not in the ES library: Node and browsers both have it.
declare const performance: { now(): number };

/** Microseconds on this process's monotonic clock. */
export function nowUs(): number {
  return performance.now() * 1e3;
}
