/** Columns that are written to one destination before the next has its turn. */
const STRETCH: u32 = 128;

/** Copies one source row to `count` destinations (addresses in `table`), a stretch of columns at a time. */
export function scatter(source: u32, table: u32, count: u32, bytes: u32): void {
  const end = table + (count << 2);
  const whole = bytes & ~63;
  for (let first: u32 = 0; first < whole; first += STRETCH) {
    const until = min<u32>(whole, first + STRETCH);
    for (let entry = table; entry < end; entry += 4) {
      const target = load<u32>(entry);
      for (let at = first; at < until; at += 64) {
        const a = v128.load(source + at);
        const b = v128.load(source + at, 16);
        const c = v128.load(source + at, 32);
        const d = v128.load(source + at, 48);
        v128.store(target + at, a);
        v128.store(target + at, b, 16);
        v128.store(target + at, c, 32);
        v128.store(target + at, d, 48);
      }
    }
  }
  if (whole == bytes) return;
  for (let entry = table; entry < end; entry += 4) {
    memory.copy(load<u32>(entry) + whole, source + whole, bytes - whole);
  }
}

export function zero(target: u32, bytes: u32): void {
  memory.fill(target, 0, bytes);
}
