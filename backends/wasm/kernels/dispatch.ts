/** Copies one source row to `count` destinations (addresses in `table`): the row is read once, 64 bytes at a time. */
export function scatter(source: u32, table: u32, count: u32, bytes: u32): void {
  const end = table + (count << 2);
  const whole = bytes & ~63;
  for (let at: u32 = 0; at < whole; at += 64) {
    const a = v128.load(source + at);
    const b = v128.load(source + at, 16);
    const c = v128.load(source + at, 32);
    const d = v128.load(source + at, 48);
    for (let entry = table; entry < end; entry += 4) {
      const target = load<u32>(entry) + at;
      v128.store(target, a);
      v128.store(target, b, 16);
      v128.store(target, c, 32);
      v128.store(target, d, 48);
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
