import { log } from "./elementary.ts";

/**
 * The generators' random numbers: xoshiro128** (Blackman and Vigna 2018, public domain) with 32-bit operations, seeded by
 * splitmix32, so that a seed gives the same routing in Node and in every browser.
 */
export class Random {
  readonly #state: Uint32Array;

  /** Independent streams for different `keys` (seed, layer, rank, purpose): 32-bit integers of either sign. */
  constructor(...keys: readonly number[]) {
    let hash = 0x9e3779b9;
    for (const key of keys) hash = mix(hash ^ mix(key | 0)) + 0x9e3779b9;
    this.#state = new Uint32Array(4);
    for (let i = 0; i < 4; i++) {
      hash = (hash + 0x9e3779b9) | 0;
      this.#state[i] = mix(hash);
    }
    // The all-zero state is the one that never leaves itself.
    if (this.#state.every((word) => word === 0)) this.#state[0] = 1;
  }

  /** The generator from a given state (not all zero), to compare with the reference implementation. */
  static fromState(state: Uint32Array): Random {
    const random = new Random();
    random.#state.set(state);
    return random;
  }

  /** A whole number in 0..2^32-1. */
  next(): number {
    const s = this.#state;
    const s1 = s[1];
    const times5 = Math.imul(s1, 5);
    const result = Math.imul((times5 << 7) | (times5 >>> 25), 9) >>> 0;
    s[2] ^= s[0];
    s[3] ^= s1;
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= s1 << 9;
    s[3] = (s[3] << 11) | (s[3] >>> 21);
    return result;
  }

  /** A number in [0, 1): a multiple of 2^-32. */
  float(): number {
    return this.next() * 2 ** -32;
  }

  /** A whole number in 0..n-1, n <= 2^32; biased by less than n / 2^32. */
  below(n: number): number {
    return Math.floor(this.next() * 2 ** -32 * n);
  }

  /** A draw from the standard normal distribution (Marsaglia's polar method). */
  normal(): number {
    for (;;) {
      const u = 2 * this.float() - 1;
      const v = 2 * this.float() - 1;
      const square = u * u + v * v;
      if (square > 0 && square < 1) return u * Math.sqrt((-2 * log(square)) / square);
    }
  }

  /** Puts `values` into a uniformly random order (Fisher-Yates). */
  shuffle(values: Int32Array): Int32Array {
    for (let i = values.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const value = values[i];
      values[i] = values[j];
      values[j] = value;
    }
    return values;
  }
}

function mix(value: number): number {
  let z = value | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return (z ^ (z >>> 15)) >>> 0;
}

/** 0..n-1 in order. */
export function iota(n: number): Int32Array {
  return Int32Array.from({ length: n }, (_, i) => i);
}
