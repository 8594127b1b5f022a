/** Progress on a terminal: nothing is drawn before a second has passed, nor when stderr is not a terminal. */
export interface Progress {
  /** 0..1 of the work done. */
  update(fraction: number, label?: string): void;
  done(): void;
}

const WIDTH = 30;
const QUIET_MS = 1000;
const REDRAW_MS = 100;

export function progressBar(label: string): Progress {
  const started = performance.now();
  let drawn = 0;
  let visible = false;
  return {
    update(fraction, now = label) {
      const time = performance.now();
      if (!process.stderr.isTTY || time - started < QUIET_MS || time - drawn < REDRAW_MS) return;
      drawn = time;
      visible = true;
      const filled = Math.round(Math.min(1, Math.max(0, fraction)) * WIDTH);
      const bar = `${"#".repeat(filled)}${"-".repeat(WIDTH - filled)}`;
      process.stderr.write(`\r\x1b[K${now} [${bar}] ${Math.floor(fraction * 100)}%`);
    },
    done() {
      if (visible) process.stderr.write("\r\x1b[K");
    },
  };
}
