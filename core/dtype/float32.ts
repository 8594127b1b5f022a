/** Float32 as bits, and the one rule for numbers that all backends share (design 2.11). */
const scratch = new DataView(new ArrayBuffer(4));

/** The one NaN that every NaN result becomes. */
export const NAN_BITS = 0x7fc00000;

/** Smallest normal float32: anything smaller in magnitude has exponent field 0. */
export const MIN_NORMAL = 2 ** -126;

/** A product below this has exponent field <= 1 and counts as zero: devices round differently around 2^-126. */
export const MIN_PRODUCT = 2 ** -125;

export function bitsOf(value: number): number {
  scratch.setFloat32(0, value);
  return scratch.getUint32(0);
}

export function floatOf(bits: number): number {
  scratch.setUint32(0, bits);
  return scratch.getFloat32(0);
}

/** A term or partial sum: subnormals count as zero with their sign. */
export function flush(value: number): number {
  return value < MIN_NORMAL && value > -MIN_NORMAL ? value * 0 : value;
}

/** The float32 sum of two flushed values, flushed. */
export function add(a: number, b: number): number {
  return flush(Math.fround(a + b));
}

/** The float32 product of two values, under the rule for products. */
export function multiply(a: number, b: number): number {
  const product = Math.fround(a * b);
  return product < MIN_PRODUCT && product > -MIN_PRODUCT ? product * 0 : product;
}

/** Copies one float32 without going through a number: V8 may change a NaN's payload. */
export function copyBits(source: Float32Array, from: number, target: Float32Array, to: number): void {
  new Uint32Array(target.buffer, target.byteOffset, target.length)[to] = new Uint32Array(
    source.buffer,
    source.byteOffset,
    source.length,
  )[from];
}
