// What rank.mjs and failing.mjs share: options, lines, the steps that stop, end or delay a process, and data from a seed.

/** Of this process: `{ place, numRanks, steps, ... }`. */
export const options = JSON.parse(process.argv[2]);

/** Prints one JSON object. */
export const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

/**
 * Takes the steps one after the other: "stop", "die", { stopInMs }, { dieInMs } and { sleepMs } here, any other by `act`. An
 * error of the library is printed, and `failed` hears of it; the next step comes all the same.
 */
export async function takeSteps(act, failed = () => {}) {
  for (const step of options.steps) {
    try {
      if (step === "stop") process.kill(process.pid, "SIGSTOP");
      else if (step === "die") process.kill(process.pid, "SIGKILL");
      else if (step.stopInMs) setTimeout(() => process.kill(process.pid, "SIGSTOP"), step.stopInMs);
      else if (step.dieInMs) setTimeout(() => process.kill(process.pid, "SIGKILL"), step.dieInMs);
      else if (step.sleepMs) await new Promise((resolve) => setTimeout(resolve, step.sleepMs));
      else await act(step);
    } catch (error) {
      if (error.code === undefined) throw error;
      say({ code: error.code, message: error.message, waits: error.waits });
      await failed(error);
    }
  }
}

export function settingsOf(style, numExperts, more = {}) {
  const padMultiple = style === "fused" ? 1 : 8;
  return { numExperts, expertAlignment: 4, numWorstTokens: 0, padMultiple, numPermutedTokens: null, ...more };
}

/** Tokens of each rank: different numbers of them, and none on rank 1. */
export function countsOf(numRanks, tokens) {
  return Array.from({ length: numRanks }, (_, rank) => (rank === 1 ? 0 : tokens + rank));
}

/** Numbers in [0, 1): the same in every process. */
export function random(seed) {
  let state = Math.imul(seed, 0x9e3779b1);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Different experts for every token; about one slot in seven holds none, the first `filled` of a token always one. */
export function choices(rows, topk, numExperts, next, filled = 0) {
  const data = new BigInt64Array(rows * topk).fill(-1n);
  for (let token = 0; token < rows; token++) {
    const left = Array.from({ length: numExperts }, (_, expert) => expert);
    for (let slot = 0; slot < topk; slot++) {
      const [expert] = left.splice(Math.floor(next() * left.length), 1);
      if (slot < filled || next() > 0.15) data[token * topk + slot] = BigInt(expert);
    }
  }
  return { dtype: "i64", shape: [rows, topk], data };
}

export function routingMapOf({ shape: [rows, topk], data }, numExperts) {
  const map = { dtype: "bool", shape: [rows, numExperts], data: new Uint8Array(rows * numExperts) };
  data.forEach((expert, i) => {
    if (expert >= 0) map.data[Math.floor(i / topk) * numExperts + Number(expert)] = 1;
  });
  return map;
}
